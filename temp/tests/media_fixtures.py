"""Fixtures: the media server with a fake voice and a fake language model, and a demo avatar that is made once.

A test module asks for them with `pytest_plugins = ("media_fixtures",)`; what it imports by name is in media_server_rig.py.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeSettings
from media_server_rig import SECRET, MediaServer, StartedFakeModel, StartedFakeVoice
from pytest_aiohttp.plugin import AiohttpClient

from gpuserver.config import Settings
from gpuserver.media.server import create_app
from gpuserver.musetalk.avatar_manager import AvatarManager


@pytest.fixture(scope="session")
def demo_avatars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the demo avatar in it."""
    folder = tmp_path_factory.mktemp("demo") / "avatars"
    manager = AvatarManager(Settings(_env_file=None, avatars_dir=folder))
    manager.start()
    manager.create_demo()
    return folder


@pytest.fixture
def media_settings(make_settings: MakeSettings, demo_avatars: Path, tmp_path: Path) -> MakeSettings:
    """Settings with a copy of the demo avatar."""
    folder = tmp_path / "data" / "avatars"
    shutil.copytree(demo_avatars, folder)
    return lambda **overrides: make_settings(avatars_dir=folder, internal_secret=SECRET, **overrides)


@pytest.fixture
async def make_media(aiohttp_client: AiohttpClient, media_settings: MakeSettings) -> Callable[..., Awaitable[MediaServer]]:
    async def make(voice: StartedFakeVoice | None = None, model: StartedFakeModel | None = None, **settings: Any) -> MediaServer:
        model = model or StartedFakeModel()
        app = create_app(media_settings(**settings), voice=voice or StartedFakeVoice(), language_model=model)
        return MediaServer(await aiohttp_client(app), model)

    return make


@pytest.fixture
async def media(make_media: Callable[..., Awaitable[MediaServer]]) -> AsyncIterator[MediaServer]:
    yield await make_media()
