"""The management API in this process with a fake manager, in front of a fake media server."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from conftest import MakeSettings
from fake_avatar_manager import FakeAvatarManager
from fake_media_server import SECRET, FakeMediaServer
from pytest_aiohttp.plugin import AiohttpClient, AiohttpServer

from gpuserver import management_api


@dataclass
class Pair:
    """Both processes of the product, the second one a fake."""

    client: TestClient[web.Request, web.Application]
    manager: FakeAvatarManager
    media: FakeMediaServer
    media_server: TestServer

    async def new_session(self, **fields: object) -> str:
        answer = await self.client.post("/v1/sessions", json={"tutor_id": 1, "student_id": 2, **fields})
        assert answer.status == 201, await answer.text()
        return str((await answer.json())["session_id"])


async def make_pair(aiohttp_client: AiohttpClient, aiohttp_server: AiohttpServer, make_settings: MakeSettings, **overrides: object) -> Pair:
    """Start both. overrides: settings of the management API."""
    media = FakeMediaServer()
    media_server = await aiohttp_server(media.app())
    settings = make_settings(media_port=media_server.port, internal_secret=SECRET, **overrides)
    manager = FakeAvatarManager(settings)
    return Pair(await aiohttp_client(management_api.create_app(settings, manager)), manager, media, media_server)
