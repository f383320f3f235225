"""WAV and headerless PCM, cut anywhere, become the same sound; what is neither is refused."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from fake_speech_service import tone, wav_header
from hypothesis import given
from hypothesis import strategies as st

from gpuserver.domain import Pcm
from gpuserver.pipeline.wav import LONGEST_HEADER, WavDecoder

SOUND = tone(0.02, 16_000)
FILE = wav_header(16_000, 2 * len(SOUND)) + SOUND.tobytes()


def decode(data: bytes, cuts: list[int]) -> Pcm:
    decoder = WavDecoder()
    edges = [0, *sorted(cut % len(data) for cut in cuts), len(data)]
    sound = np.concatenate([decoder.decode(data[begin:end]) for begin, end in pairwise(edges)])
    decoder.finish()
    return sound


@given(st.lists(st.integers(0, 10_000), max_size=30))
def test_a_file_may_be_cut_anywhere(cuts: list[int]) -> None:
    assert np.array_equal(decode(FILE, cuts), SOUND)


@given(st.lists(st.integers(0, 10_000), max_size=30))
def test_headerless_sound_may_be_cut_anywhere(cuts: list[int]) -> None:
    assert np.array_equal(decode(SOUND.tobytes(), cuts), SOUND)


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_sound_or_a_value_error(data: bytes) -> None:
    for start in (b"", b"RIFF", FILE[:20]):
        decoder = WavDecoder()
        try:
            decoder.decode(start + data)
            decoder.finish()
        except ValueError:
            continue


def test_a_header_that_does_not_end_is_refused() -> None:
    decoder = WavDecoder()
    with pytest.raises(ValueError, match="without sound"):
        for _ in range(LONGEST_HEADER):
            decoder.decode(b"RIFF\0\0\0\0WAVE" if not decoder.sample_rate and _ == 0 else b"note\x10\0\0\0" + bytes(16))


def test_a_file_without_a_format_is_refused() -> None:
    with pytest.raises(ValueError, match="without a format"):
        WavDecoder().decode(b"RIFF\0\0\0\0WAVEdata\0\0\0\0")
