"""Opus packets, decoded again: nothing is lost or shifted, and silence costs nothing."""

from __future__ import annotations

import numpy as np
from av import CodecContext, Packet

from gpuserver.domain import Pcm
from gpuserver.media.sound_stream import SETTLED_PIECES, SoundStream

PRE_SKIP = 312  # samples by which an Opus decoder is late, 6.5 ms


def hum(pieces: int) -> Pcm:
    return (8000 * np.sin(np.arange(960 * pieces) * 2 * np.pi * 220 / 48_000)).astype(np.int16)


def heard(packets: list[bytes]) -> np.ndarray:
    decoder = CodecContext.create("libopus", "r")
    return np.concatenate([frame.to_ndarray()[0].reshape(-1, 2)[:, 0] for packet in packets for frame in decoder.decode(Packet(packet))])


def encode(sound: Pcm) -> list[bytes]:
    stream = SoundStream()
    return [stream.encode(piece) for piece in sound.reshape(-1, 960)]


def test_every_piece_is_one_packet_and_sounds_where_it_was() -> None:
    sound = np.concatenate([np.zeros(960 * 5, np.int16), hum(20), np.zeros(960 * 5, np.int16)])
    packets = encode(sound)
    assert len(packets) == 30
    decoded = heard(packets)
    audible = np.flatnonzero(np.abs(decoded.astype(int)) > 800)
    assert abs(audible[0] - (960 * 5 + PRE_SKIP)) < 480
    assert abs(audible[-1] - (960 * 25 + PRE_SKIP)) < 480


def test_a_tick_of_settled_silence_is_one_packet_of_40_ms() -> None:
    stream = SoundStream()
    silence = np.zeros(960, np.int16)
    packets = [stream.encode(piece) for piece in (hum(10).reshape(-1, 960))]
    while not stream.settled:
        packets.append(stream.encode(silence))
    before = 960 * len(packets)
    packets += [stream.silent_tick] * 10
    decoded = heard(packets)
    assert len(decoded) == before + 1920 * 10
    assert np.abs(decoded[before:].astype(int)).max() < 30


def test_settled_silence_is_the_same_packet_and_speech_after_it_is_whole() -> None:
    sound = np.concatenate([hum(10), np.zeros(960 * 100, np.int16), hum(10)])
    packets = encode(sound)
    assert len(set(packets[10 + SETTLED_PIECES : 110])) == 1
    loud = heard(packets)[960 * 112 : 960 * 118].astype(int)
    before = heard(packets)[960 * 3 : 960 * 8].astype(int)
    assert 0.8 < np.abs(loud).max() / np.abs(before).max() < 1.25
    quiet = heard(packets)[960 * 30 : 960 * 109].astype(int)
    assert np.abs(quiet).max() < 30
