"""Fixtures for all tests: settings that no environment and no .env of this machine can change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
import structlog
from aiohttp import web
from aiohttp.test_utils import TestServer
from pytest_aiohttp.plugin import AiohttpClient, AiohttpServer

from gpuserver.config import Settings

if TYPE_CHECKING:
    from api_pair import Pair

hypothesis.settings.register_profile("suite", deadline=None)  # how long an example takes says how busy the machine is
hypothesis.settings.load_profile("suite")

MakeSettings = Callable[..., Settings]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(autouse=True)
def _plain_logs() -> None:
    """What a test before has set up to be logged, and what not, ends with it."""
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def _handlers_outlive_their_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in our servers. aiohttp's test servers cancel a handler whose client has left, which would hide that it does not notice."""

    async def make_runner(server: TestServer, **options: Any) -> web.AppRunner:
        return web.AppRunner(server.app, **{**options, "handler_cancellation": False})

    monkeypatch.setattr(TestServer, "_make_runner", make_runner)


@pytest.fixture
def make_settings(tmp_path: Path) -> MakeSettings:
    """Settings with their folders in tmp_path; keyword arguments override."""

    def make(**overrides: Any) -> Settings:
        values: dict[str, Any] = {"avatars_dir": tmp_path / "data" / "avatars", "video_dirs": (tmp_path / "videos",), **overrides}
        return Settings(_env_file=None, **values)

    return make


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings()


@pytest.fixture
async def pair(aiohttp_client: AiohttpClient, aiohttp_server: AiohttpServer, make_settings: MakeSettings) -> Pair:
    """The management API in front of a fake media server."""
    from api_pair import make_pair

    return await make_pair(aiohttp_client, aiohttp_server, make_settings)
