"""A server for fakes that have to learn when their client leaves."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer


class AttentiveServer(TestServer):
    """Cancels a handler whose client has left, unlike the other servers of the tests (conftest.py)."""

    async def _make_runner(self, **options: Any) -> web.AppRunner:
        return web.AppRunner(self.app, **options)
