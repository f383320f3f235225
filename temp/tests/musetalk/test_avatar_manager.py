"""All avatars: created once, replaced in one step, never half; bad input is refused with what to do about it."""

import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest
from clips import PORTRAIT, Clip, write_clip, write_sound_only
from filelock import FileLock
from small_avatar import write_small_avatar

from gpuserver.config import Settings
from gpuserver.errors import (
    AvatarExists,
    AvatarNotFound,
    AvatarRoomFull,
    Cancelled,
    DiskFull,
    GpuserverError,
    InvalidAvatarId,
    InvalidInput,
    NotWritable,
    NoUsableFace,
    Unreadable,
    VideoNotFound,
    VideoPathForbidden,
    VideoUrlRefused,
)
from gpuserver.musetalk import avatar_manager
from gpuserver.musetalk.avatar_manager import AvatarManager
from gpuserver.musetalk.avatars.avatar_files import load_avatar, read_info
from gpuserver.musetalk.preparing.life import FRAMES
from gpuserver.musetalk.preparing.preparation import PreparationRequest
from gpuserver.wire import AvatarInfo, CreateAvatar

SECOND_FRAMES = 30


def manager_in(tmp_path: Path, **settings: object) -> AvatarManager:
    (tmp_path / "videos").mkdir(exist_ok=True)
    given: dict[str, object] = {"avatars_dir": tmp_path / "avatars", "video_dirs": (tmp_path / "videos",), **settings}
    manager = AvatarManager(Settings(_env_file=None, **given))  # type: ignore[arg-type]
    manager.start()
    return manager


@pytest.fixture
def manager(tmp_path: Path) -> AvatarManager:
    return manager_in(tmp_path)


@pytest.fixture(scope="session")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of 1.2 s."""
    return write_clip(tmp_path_factory.mktemp("clip") / "c.mp4", Clip(seconds=1.2))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, second: Path) -> Path:
    """A finished folder, of SECOND_FRAMES frames."""
    manager = manager_in(tmp_path_factory.mktemp("finished"))
    manager.create_from_file("made", second)
    return manager.folder("made")


@pytest.fixture
def prepared(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Preparations copy a finished folder instead of starting a child process."""

    def copy(job: PreparationRequest, *_: object, **__: object) -> AvatarInfo:
        for path in finished.iterdir():
            (job.folder / path.name).write_bytes(path.read_bytes())
        return read_info(job.folder)

    monkeypatch.setattr(avatar_manager, "run_preparation", copy)


def wanted(avatar_id: str, path: Path | str, **more: object) -> CreateAvatar:
    return CreateAvatar.model_validate({"avatar_id": avatar_id, "video_path": str(path), **more})


def traces(tmp_path: Path) -> list[str]:
    """What lies in the avatars' folder beside locks."""
    root = tmp_path / "avatars"
    return sorted(path.name for folder in (root, root / ".versions") for path in folder.iterdir() if not path.name.startswith("."))


# ---------------------------------------------------------------- making


def test_an_avatar_lives_from_creation_to_deletion(tmp_path: Path, manager: AvatarManager, second: Path) -> None:
    video = tmp_path / "videos" / "teacher.mp4"
    video.write_bytes(second.read_bytes())
    created = manager.create(wanted("anna", video, tutor_id=7, apply_blur=True))
    assert created.model_dump() == {
        "status": "success",
        "avatar_id": "anna",
        "avatar_path": str(tmp_path / "avatars" / "anna"),
        "message": "Avatar created successfully",
        "mock": False,
        "engine": "warp",
    }
    info = manager.info("anna")
    assert (info.tutor_id, info.apply_blur, info.frames, info.fps, info.last_used_at) == ("7", True, 30, 25, None)
    assert info.avatar_path == created.avatar_path
    assert info.bytes > 30 * 320 * 240
    assert manager.ids() == ["anna"]
    assert manager.infos() == [info]
    assert manager.preview("anna").read_bytes()[:3] == b"\xff\xd8\xff"
    assert len(load_avatar(manager.folder("anna")).frames) == 30
    manager.touch("anna")
    assert manager.info("anna").last_used_at is not None
    manager.delete("anna")
    assert manager.ids() == []
    assert traces(tmp_path) == []
    for use in (manager.info, manager.folder, manager.preview, manager.touch, manager.delete):
        with pytest.raises(AvatarNotFound):
            use("anna")


def test_the_demo_is_the_sample_face(manager: AvatarManager) -> None:
    assert manager.create_demo().avatar_id == "demo"
    assert manager.info("demo").frames == FRAMES
    assert not manager.info("demo").mock


