"""How LiveTalking's clients are answered: always with status 200; they look at `code`, 0, or -1 with a `msg`."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel

from gpuserver.errors import GpuserverError
from gpuserver.player_wire import Outcome

Routes = TypeVar("Routes")
Routed = Callable[[Routes, web.Request], Awaitable[web.StreamResponse]]


def in_their_words(handle: Routed[Routes]) -> Routed[Routes]:
    """A decorator for a method that answers such a client: what goes wrong is told as it expects it."""

    @functools.wraps(handle)
    async def tell(routes: Routes, request: web.Request) -> web.StreamResponse:
        try:
            return await handle(routes, request)
        except GpuserverError as error:
            return outcome(Outcome(code=-1, msg=f"{error.detail} {error.advice}"))

    return tell


def outcome(body: BaseModel) -> web.Response:
    """The answer itself."""
    return web.Response(text=body.model_dump_json(exclude_none=True), content_type="application/json")
