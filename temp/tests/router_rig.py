"""Fixtures: a router with fake workers. A test module asks for them with `pytest_plugins = ("router_rig",)`."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientWebSocketResponse, web
from aiohttp.test_utils import TestClient
from conftest import MakeSettings
from fake_workers import INTERNAL, SECRET, TOKEN, FakeWorker, routed
from pytest_aiohttp.plugin import AiohttpClient


@dataclass(frozen=True, slots=True)
class Rig:
    """client: of the router. workers: behind it, by their numbers less one."""

    client: TestClient[web.Request, web.Application]
    workers: list[FakeWorker]

    async def create(self, **fields: Any) -> dict[str, Any]:
        answer = await self.client.post("/v1/sessions", json={"tutor_id": 1, "student_id": 2, **fields}, headers=INTERNAL)
        assert answer.status == 201, await answer.text()
        created = await answer.json()
        assert isinstance(created, dict)
        return created

    async def socket(self, session: dict[str, Any]) -> ClientWebSocketResponse:
        return await self.client.ws_connect(f"/ws/{session['session_id']}?token={TOKEN}")


MakeRig = Callable[..., Awaitable[Rig]]


@pytest.fixture
async def make_rig(aiohttp_client: AiohttpClient, make_settings: MakeSettings) -> AsyncIterator[MakeRig]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="w")))  # a socket's path has at most 107 bytes

        async def make(count: int = 2, **settings: Any) -> Rig:
            fleet = await stack.enter_async_context(routed(make_settings(internal_secret=SECRET, **settings), folder, count))
            return Rig(await aiohttp_client(fleet.app), fleet.workers)

        yield make


@pytest.fixture
async def rig(make_rig: MakeRig) -> Rig:
    return await make_rig()
