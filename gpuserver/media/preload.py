"""POST /v1/avatars/{avatar_id}/preload: the next session with this avatar reads nothing from disk."""

from __future__ import annotations

import asyncio

from aiohttp import web

from gpuserver.errors import InvalidAvatarId
from gpuserver.musetalk.avatar_cache import AvatarCache
from gpuserver.musetalk.avatars.resident import make_resident
from gpuserver.web.answers import json_answer
from gpuserver.web.interim import while_client_awaits
from gpuserver.web.keys import needs_key
from gpuserver.wire import AvatarPreloaded, check_avatar_id


def add_preload_route(app: web.Application, cache: AvatarCache) -> None:
    """Serve the route from `app`. cache: the one that sessions take their avatars from."""
    one_at_a_time = asyncio.Lock()  # several would only compete for the disk

    async def load(avatar_id: str) -> int:
        async with one_at_a_time:
            return await asyncio.to_thread(lambda: make_resident(cache.get(avatar_id)))

    @needs_key
    async def preload(request: web.Request) -> web.Response:
        try:
            avatar_id = check_avatar_id(request.match_info["avatar_id"])
        except ValueError as error:
            raise InvalidAvatarId(f"avatar_id: {error}.") from error
        size = await while_client_awaits(request, load(avatar_id))
        return json_answer(AvatarPreloaded(avatar_id=avatar_id, bytes=size))

    app.router.add_post("/v1/avatars/{avatar_id}/preload", preload)
