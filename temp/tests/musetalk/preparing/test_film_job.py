"""The parent of an idle film's child process: nothing of the child outlives it. A named shell script stands in for the encoder."""

from __future__ import annotations

import errno
import os
import select
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from small_avatar import write_small_avatar

from gpuserver.errors import AvatarNotFound, Cancelled, DiskFull, GpuserverError
from gpuserver.musetalk.preparing import idle_film
from gpuserver.musetalk.preparing.film_job import make_film

# Called as Python is: -P -m MODULE FOLDER FILM. It and its own child hold the FIFO open as long as they live.
ENDLESS_ENCODER = """#!/bin/sh
: > "${5%.mp4}.part"
exec 3> "$4/fifo"
echo started >&3
sleep 600 &
wait
"""
FAILING_ENCODER = """#!/bin/sh
rmdir "$4"
exit 1
"""


FULL_DISK_ENCODER = f"""#!/bin/sh
exit {idle_film.NO_ROOM}
"""


class Encoder:
    """The FIFO that tells whether the endless encoder lives."""

    def __init__(self, fifo: Path):
        os.mkfifo(fifo)
        self._fifo = fifo
        self._descriptor = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)

    def says(self) -> bytes:
        """What comes next; b"" when all processes that opened the FIFO are gone."""
        assert select.select([self._descriptor], [], [], 10)[0]
        return os.read(self._descriptor, 100)

    def ends(self) -> None:
        """Wait until all of its processes are gone."""
        os.close(os.open(self._fifo, os.O_WRONLY))  # the end is told as well where the encoder never came so far
        while self.says():
            pass

    def close(self) -> None:
        os.close(self._descriptor)


def pretend(script: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = folder / "encoder"
    file.write_text(script)
    file.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(file))


@pytest.fixture
def endless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Encoder]:
    pretend(ENDLESS_ENCODER, tmp_path, monkeypatch)
    encoder = Encoder(tmp_path / "fifo")
    yield encoder
    encoder.close()


def test_a_cancelled_film_ends_all_processes_that_make_it_and_leaves_no_file(tmp_path: Path, endless: Encoder) -> None:
    cancel = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(make_film, tmp_path, tmp_path / "a.mp4", cancel)
        assert endless.says() == b"started\n"
        cancel.set()
        assert isinstance(made.exception(10), Cancelled)
    endless.ends()
    assert not (tmp_path / "a.part").exists()


def test_a_film_that_takes_too_long_is_ended(tmp_path: Path, endless: Encoder) -> None:
    with pytest.raises(GpuserverError, match="took too long"):
        make_film(tmp_path, tmp_path / "a.mp4", wall_seconds=0)
    endless.ends()
    assert not (tmp_path / "a.part").exists()


def test_a_film_that_was_cancelled_while_it_waited_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(FAILING_ENCODER, tmp_path, monkeypatch)
    (tmp_path / "avatar").mkdir()
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        make_film(tmp_path / "avatar", tmp_path / "a.mp4", cancel)
    assert (tmp_path / "avatar").is_dir()


def test_an_avatar_that_is_deleted_meanwhile_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(FAILING_ENCODER, tmp_path, monkeypatch)
    (tmp_path / "avatar").mkdir()
    with pytest.raises(AvatarNotFound):
        make_film(tmp_path / "avatar", tmp_path / "a.mp4")


def test_a_full_disk_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(FULL_DISK_ENCODER, tmp_path, monkeypatch)
    with pytest.raises(DiskFull):
        make_film(tmp_path, tmp_path / "a.mp4")


def test_the_child_tells_a_full_disk_by_its_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write_small_avatar(tmp_path)
    monkeypatch.setattr(idle_film, "write_film", full)
    monkeypatch.setattr(os, "nice", lambda _: 0)
    monkeypatch.setattr(sys, "argv", ["idle_film", str(tmp_path), str(tmp_path / "a.mp4")])
    assert idle_film.main() == idle_film.NO_ROOM
