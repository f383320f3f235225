"""GET /v1/voices, /v1/models and /v1/diagnosis: passed on to the media server, which speaks, asks the language model and has the ports."""

from __future__ import annotations

from aiohttp import web

from gpuserver.api.media_client import MediaClient
from gpuserver.web.keys import needs_key


def add_choice_routes(app: web.Application, media: MediaClient) -> None:
    """Serve the lists from `app`."""

    @needs_key
    async def pass_on(request: web.Request) -> web.Response:
        return (await media.send("GET", request.path)).response()

    app.router.add_get("/v1/voices", pass_on)
    app.router.add_get("/v1/models", pass_on)
    app.router.add_get("/v1/diagnosis", pass_on)