def test_an_upload_by_a_link_is_read(tmp_path: Path, manager: AvatarManager, second: Path) -> None:
    (manager.uploads_dir / "link.mp4").symlink_to(second)
    assert manager.create_from_file("linked", manager.uploads_dir / "link.mp4", tutor_id="3").avatar_id == "linked"
    assert manager.info("linked").tutor_id == "3"


def test_a_missing_video_gives_a_mock_under_development(tmp_path: Path, manager: AvatarManager) -> None:
    created = manager.create(wanted("later", tmp_path / "videos" / "none.mp4"))
    assert created.mock
    assert "mock" in created.message
    assert manager.info("later").mock


@pytest.mark.parametrize("production", [{"api_keys": "k"}, {"management_api_host": "0.0.0.0"}, {"enable_musetalk": True}])
def test_a_missing_video_is_not_found_elsewhere(tmp_path: Path, production: dict[str, object]) -> None:
    manager = manager_in(tmp_path, **production)
    with pytest.raises(VideoNotFound):
        manager.create(wanted("later", tmp_path / "videos" / "none.mp4"))
    assert traces(tmp_path) == []


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("http://127.0.0.1/x.mp4", VideoUrlRefused),
        ("rtsp://127.0.0.1/x", VideoUrlRefused),
        ("file:///etc/passwd", VideoUrlRefused),
        ("concat:/tmp/a|/tmp/b", VideoUrlRefused),
        ("{videos}/list.m3u8", VideoUrlRefused),
        ("/etc/passwd", VideoPathForbidden),
        ("{videos}/../secret.mp4", VideoPathForbidden),
        ("{videos}/escape.mp4", VideoPathForbidden),
        ("{videos}", InvalidInput),
        ("{videos}/fifo", InvalidInput),
        ("{videos}/" + "x" * 300, InvalidInput),
        ("{videos}/a\0b", InvalidInput),
        ("{videos}/empty.mp4", Unreadable),
        ("{videos}/text.mp4", Unreadable),
        ("{videos}/playlist.mp4", Unreadable),
        ("{videos}/cut.mp4", Unreadable),
        ("{videos}/sound.mp4", Unreadable),
        ("{videos}/nobody.mp4", NoUsableFace),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing(
    tmp_path: Path, manager: AvatarManager, second: Path, path: str, error: type[GpuserverError]
) -> None:
    videos = tmp_path / "videos"
    # What is refused before anything is opened needs no file; the others are made here.
    makers: dict[str, Callable[[Path], object]] = {
        "escape.mp4": lambda file: file.symlink_to("/etc/passwd"),
        "fifo": os.mkfifo,
        "empty.mp4": lambda file: file.touch(),
        "text.mp4": lambda file: file.write_text("hello\n" * 500),
        "playlist.mp4": lambda file: file.write_text("#EXTM3U\n#EXTINF:5,\n/etc/passwd\n"),
        "cut.mp4": lambda file: file.write_bytes(second.read_bytes()[:20_000]),
        "sound.mp4": write_sound_only,
        "nobody.mp4": lambda file: write_clip(file, Clip(seconds=1.2, faceless=((0, 9),))),
    }
    name = path.removeprefix("{videos}/")
    if name in makers:
        makers[name](videos / name)
    with pytest.raises(error) as caught:
        manager.create(wanted("bad", path.format(videos=videos)))
    assert caught.value.advice
    assert type(caught.value) is error
    assert traces(tmp_path) == []


@pytest.mark.parametrize("avatar_id", ["", "a/b", "..", "a\0", "x" * 65, "名"])
def test_a_bad_id_is_refused(manager: AvatarManager, second: Path, avatar_id: str) -> None:
    with pytest.raises(InvalidAvatarId):
        manager.create_from_file(avatar_id, second)
    with pytest.raises(InvalidAvatarId):
        manager.create_demo(avatar_id)
    for use in (manager.info, manager.folder, manager.delete, manager.touch):
        with pytest.raises(AvatarNotFound):
            use(avatar_id)


def test_an_id_is_used_once(manager: AvatarManager, prepared: None) -> None:
    manager.create_demo("one")
    with pytest.raises(AvatarExists):
        manager.create_demo("one")


def test_of_many_creators_of_one_id_exactly_one_wins(tmp_path: Path, manager: AvatarManager) -> None:
    def create(_: int) -> bool:
        try:
            manager.create_demo("one")
        except AvatarExists:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(create, range(6))) == 1
    assert manager.ids() == ["one"]
    assert len(traces(tmp_path)) == 2  # the link and its folder


