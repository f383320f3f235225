"""What any worker can answer: voices, models, speech, diagnosis, documentation; and what all are to do, the preloading of avatars."""

from __future__ import annotations

from aiohttp import web

from gpuserver.errors import Unavailable
from gpuserver.media_router.fleet import Fleet
from gpuserver.media_router.forwarding import forward, whole
from gpuserver.media_router.worker_client import RETRY_AFTER_SECONDS, WorkerAnswer, WorkerGone
from gpuserver.web.interim import while_client_awaits
from gpuserver.web.keys import needs_key, public


def add_service_routes(app: web.Application, fleet: Fleet) -> None:
    """Serve lists of voices and models, speech, the diagnosis, the documentation and /v1/avatars/{avatar_id}/preload from `app`."""

    @needs_key
    async def by_any(request: web.Request) -> web.StreamResponse:
        return await forward(request, fleet.any().client)

    @public
    async def documentation(request: web.Request) -> web.StreamResponse:
        return await forward(request, fleet.any().client)

    @needs_key
    async def by_all(request: web.Request) -> web.StreamResponse:
        return whole(await while_client_awaits(request, _of_all(request, fleet)))

    app.router.add_get("/v1/voices", by_any)
    app.router.add_get("/v1/models", by_any)
    app.router.add_post("/v1/audio/speech", by_any)
    app.router.add_get("/tts/models", by_any)
    app.router.add_get("/v1/diagnosis", by_any)
    app.router.add_post("/v1/avatars/{avatar_id}/preload", by_all)
    for path in ("/openapi.json", "/docs", "/docs/problems", "/docs/files/{path}"):
        app.router.add_get(path, documentation)


async def _of_all(request: web.Request, fleet: Fleet) -> WorkerAnswer:
    """The last worker's answer, or the first refusal. Raises Unavailable."""
    answer: WorkerAnswer | None = None
    for worker in fleet.serving:
        try:
            answer = await worker.client.ask(request.method, request.rel_url.raw_path)
        except WorkerGone:
            continue
        if answer.status != 200:
            return answer
    if answer is None:
        raise Unavailable("No media worker serves at this moment.", retry_after=RETRY_AFTER_SECONDS)
    return answer
