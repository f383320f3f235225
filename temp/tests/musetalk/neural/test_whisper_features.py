"""Against arrays that upstream MuseTalk's own code made: temp/tests/golden."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from gpuserver.domain import Floats
from gpuserver.musetalk.neural import whisper_features as whisper

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
WIDTH = 3


class NumberedSteps:
    """An encoder whose steps carry their own number, counted over all segments; layer l adds l / 10."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, mel: Floats) -> Floats:
        assert mel.shape == (1, whisper.MELS, whisper.MEL_FRAMES)
        numbers = np.arange(whisper.SEGMENT_STEPS) + self.calls * whisper.SEGMENT_STEPS
        self.calls += 1
        layers = numbers[:, None] + np.arange(whisper.LAYERS) / 10
        return np.repeat(layers[None, :, :, None], WIDTH, axis=3).astype(np.float32)


def sound(samples: int) -> Floats:
    return np.zeros(samples, np.float32)


def golden_windows() -> list[tuple[float, int, np.ndarray]]:
    with np.load(GOLDEN / "audio_chunk_index.npz") as arrays:
        parsed = [(re.fullmatch(r"idx_fps([\d.]+)_len(\d+)", name), arrays[name]) for name in arrays.files]
    return [(float(match[1]), int(match[2]), array) for match, array in parsed if match]


@pytest.mark.parametrize(("fps", "samples", "expected"), golden_windows())
def test_the_windows_are_those_of_upstream(fps: float, samples: int, expected: np.ndarray) -> None:
    assert np.array_equal(whisper.upstream_windows(samples, fps), expected)


@pytest.mark.parametrize(
    ("fps", "first", "second"), [(25, -4, -2), (30, -4, -3), (29.97, -4, -3), (24, -6, -4), (20, -6, -4), (15, -8, -5), (12.5, -10, -6)]
)
def test_upstreams_windows_slide_into_the_past_at_low_rates(fps: float, first: int, second: int) -> None:
    windows = whisper.upstream_windows(16_000, fps)
    assert windows[0].tolist() == [max(step, -1) for step in range(first, first + 10)]
    assert windows[1].tolist() == [max(step, -1) for step in range(second, second + 10)]


def test_upstream_loses_a_picture_to_rounding() -> None:
    assert [len(whisper.upstream_windows(pictures * 640, 25)) for pictures in (28, 29, 30)] == [28, 28, 30]


def test_the_spectrogram_is_that_of_upstream() -> None:
    with np.load(GOLDEN / "mel.npz") as arrays:
        mel = whisper.log_mel(arrays["pcm"].astype(np.float32) / 32768)
        np.testing.assert_allclose(mel[:, :340], arrays["mel_first_340"], atol=1e-4, rtol=0)
        np.testing.assert_allclose(mel[:, 340:], arrays["mel_tail_const"], atol=1e-4, rtol=0)


def test_a_spectrogram_does_not_depend_on_how_its_silence_is_given() -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, 5000).astype(np.float32)
    padded = np.pad(noise, (0, whisper.SEGMENT - len(noise)))
    assert np.array_equal(whisper.log_mel(noise), whisper.log_mel(padded))


def test_a_spectrogram_takes_at_most_30_seconds() -> None:
    with pytest.raises(ValueError, match="more than 30 s"):
        whisper.log_mel(sound(whisper.SEGMENT + 1))


@pytest.mark.parametrize(("samples", "pictures"), [(0, 0), (1, 0), (639, 0), (640, 1), (641, 1), (1280, 2)])
def test_the_shortest_sounds_have_rows_too(samples: int, pictures: int) -> None:
    assert len(list(whisper.feature_rows(sound(samples), NumberedSteps()))) == pictures


def test_a_row_is_ten_steps_of_five_layers_and_zeros_where_there_is_no_sound() -> None:
    rows = list(whisper.feature_rows(sound(16_000), NumberedSteps()))
    assert rows[0].shape == (whisper.TOKENS, WIDTH)
    assert not rows[0][:20].any()
    expected = [step + layer / 10 for step in range(6) for layer in range(whisper.LAYERS)]
    np.testing.assert_allclose(rows[0][20:, 0], expected, rtol=1e-6)
    assert not rows[-1][-20:].any()


def test_rows_cross_the_borders_of_segments() -> None:
    encode = NumberedSteps()
    rows = list(whisper.feature_rows(sound(61 * 16_000), encode))
    assert encode.calls == 3
    assert len(rows) == 61 * 25
    for picture in (2, 749, 750, 751, 1499, 1500, 1502):
        np.testing.assert_allclose(rows[picture][:: whisper.LAYERS, 0], np.arange(2 * picture - 4, 2 * picture + 6))


def test_ten_minutes_are_heard_segment_by_segment() -> None:
    encode = NumberedSteps()
    rows = whisper.feature_rows(sound(600 * 16_000), encode)
    next(rows)
    assert encode.calls == 1
    assert sum(1 for _ in rows) == 15_000 - 1
    assert encode.calls == 20


def test_the_positions_are_sines_and_cosines() -> None:
    positions = whisper.positional_encoding(384)
    assert positions.shape == (50, 384)
    assert positions[0].tolist() == [0, 1] * 192
    np.testing.assert_allclose(
        positions[7, [0, 1, 2, 3]], [np.sin(7), np.cos(7), np.sin(7 * 10_000 ** (-2 / 384)), np.cos(7 * 10_000 ** (-2 / 384))], rtol=1e-6
    )