def test_two_processes_cannot_make_the_same_avatar(tmp_path: Path, manager: AvatarManager, second: Path) -> None:
    other = manager_in(tmp_path)
    inside = threading.Event()
    refused: list[bool] = []

    def meanwhile(stage: str, part: float) -> None:
        if not inside.is_set():
            inside.set()
            try:
                other.create_demo("one", replace=True)
            except AvatarExists:
                refused.append(True)

    manager.create_from_file("one", second, progress=meanwhile)
    assert refused == [True]
    assert manager.info("one").frames == 30


def test_a_cancelled_creation_leaves_nothing(tmp_path: Path, manager: AvatarManager, second: Path) -> None:
    cancel = threading.Event()
    with pytest.raises(Cancelled):
        manager.create_from_file("gone", second, cancel=cancel, progress=lambda stage, part: cancel.set())
    assert traces(tmp_path) == []


def test_a_full_disk_is_said_so(tmp_path: Path, manager: AvatarManager, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(avatar_manager, "run_preparation", full)
    with pytest.raises(DiskFull):
        manager.create_demo("big")
    assert traces(tmp_path) == []


def read_only(*_: object, **__: object) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def test_a_folder_that_became_read_only_is_said_so(tmp_path: Path, manager: AvatarManager, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "avatars" / "kept").mkdir()
    write_small_avatar(tmp_path / "avatars" / "kept", avatar_id="kept")
    monkeypatch.setattr(Path, "unlink", read_only)
    monkeypatch.setattr(Path, "mkdir", read_only)
    monkeypatch.setattr(FileLock, "acquire", read_only)
    changes = (
        lambda: manager.delete("kept"),
        lambda: manager.create_demo("new"),
        lambda: manager.uploads_dir,
        lambda: manager.film("kept"),
    )
    for change in changes:
        with pytest.raises(NotWritable, match="Read-only file system"):
            change()


def test_an_avatar_is_used_though_that_cannot_be_noted(
    tmp_path: Path, manager: AvatarManager, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "avatars" / "kept").mkdir()
    write_small_avatar(tmp_path / "avatars" / "kept", avatar_id="kept")
    monkeypatch.setattr(Path, "touch", read_only)
    manager.touch("kept")
    assert "the last use of avatar kept cannot be noted" in caplog.text


def test_avatar_max_disk_gb_refuses_what_would_exceed_it(tmp_path: Path, manager: AvatarManager, prepared: None) -> None:
    manager.create_demo("there")
    used = sum(file.stat().st_size for file in manager.folder("there").iterdir())
    limited = manager_in(tmp_path, avatar_max_disk_gb=(used * 1.5) / 1024**3)
    limited.check_room()
    with pytest.raises(AvatarRoomFull, match="AVATAR_MAX_DISK_GB"):
        limited.create_demo("more")
    assert limited.create_demo("there", replace=True).avatar_id == "there"
    full = manager_in(tmp_path, avatar_max_disk_gb=1e-6)
    with pytest.raises(AvatarRoomFull, match="leaves 0 MB"):
        full.check_room()
    full.check_room(replace=True)
    assert traces(tmp_path) == sorted(["there", manager.folder("there").name])


def test_of_two_creations_that_end_together_one_finds_the_last_room(
    tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sum(path.stat().st_size for path in finished.iterdir())
    limited = manager_in(tmp_path, avatar_max_disk_gb=size * 1.5 / 1024**3)
    both_written = threading.Barrier(2, timeout=60)

    def copy(job: PreparationRequest, *_: object, **__: object) -> AvatarInfo:
        for path in finished.iterdir():
            (job.folder / path.name).write_bytes(path.read_bytes())
        both_written.wait()
        return read_info(job.folder)

    def create(avatar_id: str) -> bool:
        try:
            limited.create_demo(avatar_id)
        except AvatarRoomFull:
            return False
        return True

    monkeypatch.setattr(avatar_manager, "run_preparation", copy)
    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(create, ["one", "two"])) == [False, True]
    assert len(limited.ids()) == 1


def test_a_video_without_room_is_refused_by_the_child_before_it_is_written(tmp_path: Path, second: Path) -> None:
    limited = manager_in(tmp_path, avatar_max_disk_gb=1e-3)
    with pytest.raises(AvatarRoomFull, match="AVATAR_MAX_DISK_GB leaves 2 MB") as refused:
        limited.create_from_file("big", second)
    assert (refused.value.status, traces(tmp_path)) == (507, [])


# ---------------------------------------------------------------- replacing


def test_replacing_swaps_the_avatar_and_keeps_it_on_failure(tmp_path: Path, manager: AvatarManager, second: Path) -> None:
    manager.create_demo("one")
    held = load_avatar(manager.folder("one"))
    first = bytes(held.frames[0].picture[0, :9])
    (tmp_path / "text.mp4").write_text("hello" * 99)
    with pytest.raises(Unreadable):
        manager.create_from_file("one", tmp_path / "text.mp4", replace=True)
    assert manager.info("one").frames == FRAMES
    manager.create_from_file("one", second, replace=True)
    assert manager.info("one").frames == 30
    assert bytes(held.frames[0].picture[0, :9]) == first  # a session that shows the old one goes on
    assert len(traces(tmp_path)) == 2


def test_replacing_what_is_not_there_creates_it(manager: AvatarManager, prepared: None) -> None:
    assert manager.create_demo("new", replace=True).avatar_id == "new"


def test_readers_never_see_a_half_avatar_while_it_is_replaced(manager: AvatarManager, prepared: None) -> None:
    manager.create_demo("one")
    done = threading.Event()

    def replace() -> None:
        try:
            for _ in range(60):
                manager.create_demo("one", replace=True)
        finally:
            done.set()

    reads = 0
    with ThreadPoolExecutor(1) as pool:
        replacing = pool.submit(replace)
        while not done.is_set():
            assert len(manager.read("one", load_avatar).frames) == SECOND_FRAMES
            assert manager.info("one").frames == SECOND_FRAMES
            assert manager.ids() == ["one"]
            reads += 1
        replacing.result()
    assert reads > 10


def test_a_restored_plain_folder_is_an_avatar(tmp_path: Path, manager: AvatarManager, prepared: None) -> None:
    manager.create_demo("saved")
    manager.folder("saved").rename(tmp_path / "backup")
    (tmp_path / "avatars" / "saved").unlink()
    (tmp_path / "backup").rename(tmp_path / "avatars" / "saved")
    assert manager.info("saved").frames == SECOND_FRAMES
    manager.create_demo("saved", replace=True)
    assert manager.info("saved").frames == SECOND_FRAMES
    manager.delete("saved")
    assert traces(tmp_path) == []


# ---------------------------------------------------------------- left-overs


def test_what_killed_processes_left_is_removed_at_start(tmp_path: Path, manager: AvatarManager, prepared: None) -> None:
    manager.create_demo("kept")
    root = tmp_path / "avatars"
    (root / ".versions" / "half.0123").mkdir()
    (root / ".versions" / "half.0123" / "frames.i420").write_bytes(b"x" * 1000)
    (root / ".versions" / "kept.0456").mkdir()
    (root / "nowhere").symlink_to(".versions/none")
    (root / ".uploads" / "killed").mkdir()
    (root / ".uploads" / "killed" / "half").write_bytes(b"x")
    (root / ".uploads" / "stray").write_bytes(b"x")
    (manager.uploads_dir / "arriving").write_bytes(b"x")
    manager.start()
    manager_in(tmp_path)  # another process starts
    assert traces(tmp_path) == sorted(["kept", manager.folder("kept").name])
    assert [path.name for path in (root / ".uploads").rglob("*") if path.is_file()] == ["arriving"]
    assert manager.info("kept").frames == SECOND_FRAMES


def test_avatars_behind_a_link_stay(tmp_path: Path, prepared: None) -> None:
    (tmp_path / "disk" / "avatars").mkdir(parents=True)
    (tmp_path / "avatars").symlink_to(tmp_path / "disk" / "avatars")
    manager_in(tmp_path).create_demo("kept")
    assert manager_in(tmp_path).ids() == ["kept"]
    assert manager_in(tmp_path / "disk").ids() == ["kept"]


def test_what_another_process_is_making_is_not_removed(tmp_path: Path, manager: AvatarManager, second: Path) -> None:
    started: list[None] = []

    def restart(stage: str, part: float) -> None:
        if not started:
            started.append(None)
            manager_in(tmp_path)  # sweeps

    manager.create_from_file("busy", second, progress=restart)
    assert started
    assert manager.info("busy").frames == 30


def test_a_damaged_avatar_is_left_out_of_the_list_and_can_be_deleted(manager: AvatarManager, prepared: None) -> None:
    manager.create_demo("good")
    manager.create_demo("bad")
    (manager.folder("bad") / "avatar.json").write_text("{")
    assert [info.avatar_id for info in manager.infos()] == ["good"]
    manager.delete("bad")
    assert manager.ids() == ["good"]


# ---------------------------------------------------------------- the idle film


def test_the_idle_film_shows_one_turn_of_the_loop(tmp_path: Path, manager: AvatarManager, prepared: None) -> None:
    manager.create_demo("one")
    assert manager.made_film("one") is None
    film = manager.film("one")
    assert manager.made_film("one") == film
    data = film.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # a browser begins to play before it has all of it
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, str(stream.average_rate), stream.width, stream.height) == ("h264", "25", 320, 240)
        shown = [frame.to_ndarray() for frame in container.decode(video=0)]
    avatar = load_avatar(manager.folder("one"))
    assert len(shown) == 2 * SECOND_FRAMES - 2
    for position in (0, 20, SECOND_FRAMES - 1, 2 * SECOND_FRAMES - 3):
        assert np.abs(shown[position].astype(int) - avatar.frame_at(position).picture).mean() < 2, position


