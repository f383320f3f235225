import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuserver.domain import FPS, Pcm
from gpuserver.pipeline.resample import SoundFrames


def tone(rate: int, seconds: float = 1.0, frequency: float = 440.0) -> Pcm:
    return (10_000 * np.sin(2 * np.pi * frequency * np.arange(int(rate * seconds)) / rate)).astype(np.int16)


@given(rate=st.sampled_from([8_000, 16_000, 22_050, 24_000, 44_100, 48_000]), samples=st.integers(1, 30_000), piece=st.integers(50, 5_000))
def test_a_sentence_has_as_many_frames_as_its_feature_rows_however_it_is_cut(rate: int, samples: int, piece: int) -> None:
    sound = np.ones(samples, np.int16)
    frames = SoundFrames()
    cut = [frame for at in range(0, samples, piece) for frame in frames.push(sound[at : at + piece], rate)] + frames.finish()
    assert len(cut) == -(-samples * FPS // rate)
    assert all(frame.shape == (1920,) and frame.dtype == np.int16 for frame in cut)


@pytest.mark.parametrize("rate", [16_000, 22_050, 24_000, 48_000])
def test_the_tone_stays_the_same_tone_at_the_same_time(rate: int) -> None:
    frames = SoundFrames()
    sound = tone(rate)
    cut = [frame for at in range(0, len(sound), 700) for frame in frames.push(sound[at : at + 700], rate)] + frames.finish()
    error = np.concatenate(cut).astype(int) - tone(48_000)
    assert np.abs(error[480:-480]).max() < 20


def test_the_first_frame_is_there_before_the_lips_have_heard_enough_for_theirs() -> None:
    frames = SoundFrames()
    assert len(frames.push(tone(24_000, 0.095), 24_000)) >= 1  # 95 ms: the look-ahead of the sound features


def test_silence_fills_the_last_frame() -> None:
    frames = SoundFrames()
    frames.push(np.full(100, 500, np.int16), 48_000)
    (last,) = frames.finish()
    assert (last[:100] == 500).all()
    assert not last[100:].any()


def test_a_voice_that_changes_its_rate_loses_nothing() -> None:
    frames = SoundFrames()
    cut = [*frames.push(tone(24_000, 0.5), 24_000), *frames.push(tone(16_000, 0.5), 16_000), *frames.finish()]
    assert len(cut) == 25
