"""The command line: what it says, and with which exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from clips import Clip, write_clip
from running_server import free_ports
from small_avatar import write_small_avatar
from sound_files import encoded

from gpuserver import __version__, cli
from gpuserver.musetalk import avatar_manager
from gpuserver.wire import AvatarCreated

ROOT = Path(__file__).resolve().parents[2]


def _run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gpuserver", *arguments]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_version_prints_the_version(tmp_path: Path) -> None:
    result = _run(tmp_path, "--version")
    assert (result.returncode, result.stdout) == (0, f"{__version__}\n")


def test_wrong_settings_are_plain_lines_and_exit_code_2(tmp_path: Path) -> None:
    result = _run(tmp_path, "serve", MANAGEMENT_API_PORT="http", LLM="parrot")
    assert result.returncode == 2
    assert [line.split(":")[0] for line in result.stderr.splitlines()[1:]] == ["MANAGEMENT_API_PORT", "LLM"]


def test_names_that_look_misspelt_are_told(tmp_path: Path) -> None:
    names = ["MEDIA_PRT", "UDP_PORT", "Tutor_1_LLM_MODL", "DATABASE_URL", "HF_ENDPOINT", "max_sessions", "TUTOR_a_LLM_MODEL"]
    (tmp_path / ".env").write_text("".join(f"{name}=7\n" for name in names))
    result = _run(tmp_path, "avatars", "list")
    assert result.returncode == 0
    assert result.stderr.splitlines() == [
        ".env: MEDIA_PRT is no setting and has no effect. Is MEDIA_PORT meant?",
        ".env: UDP_PORT is no setting and has no effect. Is WEBRTC_UDP_PORT meant?",
    ]


def test_a_settings_file_in_another_encoding_is_one_plain_line(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("MAX_SESSIONS=3\n", encoding="utf-16")
    result = _run(tmp_path, "avatars", "list")
    assert (result.returncode, result.stderr) == (2, ".env is not UTF-8 text. Save it as UTF-8.\n")


@pytest.mark.parametrize(
    ("command", "name"),
    [("serve", "MANAGEMENT_API_HOST"), ("management", "MANAGEMENT_API_HOST"), ("serve", "MEDIA_HOST"), ("media", "MEDIA_HOST")],
)
def test_an_unprotected_address_is_two_plain_lines_and_exit_code_1(tmp_path: Path, command: str, name: str) -> None:
    result = _run(tmp_path, command, **{name: "0.0.0.0"})
    assert result.returncode == 1
    assert result.stderr.startswith(f"{name}=0.0.0.0 without API_KEYS would let every machine")
    assert "ALLOW_INSECURE=1" in result.stderr.splitlines()[1]
    assert "Traceback" not in result.stderr


def test_an_unknown_command_is_exit_code_2(tmp_path: Path) -> None:
    assert _run(tmp_path, "fly").returncode == 2


def test_avatars_are_created_listed_and_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    cli.app(["avatars", "create", "--demo"], standalone_mode=False)
    assert "demo" in capsys.readouterr().out
    cli.app(["avatars", "list"], standalone_mode=False)
    assert capsys.readouterr().out.startswith("demo\t")
    with pytest.raises(SystemExit) as caught:
        cli.main(["avatars", "create", "--demo"])
    assert caught.value.code == 1
    assert "--replace" in capsys.readouterr().err
    cli.app(["avatars", "delete", "demo"], standalone_mode=False)
    cli.app(["avatars", "list"], standalone_mode=False)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("arguments", [[], ["a", __file__, "--demo"], ["a", "/nonexistent.mp4"]])
def test_create_wants_a_video_or_demo(arguments: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        cli.main(["avatars", "create", *arguments])
    assert caught.value.code == 2


def test_create_makes_an_avatar_from_the_named_video_wherever_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, Path, str | None]] = []

    class Recording(avatar_manager.AvatarManager):
        """A fake that notes what it is asked to make."""

        def create_from_file(self, avatar_id: str, video: Path, *, tutor_id: str | None = None, **_: object) -> AvatarCreated:
            seen.append((avatar_id, video, tutor_id))
            return AvatarCreated(avatar_id=avatar_id, avatar_path="p", message="made")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(avatar_manager, "AvatarManager", Recording)
    video = tmp_path / "teacher.mp4"
    video.write_bytes(b"video")
    cli.app(["avatars", "create", "anna", str(video), "--tutor-id", "7"], standalone_mode=False)
    assert seen == [("anna", video, "7")]


def test_ctrl_c_ends_a_creation_and_leaves_nothing(tmp_path: Path) -> None:
    video = write_clip(tmp_path / "teacher.mp4", Clip(seconds=8))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "AVATARS_DIR": str(tmp_path / "avatars")}
    heeds_ctrl_c = ["env", "--default-signal=INT"]  # also where the tests were started in the background of a shell, which turns it off
    command = [*heeds_ctrl_c, sys.executable, "-m", "gpuserver", "avatars", "create", "anna", str(video)]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    versions = tmp_path / "avatars" / ".versions"
    while not any(versions.glob("anna.*/frames.i420")) and process.poll() is None:
        pass
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert list(versions.iterdir()) == []
    assert not (tmp_path / "avatars" / "anna").exists()


def test_create_says_what_the_video_is_like(tmp_path: Path) -> None:
    video = write_clip(tmp_path / "teacher.mp4", Clip(seconds=1.6, faceless=((0, 0.4),)))
    result = _run(tmp_path, "avatars", "create", "anna", str(video), "--blur", AVATARS_DIR=str(tmp_path / "avatars"))
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"Avatar created successfully: anna in {tmp_path}/avatars/anna\n"
    first, second, *advice = result.stderr.splitlines()
    assert first == "1.2 of 1.6 s are used."
    assert second.startswith("The face is ")
    assert any("closed lips" in line for line in advice)  # the portrait smiles


@pytest.mark.parametrize("arguments", [[], ["--text", "Hello.", "--audio", "{sound}"]], ids=["neither", "both"])
def test_a_film_is_of_a_text_or_of_a_sound(tmp_path: Path, arguments: list[str]) -> None:
    sound = tmp_path / "sound.wav"
    sound.write_bytes(b"")
    result = _run(tmp_path, "render", "film.mp4", *(each.format(sound=sound) for each in arguments))
    assert result.returncode == 2
    assert "either --text or --audio" in result.stderr


def test_a_film_that_cannot_be_written_is_one_plain_line(tmp_path: Path) -> None:
    (tmp_path / "avatars" / "anna").mkdir(parents=True)
    write_small_avatar(tmp_path / "avatars" / "anna", avatar_id="anna")
    (tmp_path / "sound.wav").write_bytes(encoded(0.2))
    film = tmp_path / "missing" / "film.mp4"
    result = _run(
        tmp_path, "render", "--avatar", "anna", "--audio", str(tmp_path / "sound.wav"), str(film), AVATARS_DIR=str(tmp_path / "avatars")
    )
    assert (result.returncode, result.stdout, result.stderr) == (1, "", f"{film} cannot be written: No such file or directory.\n")


def test_a_film_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "avatars" / "anna").mkdir(parents=True)
    write_small_avatar(tmp_path / "avatars" / "anna", avatar_id="anna")
    (tmp_path / "sound.wav").write_bytes(encoded(0.2))
    result = _run(tmp_path, "render", "--avatar", "anna", "--audio", "sound.wav", "film.mp4", AVATARS_DIR=str(tmp_path / "avatars"))
    assert (result.returncode, result.stdout, result.stderr) == (0, "film.mp4: 1.2 s\n", "")


def test_the_api_documents_go_into_a_new_folder(tmp_path: Path) -> None:
    result = _run(tmp_path, "openapi", "new/docs")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == ["new/docs/openapi-management.json", "new/docs/openapi-media.json"]


def test_an_avatar_that_is_not_there_is_looked_for_on_the_command_line(tmp_path: Path) -> None:
    result = _run(tmp_path, "avatars", "delete", "nobody")
    assert (result.returncode, result.stderr) == (
        1,
        "There is no avatar 'nobody'.\n`gpuserver avatars list` shows the avatars there are.\n",
    )


@pytest.mark.parametrize("command", [["serve"], ["management"], ["media"], ["avatars", "create", "--demo"]], ids=lambda command: command[0])
def test_a_data_folder_that_cannot_be_written_is_two_plain_lines(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "avatars").write_text("in the way")
    ports = free_ports(2)
    environment = {"AVATARS_DIR": "avatars", "MANAGEMENT_API_PORT": str(ports[0]), "MEDIA_PORT": str(ports[1])}
    result = _run(tmp_path, *command, **environment)
    assert result.returncode == 1
    assert f"Nothing can be written to {tmp_path}/avatars: File exists." in result.stderr
    assert "Traceback" not in result.stderr