def test_a_film_goes_with_its_avatar(tmp_path: Path, manager: AvatarManager, prepared: None) -> None:
    films = tmp_path / "avatars" / ".films"
    manager.create_demo("one")
    first = manager.film("one")
    (films / "gone.1-2.mp4").touch()
    (films / "one.1-2.part").touch()
    manager.start()
    assert list(films.iterdir()) == [first]
    manager.create_demo("one", replace=True)
    assert manager.made_film("one") is None
    assert manager.film("one") != first
    manager.delete("one")
    assert list(films.iterdir()) == []
    for use in (manager.film, manager.made_film):
        with pytest.raises(AvatarNotFound):
            use("one")


def test_a_start_does_not_wait_for_a_film_in_the_making(tmp_path: Path, manager: AvatarManager, prepared: None) -> None:
    manager.create_demo("one")
    part = tmp_path / "avatars" / ".films" / "one.1-2.part"
    part.touch()
    with ThreadPoolExecutor(1) as pool, FileLock(tmp_path / "avatars" / ".locks" / "one.film"):
        pool.submit(manager.start).result(10)
        assert part.exists()
    manager.start()
    assert not part.exists()


def test_several_that_want_the_film_make_it_once(manager: AvatarManager, prepared: None, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []

    def make(folder: Path, film: Path, cancel: threading.Event | None) -> None:
        made.append(film)
        film.touch()

    monkeypatch.setattr(avatar_manager, "make_film", make)
    manager.create_demo("one")
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: manager.film("one"), range(4))) == set(made)
    assert len(made) == 1


