"""Uploads belong to a living process: what a killed one left is removed, what arrives is kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from gpuserver.musetalk.avatars.upload_folder import UploadFolder, sweep_uploads

RECEIVING = """
import sys
from pathlib import Path
from gpuserver.musetalk.avatars.upload_folder import UploadFolder
folder = UploadFolder(Path(sys.argv[1]))
(folder.path / "half").write_bytes(b"x")
print("receiving", flush=True)
sys.stdin.read()
"""


def _receiver(parent: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RECEIVING, str(parent)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "receiving\n"
    return process


def _files(parent: Path) -> list[str]:
    return [path.name for path in parent.rglob("*") if path.is_file()]


def test_what_a_living_process_receives_stays_and_what_a_killed_one_left_goes(tmp_path: Path) -> None:
    with _receiver(tmp_path) as process:
        sweep_uploads(tmp_path)
        assert _files(tmp_path) == ["half"]
        process.kill()
        process.wait()
        assert _files(tmp_path) == ["half"]
        sweep_uploads(tmp_path)
        assert list(tmp_path.iterdir()) == []


def test_a_process_that_ends_leaves_nothing(tmp_path: Path) -> None:
    with _receiver(tmp_path) as process:
        process.communicate("")
        assert (process.returncode, list(tmp_path.iterdir())) == (0, [])


def test_links_and_stray_files_are_removed_and_not_what_a_link_points_to(tmp_path: Path) -> None:
    uploads, elsewhere = tmp_path / "uploads", tmp_path / "elsewhere"
    uploads.mkdir()
    elsewhere.mkdir()
    (uploads / "link").symlink_to(elsewhere)
    (uploads / "stray").write_bytes(b"x")
    sweep_uploads(uploads)
    assert (list(uploads.iterdir()), elsewhere.is_dir()) == ([], True)


def test_a_folder_goes_with_its_object(tmp_path: Path) -> None:
    folder = UploadFolder(tmp_path)
    (folder.path / "half").write_bytes(b"x")
    del folder
    assert list(tmp_path.iterdir()) == []
