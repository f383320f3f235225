"""An avatar's folder: written, mapped, and refused when it does not match its own description."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from gpuserver.domain import Box, Bytes2D
from gpuserver.errors import AvatarDamaged, AvatarNotFound
from gpuserver.musetalk.avatars.avatar_files import BOXES, FRAMES, INFO, LANDMARKS, OPENINGS, PREVIEW, AvatarWriter, load_avatar, read_info
from gpuserver.wire import AvatarInfo, QualityReport

WIDTH, HEIGHT = 16, 8
QUALITY = QualityReport(source_frames=3, used_frames=3, frames_without_face=0, face_width=9, mouth_width=5, mouth_opening_at_rest=0.0)


def picture(value: int) -> Bytes2D:
    return np.full((HEIGHT * 3 // 2, WIDTH), value, np.uint8)


def info(frames: int) -> AvatarInfo:
    created = datetime(2026, 1, 2, tzinfo=UTC)
    return AvatarInfo(
        avatar_id="a", tutor_id="7", frames=frames, width=WIDTH, height=HEIGHT, seconds=frames / 25, created_at=created, quality=QUALITY
    )


def write(folder: Path, values: range, keep: tuple[int, int] | None = None) -> Path:
    """An avatar whose pictures, points and openings are all numbered."""
    folder.mkdir()
    start, stop = keep or (0, len(values))
    kept = list(values)[start:stop]
    with AvatarWriter(folder) as writer:
        for value in values:
            writer.add(picture(value))
        writer.keep(start, stop)
        landmarks = np.stack([np.full((468, 2), value, np.float32) for value in kept])
        boxes = [Box(value, 0, value + 4, 5) for value in kept]
        writer.finish(info(len(kept)), landmarks, boxes, np.array(kept, np.float32) / np.float32(100), b"jpeg")
    return folder


def test_what_is_written_is_loaded(tmp_path: Path) -> None:
    avatar = load_avatar(write(tmp_path / "a", range(3)))
    assert (avatar.avatar_id, avatar.width, avatar.height, len(avatar.frames)) == ("a", WIDTH, HEIGHT, 3)
    for index, frame in enumerate(avatar.frames):
        assert frame.index == index
        assert np.array_equal(frame.picture, picture(index))
        assert frame.landmarks.shape == (468, 2)
        assert (frame.landmarks == index).all()
        assert frame.face == Box(index, 0, index + 4, 5)
        assert frame.mouth_opening == pytest.approx(index / 100)


@pytest.mark.parametrize("keep", [(0, 10), (0, 4), (3, 10), (6, 9), (9, 10)])
def test_a_part_is_kept_with_its_own_points(tmp_path: Path, keep: tuple[int, int]) -> None:
    avatar = load_avatar(write(tmp_path / "a", range(10), keep))
    assert [frame.picture[0, 0] for frame in avatar.frames] == list(range(*keep))
    assert [frame.landmarks[5, 1] for frame in avatar.frames] == list(range(*keep))
    assert [frame.face.left for frame in avatar.frames] == list(range(*keep))


def test_pictures_can_be_read_back_while_writing(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with AvatarWriter(tmp_path / "a") as writer:
        for value in range(5):
            writer.add(picture(value))
            assert np.array_equal(writer.picture(value // 2), picture(value // 2))
        writer.keep(2, 5)
        assert np.array_equal(writer.picture(0), picture(2))


def test_pictures_are_mapped_and_cannot_be_changed(tmp_path: Path) -> None:
    frame = load_avatar(write(tmp_path / "a", range(2))).frames[0]
    with pytest.raises(ValueError, match="read-only"):
        frame.picture[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        frame.landmarks[0, 0] = 1


def test_a_deleted_avatar_stays_readable_for_those_who_have_it(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", range(2))
    avatar = load_avatar(folder)
    for file in folder.iterdir():
        file.unlink()
    assert avatar.frames[1].picture[3, 3] == 1


def test_the_description_comes_back_with_path_and_size(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", range(3))
    read = read_info(folder)
    assert read.model_copy(update={"avatar_path": "", "bytes": 0}) == info(3)
    assert read.avatar_path == str(folder)
    assert read.bytes == sum(file.stat().st_size for file in folder.iterdir())
    assert {file.name for file in folder.iterdir()} == {INFO, FRAMES, LANDMARKS, BOXES, OPENINGS, PREVIEW}


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(AvatarNotFound):
        load_avatar(tmp_path / "nobody")


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("name", [FRAMES, LANDMARKS, BOXES, OPENINGS, INFO])
def test_a_truncated_file_is_damage(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "a", range(3))
    _truncate(folder / name)
    with pytest.raises(AvatarDamaged):
        load_avatar(folder)


@pytest.mark.parametrize("name", [FRAMES, LANDMARKS, BOXES, OPENINGS])
def test_a_missing_file_is_damage(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "a", range(3))
    (folder / name).unlink()
    with pytest.raises(AvatarDamaged, match=name):
        load_avatar(folder)


@pytest.mark.parametrize("change", [{"frames": 2}, {"frames": 0}, {"width": 32}, {"height": 7}, {"format": 2}, {"frames": "many"}])
def test_a_description_that_does_not_fit_is_damage(tmp_path: Path, change: dict[str, object]) -> None:
    folder = write(tmp_path / "a", range(3))
    stored = json.loads((folder / INFO).read_text())
    (folder / INFO).write_text(json.dumps({**stored, **change}))
    with pytest.raises(AvatarDamaged):
        load_avatar(folder)


def test_pickled_landmarks_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", range(3))
    with (folder / LANDMARKS).open("wb") as file:
        np.save(file, np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(AvatarDamaged):
        load_avatar(folder)


def test_a_writer_takes_only_pictures_of_one_even_size(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with AvatarWriter(tmp_path / "a") as writer:
        with pytest.raises(ValueError, match="no I420"):
            writer.add(np.zeros((10, 16), np.uint8))
        with pytest.raises(ValueError, match="no I420"):
            writer.add(np.zeros((12, 15), np.uint8))
        writer.add(picture(0))
        with pytest.raises(ValueError, match="in an avatar of"):
            writer.add(np.zeros((24, 16), np.uint8))
        with pytest.raises(ValueError, match="cannot keep"):
            writer.keep(0, 2)
        with pytest.raises(ValueError, match="differ in number"):
            writer.finish(info(1), np.zeros((2, 468, 2), np.float32), [Box(0, 0, 1, 1)], np.zeros(1, np.float32), b"")