def test_a_film_that_cannot_be_made_is_our_error_and_leaves_nothing(tmp_path: Path, manager: AvatarManager, prepared: None) -> None:
    manager.create_demo("one")
    (manager.folder("one") / "frames.i420").write_bytes(b"short")
    with pytest.raises(GpuserverError) as caught:
        manager.film("one")
    assert caught.value.status == 500
    assert list((tmp_path / "avatars" / ".films").iterdir()) == []


# ---------------------------------------------------------------- choosing


def rename_tutor(manager: AvatarManager, avatar_id: str, tutor_id: str, created: str) -> None:
    path = manager.folder(avatar_id) / "avatar.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tutor_id": tutor_id, "created_at": created}))


def test_a_session_gets_the_avatar_it_asks_for_or_its_tutors_newest(manager: AvatarManager, prepared: None) -> None:
    for avatar_id in ("a", "b", "avatar_tutor_8", "tutor_9_avatar"):
        manager.create_demo(avatar_id)
    rename_tutor(manager, "a", "7", "2026-02-01T00:00:00Z")
    rename_tutor(manager, "b", "7", "2026-01-01T00:00:00Z")
    assert manager.choose("b", "7") == "b"
    assert manager.choose(None, "7") == "a"
    assert manager.choose(None, "8") == "avatar_tutor_8"
    assert manager.choose(None, "9") == "tutor_9_avatar"
    for missing in (None, "none"):
        with pytest.raises(AvatarNotFound) as caught:
            manager.choose(missing, "1")
        assert caught.value.extra["avatars"] == ["a", "avatar_tutor_8", "b", "tutor_9_avatar"]


def test_without_avatars_the_advice_is_to_create_one(manager: AvatarManager) -> None:
    with pytest.raises(AvatarNotFound) as caught:
        manager.choose(None, "1")
    assert "POST /v1/avatars" in caught.value.advice


def test_importing_the_manager_loads_nothing_heavy() -> None:
    heavy = ("cv2", "av", "torch", "aiortc", "onnxruntime", "ai_edge_litert")
    program = f"import gpuserver.musetalk.avatar_cache, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    assert done.stdout.strip() == "[]"
    assert PORTRAIT == avatar_manager.SAMPLE_FACE
