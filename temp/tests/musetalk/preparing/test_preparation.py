"""The child process that prepares an avatar: what it makes, how it fails, and that it never outlives or harms its parent."""

import errno
import itertools
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import PORTRAIT, Clip, artist, sample, write_clip, write_video
from numpy.typing import NDArray

from gpuserver.domain import Avatar, loop_index
from gpuserver.errors import Cancelled, DiskFull, GpuserverError, NoUsableFace, Unreadable, VideoLimitExceeded
from gpuserver.interpreter import Interpreter
from gpuserver.musetalk.avatars.avatar_files import load_avatar
from gpuserver.musetalk.preparing import child_process
from gpuserver.musetalk.preparing.eyelids import Eyelids
from gpuserver.musetalk.preparing.life import FRAMES
from gpuserver.musetalk.preparing.preparation import PreparationRequest, _known
from gpuserver.musetalk.preparing.preparation_job import Watch, run_preparation
from gpuserver.musetalk.preparing.video import Video
from gpuserver.musetalk.vision.faces import FaceFinder
from gpuserver.wire import AvatarInfo, QualityReport


def prepare(tmp_path: Path, video: Path, **request: object) -> tuple[AvatarInfo, Avatar]:
    folder = tmp_path / "made"
    folder.mkdir()
    with video.open("rb") as file:
        info = run_preparation(PreparationRequest.model_validate({"folder": folder, "avatar_id": "a", **request}), file)
    return info, load_avatar(folder)


@pytest.fixture
def no_preparation(tmp_path: Path) -> Path:
    """A script that run_script() runs in place of Python; the test writes it."""
    return tmp_path / "python"


def pretend(script: Path, lines: str) -> None:
    script.write_text(f"#!/bin/sh\n{lines}\n")
    script.chmod(0o755)


def run_script(tmp_path: Path, **options: object) -> AvatarInfo:
    with PORTRAIT.open("rb") as file:
        python = Interpreter(str(tmp_path / "python"))
        return run_preparation(PreparationRequest(folder=tmp_path, avatar_id="a"), file, python=python, **options)  # type: ignore[arg-type]


# ---------------------------------------------------------------- what it makes


def test_frames_with_a_covered_mouth_are_cut_and_the_rest_is_indexed_right(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "c.mp4", Clip(seconds=2.4, hidden=((0.4, 0.8),)))
    info, avatar = prepare(tmp_path, path)
    with path.open("rb") as file, Video(file) as video:
        source = list(video.pictures())
    used = source[len(source) - info.frames :]
    assert 30 <= info.frames <= 40  # the part behind the hand
    assert info.quality.source_frames == 60
    assert 10 <= info.quality.frames_mouth_covered <= 18
    assert all(np.array_equal(frame.picture, picture) for frame, picture in zip(avatar.frames, used, strict=True))
    for frame in avatar.frames:  # the points belong to the picture they stand with
        centre = frame.landmarks.mean(axis=0)
        assert frame.face.left < centre[0] < frame.face.right
        assert frame.face.top < centre[1] < frame.face.bottom
        assert 0.08 < frame.mouth_opening < 0.3  # the portrait smiles
    assert any("mouth covered" in line for line in info.quality.advice)


def test_the_loop_has_no_jump(tmp_path: Path) -> None:
    _, avatar = prepare(tmp_path, write_clip(tmp_path / "c.mp4", Clip(seconds=1.6, sway=0.15)))
    count = len(avatar.frames)
    pictures = [frame.picture.astype(int) for frame in avatar.frames]
    inside = max(np.abs(a - b).mean() for a, b in itertools.pairwise(pictures))
    order = [loop_index(position, count) for position in range(4 * count)]
    played = max(np.abs(pictures[a] - pictures[b]).mean() for a, b in itertools.pairwise(order))
    assert inside > 0.5  # the head does move
    assert played <= inside


def test_the_still_portrait_becomes_an_avatar(tmp_path: Path) -> None:
    info, avatar = prepare(tmp_path, PORTRAIT, tutor_id="7", mock=True)
    assert (info.frames, info.width, info.height, info.tutor_id, info.mock) == (FRAMES, 512, 512, "7", True)
    assert (info.quality.source_frames, info.quality.used_frames) == (1, FRAMES)
    assert avatar.frames[0].landmarks.shape == (468, 2)
    preview = cv2.imread(str(tmp_path / "made" / "preview.jpg"))
    shown = cv2.cvtColor(np.array(avatar.frames[0].picture), cv2.COLOR_YUV2BGR_I420)  # its eyes are open
    assert preview is not None
    assert np.abs(preview.astype(int) - shown).mean() < 3


