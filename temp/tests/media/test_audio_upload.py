"""Uploaded sounds: any usual format is heard as it is, hostile ones are refused, and what they take is bounded."""

from __future__ import annotations

import asyncio
import gc
import io
import math
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from sound_files import encoded

from gpuserver.domain import SAMPLE_RATE, Pcm
from gpuserver.errors import InvalidInput, TooManyWaiting, Unreadable, VoiceFailed
from gpuserver.media import audio_upload
from gpuserver.media.audio_upload import AudioUploads, UploadedSound
from gpuserver.media.sound_decoder import TOO_LONG, UNREADABLE, decode
from gpuserver.musetalk.preparing.child_process import child_environment

FORMATS = [
    ("wav", "pcm_s16le"),
    ("mp3", "libmp3lame"),
    ("ogg", "libopus"),
    ("mp4", "aac"),
    ("webm", "libopus"),
    ("flac", "flac"),
    ("adts", "aac"),
]


async def heard(sound: UploadedSound) -> Pcm:
    return np.concatenate([piece.pcm async for piece in sound.speak("Recording.")])


@pytest.fixture
async def uploads() -> AsyncIterator[AudioUploads]:
    uploads = AudioUploads()
    yield uploads
    await uploads.aclose()


@pytest.mark.parametrize(("container", "codec"), FORMATS)
def test_a_sound_of_any_usual_format_is_decoded_whole(container: str, codec: str) -> None:
    out = io.BytesIO()
    assert decode(io.BytesIO(encoded(1.0, container, codec)), out, 300) == 0
    pcm = np.frombuffer(out.getvalue(), np.int16)
    assert len(pcm) == pytest.approx(SAMPLE_RATE, abs=SAMPLE_RATE // 10)
    assert np.sqrt(np.mean(pcm.astype(float) ** 2)) == pytest.approx(8000 / math.sqrt(2), rel=0.1)


@pytest.mark.parametrize("content", [b"", b"no sound" * 99, b"#EXTM3U\n/etc/hostname\n", b"ffconcat version 1.0\nfile /etc/hostname\n"])
def test_what_is_no_sound_is_unreadable(content: bytes) -> None:
    assert decode(io.BytesIO(content), io.BytesIO(), 300) == UNREADABLE


def test_a_sound_that_is_too_long_is_not_decoded_further() -> None:
    out = io.BytesIO()
    assert decode(io.BytesIO(encoded(3.0)), out, 1) == TOO_LONG
    assert len(out.getvalue()) <= 2 * SAMPLE_RATE


def test_a_decoder_that_wants_too_much_memory_gets_none() -> None:
    greedy = "from gpuserver.media.sound_decoder import limit_resources; limit_resources(); bytearray(3 << 30)"
    done = subprocess.run([sys.executable, "-c", greedy], env=child_environment(), capture_output=True, text=True, check=False)
    assert "MemoryError" in done.stderr


async def test_an_uploaded_file_is_heard_whole_and_its_file_is_not_needed_any_more(uploads: AudioUploads, tmp_path: Path) -> None:
    path = tmp_path / "tone"
    path.write_bytes(encoded(1.2))
    sound = await uploads.decode(path)
    path.unlink()
    assert len(await heard(sound)) == pytest.approx(1.2 * SAMPLE_RATE, abs=10)
    assert len(await heard(sound)) > 0  # again


async def test_a_file_that_cannot_be_read_is_refused_at_once(uploads: AudioUploads, tmp_path: Path) -> None:
    path = tmp_path / "noise"
    path.write_bytes(b"\xff" * 10_000)
    with pytest.raises(Unreadable):
        await uploads.decode(path)


async def test_a_sound_that_turns_out_too_long_is_played_up_to_the_limit(
    uploads: AudioUploads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audio_upload, "LONGEST", 1)
    path = tmp_path / "long"
    path.write_bytes(encoded(3.0))
    sound = await uploads.decode(path)
    with pytest.raises(VoiceFailed, match="longer than 1 s"):
        await heard(sound)


async def test_a_child_that_takes_too_long_is_ended(uploads: AudioUploads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio_upload, "WALL_SECONDS", 0.0)
    path = tmp_path / "tone"
    path.write_bytes(encoded(0.5))
    with pytest.raises(InvalidInput, match="too long to decode"):
        await uploads.decode(path)


async def test_files_that_come_at_once_do_not_pass_the_limit_together(
    uploads: AudioUploads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audio_upload, "MOST_AT_ONCE", 1)
    path = tmp_path / "tone"
    path.write_bytes(encoded(0.5))
    first, second = await asyncio.gather(uploads.decode(path), uploads.decode(path), return_exceptions=True)
    assert isinstance(first, UploadedSound)
    assert isinstance(second, TooManyWaiting)


async def test_sounds_beyond_the_room_for_them_are_refused_until_others_are_let_go(
    uploads: AudioUploads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audio_upload, "MOST_HELD", audio_upload.LONGEST)
    path = tmp_path / "tone"
    path.write_bytes(encoded(0.5))
    held = await uploads.decode(path)
    with pytest.raises(TooManyWaiting):
        await uploads.decode(path)
    await heard(held)
    del held
    gc.collect()
    await asyncio.sleep(0)  # the task that decoded it lets go of it
    await heard(await uploads.decode(path))
