"""gpuserver avatars list and prune: avatars are folders with a description and nothing else; the media server is a fake."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer
from conftest import MakeSettings
from fake_media_server import SECRET, TOKEN, FakeMediaServer
from pytest_aiohttp.plugin import AiohttpServer
from typer.testing import CliRunner, Result

from gpuserver import cli
from gpuserver.cli_avatars import duration
from gpuserver.errors import WeightsMissing
from gpuserver.musetalk import avatar_manager
from gpuserver.musetalk.avatars.avatar_files import FORMAT, INFO
from gpuserver.sessions_now import avatars_shown
from gpuserver.wire import AvatarInfo, QualityReport, SessionInfo

NOW = datetime.now(UTC)
QUALITY = QualityReport(source_frames=50, used_frames=50, frames_without_face=0, face_width=200, mouth_width=60, mouth_opening_at_rest=0.0)
Run = Callable[..., Result]


class Shelf:
    """The folder of avatars of a test."""

    def __init__(self, root: Path):
        self.root = root

    def put(self, avatar_id: str, *, made: int, used: int | None = None) -> None:
        """An avatar that was made, and last used, so many days ago."""
        folder = self.root / avatar_id
        folder.mkdir(parents=True)
        info = AvatarInfo(
            avatar_id=avatar_id, frames=50, width=640, height=360, seconds=2.0, created_at=NOW - timedelta(days=made), quality=QUALITY
        )
        (folder / INFO).write_text(json.dumps({"format": FORMAT, **info.model_dump(mode="json")}))
        (folder / "pictures").write_bytes(bytes(2_000_000))
        if used is not None:
            (self.root / ".state").mkdir(exist_ok=True)
            state = self.root / ".state" / avatar_id
            state.touch()
            moment = (NOW - timedelta(days=used)).timestamp()
            os.utime(state, (moment, moment))

    @property
    def ids(self) -> list[str]:
        return sorted(path.name for path in self.root.iterdir() if not path.name.startswith("."))


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    shelf = Shelf(tmp_path / "avatars")
    (shelf.root / ".versions").mkdir(parents=True)
    return shelf


@pytest.fixture
def run(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in an empty folder, without a media server unless another port is set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AVATARS_DIR", str(shelf.root))
    monkeypatch.setenv("INTERNAL_SECRET", SECRET)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MEDIA_PORT", str(probe.getsockname()[1]))
    return lambda *arguments, answer="": CliRunner().invoke(cli.app, ["avatars", *arguments], input=answer)


@pytest.mark.parametrize(
    ("text", "expected"), [("12h", timedelta(hours=12)), ("30d", timedelta(days=30)), ("2w", timedelta(weeks=2)), (" 0d ", timedelta())]
)
def test_durations(text: str, expected: timedelta) -> None:
    assert duration(text) == expected


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1.5d", "30 days", "1y", "999999d"])
def test_what_is_no_duration_is_said_so(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="12h, 30d or 2w"):
        duration(text)


def test_a_wrong_duration_is_exit_code_2(run: Run) -> None:
    result = run("prune", "--unused-for", "soon")
    assert result.exit_code == 2
    assert "is not a duration" in result.stderr


def test_list_prints_nothing_without_avatars_and_a_line_with_tabs_for_each(run: Run, shelf: Shelf) -> None:
    assert run("list").stdout == ""
    shelf.put("anna", made=3, used=1)
    shelf.put("bob", made=2)
    anna, bob = (line.split("\t") for line in run("list").stdout.splitlines())
    assert anna[:6] == ["anna", "2.0 s", "640x360", "50 frames", "2 MB", "warp"]
    assert anna[7] == f"used {(NOW - timedelta(days=1)).astimezone():%Y-%m-%d %H:%M}"
    assert bob[7] == "never used"


def test_list_names_damaged_avatars_and_what_to_do_beside_the_list(run: Run, shelf: Shelf) -> None:
    shelf.put("good", made=1)
    shelf.put("torn", made=1)
    (shelf.root / "torn" / INFO).write_text("{")
    result = run("list")
    assert result.exit_code == 0
    assert [line.split("\t")[0] for line in result.stdout.splitlines()] == ["good"]
    assert "torn is damaged and cannot be shown" in result.stderr
    assert "gpuserver avatars delete torn" in result.stderr


def test_prepare_without_weights_says_what_to_do(run: Run, shelf: Shelf) -> None:
    shelf.put("anna", made=1)
    result = run("prepare", "anna")
    assert isinstance(result.exception, WeightsMissing)  # main() makes two plain lines of it
    assert "MUSETALK_BASE" in result.exception.detail


@pytest.mark.parametrize(("made", "said"), [(True, "anna is prepared"), (False, "anna was prepared for MuseTalk before")])
def test_prepare_says_whether_there_was_something_to_do(run: Run, monkeypatch: pytest.MonkeyPatch, made: bool, said: str) -> None:
    class Preparing(avatar_manager.AvatarManager):
        """A fake that has prepared."""

        def prepare_for_musetalk(self, avatar_id: str, **_: object) -> bool:
            assert avatar_id == "anna"
            return made

    monkeypatch.setattr(avatar_manager, "AvatarManager", Preparing)
    assert said in run("prepare", "anna").stdout


def test_list_as_json_is_what_the_api_answers(run: Run, shelf: Shelf) -> None:
    assert json.loads(run("list", "--json").stdout) == {"total": 0, "avatars": []}
    shelf.put("anna", made=3)
    listed = json.loads(run("list", "--json").stdout)
    assert listed["total"] == 1
    assert AvatarInfo.model_validate(listed["avatars"][0]).frames == 50


def test_prune_deletes_what_was_neither_used_nor_made_lately_and_says_what_was_freed(run: Run, shelf: Shelf) -> None:
    shelf.put("long_unused", made=90, used=40)
    shelf.put("never_used", made=50)
    shelf.put("old_but_used", made=90, used=1)
    shelf.put("new", made=1)
    shelf.put("replaced_lately", made=2, used=40)
    result = run("prune", "--unused-for", "30d", "--yes")
    assert result.exit_code == 0
    assert shelf.ids == ["new", "old_but_used", "replaced_lately"]
    assert result.stdout.splitlines()[-1] == "2 avatars deleted, 4 MB freed."
    assert [line.split("\t")[0] for line in result.stdout.splitlines()[:-1]] == ["never_used", "long_unused"]


def test_a_dry_run_deletes_nothing(run: Run, shelf: Shelf) -> None:
    shelf.put("old", made=90)
    result = run("prune", "--unused-for", "2w", "--dry-run")
    assert result.stdout.splitlines()[-1] == "1 avatar would be deleted, 2 MB."
    assert shelf.ids == ["old"]


@pytest.mark.parametrize(("answer", "left"), [("y\n", []), ("n\n", ["old"]), ("", ["old"])])
def test_without_yes_it_asks(run: Run, shelf: Shelf, answer: str, left: list[str]) -> None:
    shelf.put("old", made=90)
    result = run("prune", "--unused-for", "1d", answer=answer)
    assert result.exit_code == (1 if left else 0)
    assert "Delete 1 avatar, 2 MB?" in result.stdout
    assert shelf.ids == left


def test_nothing_to_prune_is_said_so(run: Run) -> None:
    result = run("prune", "--unused-for", "30d", "--yes")
    assert (result.exit_code, result.stdout) == (0, "No avatar has been unused for so long.\n")
    assert "No media server runs" in result.stderr


async def test_what_a_session_shows_is_not_pruned(
    run: Run, shelf: Shelf, aiohttp_server: AiohttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.put("shown", made=90)
    shelf.put("old", made=90)
    media = FakeMediaServer()
    media.sessions["s1"] = SessionInfo(
        session_id="s1", tutor_id="1", student_id="2", avatar_id="shown", created_at=NOW, idle_seconds=0, connected=True, speaking=False
    )
    server = await aiohttp_server(media.app())
    monkeypatch.setenv("MEDIA_PORT", str(server.port))
    result = await asyncio.to_thread(run, "prune", "--unused-for", "30d", "--yes")
    assert shelf.ids == ["shown"]
    assert "Sessions at this moment: 1; the avatars that they show stay." in result.stderr


async def test_a_media_server_that_does_not_tell_is_said_so(aiohttp_server: AiohttpServer, make_settings: MakeSettings) -> None:
    server = await aiohttp_server(FakeMediaServer().app())
    shown = await asyncio.to_thread(avatars_shown, make_settings(internal_secret=TOKEN, media_port=server.port))
    assert shown.avatar_ids == frozenset()
    assert "cannot be asked which avatars are in use (it answers with status 401)" in shown.sentence


def test_who_asks_what_is_shown_leaves_no_secret_behind(make_settings: MakeSettings, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    avatars_shown(make_settings(media_port=port))
    assert list(tmp_path.rglob(".secret*")) == []


def test_what_is_not_a_media_server_is_said_so(make_settings: MakeSettings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.listen(1)
        port = other.getsockname()[1]
        settings = make_settings(internal_secret=SECRET, media_port=port)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("gpuserver.sessions_now.ANSWER_SECONDS", 0.1)
            assert "cannot be asked" in avatars_shown(settings).sentence
