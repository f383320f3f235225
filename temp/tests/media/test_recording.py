"""Sound files drive the lips: what can be read, what is refused, and what a film of one sounds like."""

from __future__ import annotations

import wave
from pathlib import Path

import av
import numpy as np
import pytest
from fakes import FakeEngine, fake_avatar

from gpuserver.domain import SAMPLE_RATE, Pcm
from gpuserver.errors import InvalidInput, Unreadable
from gpuserver.media import recording
from gpuserver.media.film import render_film
from gpuserver.media.recording import Recording, read_sound


def write_wav(path: Path, seconds: float, rate: int = 16_000, channels: int = 1) -> Path:
    """A tone of 440 Hz; a second channel is its opposite."""
    tone = (8000 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)).astype(np.int16)
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, 2, rate, 0, "NONE", ""))
        file.writeframes(np.stack([tone, -tone][:channels], 1).tobytes())
    return path


def loudest(sound: Pcm) -> int:
    return int(np.abs(sound.astype(int)).max())


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_a_sound_of_any_rate_keeps_its_length_and_loudness(tmp_path: Path, rate: int) -> None:
    sound = read_sound(write_wav(tmp_path / "tone.wav", 1.0, rate))
    assert len(sound) == pytest.approx(SAMPLE_RATE, abs=100)
    assert loudest(sound) == pytest.approx(8000, rel=0.1)


def test_all_channels_are_mixed(tmp_path: Path) -> None:
    assert loudest(read_sound(write_wav(tmp_path / "opposite.wav", 0.5, channels=2))) < 100


def test_a_sound_that_is_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "LONGEST", 1)
    with pytest.raises(InvalidInput, match="longer than 1 s"):
        read_sound(write_wav(tmp_path / "long.wav", 1.5))


@pytest.mark.parametrize(
    "content", [b"", b"no sound at all" * 100, b"ffconcat version 1.0\nfile /etc/hostname\n", b"#EXTM3U\n/etc/hostname\n"]
)
def test_what_is_no_sound_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "sound.wav"
    path.write_bytes(content)
    with pytest.raises(Unreadable):
        read_sound(path)


async def test_a_film_of_a_recording_has_its_sound(tmp_path: Path) -> None:
    sound = read_sound(write_wav(tmp_path / "tone.wav", 1.0))
    report = await render_film(fake_avatar(40), FakeEngine(), Recording(sound), "Recording.", tmp_path / "film.mp4")
    assert report.speech_to - report.speech_from == pytest.approx(1.0, abs=0.041)
    assert report.visemes == ()
    with av.open(str(report.path)) as film:
        heard = np.concatenate([frame.to_ndarray()[0] for frame in film.decode(audio=0)])
    audible = np.flatnonzero(np.abs(heard) > 0.05) / SAMPLE_RATE
    assert audible[-1] - audible[0] == pytest.approx(1.0, abs=0.05)
