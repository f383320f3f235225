"""MP3 decoded while it arrives."""

from __future__ import annotations

import numpy as np
import pytest
from fake_edge_tts import SAMPLE_RATE, mp3

from gpuserver.domain import Pcm
from gpuserver.pipeline.mp3 import Mp3Decoder


def decoded(data: bytes, size: int) -> tuple[Pcm, int]:
    decoder = Mp3Decoder()
    pieces = [decoder.decode(data[start : start + size]) for start in range(0, len(data), size)]
    return np.concatenate([*pieces, decoder.finish()]), decoder.sample_rate


@pytest.mark.parametrize("size", [1, 7, 100, 720, 100_000])
def test_it_makes_no_difference_how_the_bytes_arrive(size: int) -> None:
    data = mp3(0.5)
    pcm, sample_rate = decoded(data, size)
    assert sample_rate == SAMPLE_RATE
    assert np.array_equal(pcm, decoded(data, 1440)[0])
    assert len(pcm) / SAMPLE_RATE == pytest.approx(0.5, abs=0.1)


def test_the_tone_is_heard() -> None:
    pcm, sample_rate = decoded(mp3(1.0), 720)
    middle = pcm[sample_rate // 4 : sample_rate * 3 // 4].astype(np.float64)
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert np.fft.rfftfreq(len(middle), 1 / sample_rate)[spectrum.argmax()] == pytest.approx(440, abs=3)


def test_sound_comes_before_the_stream_ends() -> None:
    data = mp3(2.0)
    assert len(Mp3Decoder().decode(data[: len(data) // 4])) > 0.3 * SAMPLE_RATE


@pytest.mark.parametrize("size", [1, 13, 4096])
def test_an_id3_tag_is_skipped(size: int) -> None:
    tag = b"ID3\x04\x00\x00\x00\x00\x02\x00" + b"\xff\xfb" * 128  # 256 bytes that look like frames
    pcm, _ = decoded(tag + mp3(0.3), size)
    assert np.array_equal(pcm, decoded(mp3(0.3), 720)[0])


def test_what_is_no_mp3_is_refused() -> None:
    with pytest.raises(ValueError, match="not an MP3 frame"):
        decoded(b"garbage" * 500, 720)


def test_nothing_gives_nothing() -> None:
    decoder = Mp3Decoder()
    assert len(decoder.decode(b"")) == len(decoder.finish()) == 0