def sharpness(picture: NDArray[np.uint8], where: NDArray[np.bool_]) -> float:
    luma = picture[: picture.shape[0] * 2 // 3].astype(np.float32)
    return float(cv2.Laplacian(luma, cv2.CV_32F)[where].var())


@pytest.mark.parametrize("kind", ["video", "still"])
def test_apply_blur_blurs_what_is_behind_the_person_and_nothing_else(tmp_path: Path, kind: str) -> None:
    path = PORTRAIT if kind == "still" else write_clip(tmp_path / "c.mp4", Clip(seconds=1.2, width=480, height=360, sway=0.03))
    pictures = []
    for blur in (False, True):
        (tmp_path / str(blur)).mkdir()
        info, avatar = prepare(tmp_path / str(blur), path, apply_blur=blur)
        assert info.apply_blur == blur
        assert not any("blur" in line for line in info.quality.advice)
        pictures.append(avatar.frames[20])
    sharp, blurred = pictures
    height, width = avatar.height, avatar.width
    box = sharp.face
    face = np.zeros((height, width), np.bool_)
    face[box.top : box.bottom, box.left : box.right] = True
    behind = np.zeros((height, width), np.bool_)
    behind[: box.bottom, : box.left - 2 * box.width // 3] = True
    assert sharpness(blurred.picture, face) > 0.98 * sharpness(sharp.picture, face)
    assert sharpness(blurred.picture, behind) < 0.4 * sharpness(sharp.picture, behind)


def test_the_preview_does_not_blink(tmp_path: Path) -> None:
    clip = Clip(seconds=1.2, width=512, height=512, zoom=0.6, sway=0.0)
    draw, landmarks = artist(clip), None
    finder = FaceFinder()
    pictures = []
    for index, t in enumerate(clip.times):
        rgb = draw(t)
        face = finder.find(rgb, landmarks)
        assert face is not None
        landmarks = face.landmarks
        pictures.append(Eyelids(rgb, landmarks).closed(1.0) if index % 3 else rgb)
    write_video(tmp_path / "c.mp4", pictures, clip, clip.times)
    _, avatar = prepare(tmp_path, tmp_path / "c.mp4")
    preview = cv2.imread(str(tmp_path / "made" / "preview.jpg"))
    assert preview is not None
    differences = [np.abs(preview[:, :, ::-1].astype(int) - picture).mean() for picture in pictures]
    assert int(np.argmin(differences)) % 3 == 0
    assert len(avatar.frames) == 30


def test_the_report_is_told_before_the_avatar_is_written(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    told: list[str] = []
    watch = Watch(progress=lambda stage, part: told.append(stage), analysed=lambda report: told.append(f"report of {report.used_frames}"))
    with write_clip(tmp_path / "c.mp4", Clip(seconds=1.2)).open("rb") as file:
        run_preparation(PreparationRequest(folder=tmp_path / "made", avatar_id="a"), file, watch)
    assert list(dict.fromkeys(told)) == ["faces", "report of 30", "writing"]


def test_progress_is_told_from_beginning_to_end(tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []
    (tmp_path / "made").mkdir()
    with write_clip(tmp_path / "c.mp4", Clip(seconds=1.2)).open("rb") as file:
        watch = Watch(progress=lambda *step: told.append(step))
        run_preparation(PreparationRequest(folder=tmp_path / "made", avatar_id="a"), file, watch)
    assert told[-1] == ("writing", 1.0)
    parts = [part for _, part in told]
    assert parts == sorted(parts)
    assert {"faces", "writing"} == {stage for stage, _ in told}


def test_ten_seconds_of_video_take_less_than_ten(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "c.mp4", Clip(seconds=10, width=640, height=360))
    usage = os.times()
    info, _ = prepare(tmp_path, path)
    computing = sum(os.times()[2:4]) - sum(usage[2:4])  # the child's user and system time: other work on the machine does not count
    assert info.frames == 250
    assert computing < 10


# ---------------------------------------------------------------- what it refuses


def test_a_video_without_a_face_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoUsableFace, match="No face") as caught:
        prepare(tmp_path, write_clip(tmp_path / "c.mp4", Clip(seconds=1.2, faceless=((0, 9),))))
    report = QualityReport.model_validate(caught.value.extra["report"])  # the figures come with the refusal
    assert (report.source_frames, report.frames_without_face, report.used_frames) == (30, 30, 0)


def test_a_clip_without_one_free_second_is_refused_with_the_reason(tmp_path: Path) -> None:
    clip = Clip(seconds=2.4, hidden=((0.8, 1.0), (1.6, 1.8)))
    with pytest.raises(NoUsableFace, match="mouth covered") as caught:
        prepare(tmp_path, write_clip(tmp_path / "c.mp4", clip))
    assert "mouth visible" in caught.value.advice


def test_a_clip_of_half_a_second_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoUsableFace, match=r"for 0.5 s only"):
        prepare(tmp_path, write_clip(tmp_path / "c.mp4", Clip(seconds=0.5)))


def test_a_text_file_is_unreadable_in_the_child_as_well(tmp_path: Path) -> None:
    (tmp_path / "c.mp4").write_text("hello\n" * 100)
    with pytest.raises(Unreadable):
        prepare(tmp_path, tmp_path / "c.mp4")


# ---------------------------------------------------------------- how it fails


@pytest.mark.parametrize(
    ("name", "error"), [("SEGV", Unreadable), ("ABRT", Unreadable), ("KILL", Unreadable), ("XCPU", VideoLimitExceeded)]
)
def test_a_child_that_crashes_is_an_error_of_the_video(
    tmp_path: Path, no_preparation: Path, name: str, error: type[GpuserverError]
) -> None:
    pretend(no_preparation, f"kill -{name} $$")
    with pytest.raises(error):
        run_script(tmp_path)


def test_a_child_with_a_defect_is_our_error(tmp_path: Path, no_preparation: Path, caplog: pytest.LogCaptureFixture) -> None:
    pretend(no_preparation, "echo 'Traceback: oh' >&2; exit 1")
    with pytest.raises(GpuserverError) as caught:
        run_script(tmp_path)
    assert caught.value.status == 500
    assert "oh" not in caught.value.detail
    assert "Traceback: oh" in caplog.text


def test_a_full_disk_is_said_so(tmp_path: Path, no_preparation: Path) -> None:
    known = _known(OSError(errno.ENOSPC, "No space left on device"))
    assert isinstance(known, DiskFull)
    pretend(no_preparation, """echo '{"error": {"slug": "disk-full", "detail": "full", "advice": "delete"}}'; exit 1""")
    with pytest.raises(DiskFull, match="full"):
        run_script(tmp_path)


def test_too_much_memory_is_a_limit() -> None:
    hog = "from gpuserver.musetalk.preparing.preparation import _limit_resources, _known\n_limit_resources()\ntry: bytearray(7 << 30)\n"
    hog += "except MemoryError as error: print(type(_known(error)).__name__)"
    done = subprocess.run([sys.executable, "-c", hog], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[4])
    assert done.stdout.strip() == "VideoLimitExceeded"


def test_a_child_that_hangs_is_ended(tmp_path: Path, no_preparation: Path) -> None:
    pretend(no_preparation, f"echo $$ > {tmp_path}/pid; exec sleep 300")
    with pytest.raises(VideoLimitExceeded, match="too long"):
        run_script(tmp_path, wall_seconds=0.5)
    assert _is_gone(int((tmp_path / "pid").read_text()))


def test_a_child_that_closes_its_output_and_stays_is_ended(tmp_path: Path, no_preparation: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "_END_SECONDS", 0.1)
    pretend(no_preparation, "exec sleep 300 >&-")
    with pytest.raises(VideoLimitExceeded, match="too long"):
        run_script(tmp_path)


@pytest.mark.parametrize("line", ["hello", "[1]", "7"])
def test_a_child_that_talks_nonsense_is_our_error(tmp_path: Path, no_preparation: Path, line: str) -> None:
    pretend(no_preparation, f"echo '{line}'; sleep 300")
    with pytest.raises(GpuserverError, match="cannot be understood"):
        run_script(tmp_path)


def test_cancel_ends_the_child_and_what_it_started(tmp_path: Path, no_preparation: Path) -> None:
    pretend(no_preparation, f'sleep 300 & echo $! > {tmp_path}/pid; echo \'{{"progress": ["faces", 0.5]}}\'; wait')
    cancel = threading.Event()
    with pytest.raises(Cancelled):
        run_script(tmp_path, watch=Watch(progress=lambda stage, part: cancel.set(), cancel=cancel))
    assert _is_gone(int((tmp_path / "pid").read_text()))


def test_the_child_gets_no_secrets(tmp_path: Path, no_preparation: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    pretend(no_preparation, f"env > {tmp_path}/env; exit 1")
    with pytest.raises(GpuserverError):
        run_script(tmp_path)
    assert "secret" not in (tmp_path / "env").read_text()


def _is_gone(pid: int) -> bool:
    """Whether the killed process ends within a second (it is not our child, so it cannot be waited for)."""
    deadline = time.monotonic() + 1
    status = Path(f"/proc/{pid}/stat")
    while time.monotonic() < deadline:
        try:
            if status.read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
    return False


def test_a_real_hand_is_cut_from_a_real_clip(tmp_path: Path) -> None:
    path = sample("hand_over_mouth.mp4")
    if path is None:
        pytest.skip("no real clips here")
    info, avatar = prepare(tmp_path, path)
    assert 200 <= info.frames == len(avatar.frames) <= 252
    assert info.quality.frames_mouth_covered > 150
