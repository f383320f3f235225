"""GET /health: all workers as one media server, and each of them by itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence

from aiohttp import web

from gpuserver.errors import Unavailable
from gpuserver.interpreter import Interpreter
from gpuserver.media_router.fleet import Fleet, Worker
from gpuserver.media_router.renderers import Renderers
from gpuserver.web.keys import public

ANSWER_SECONDS = 1.5  # the management API waits 2 s for all of it
OF_EACH = ("engine", "renderer", "peers")  # components that are a worker's own; the others are the same in all

Health = Mapping[str, object]


def add_health_route(app: web.Application, fleet: Fleet, renderers: Renderers, most_sessions: int, interpreter: Interpreter) -> None:
    """Serve /health: 200 while any worker serves, else 503."""

    @public
    async def health(_request: web.Request) -> web.Response:
        answers, painting = await asyncio.gather(_health_of_all(fleet.workers), renderers.statuses())
        known = [answer for answer in answers if answer is not None]
        status = "healthy" if len(known) == len(answers) else "degraded" if known else "unhealthy"
        components = merged([_components(answer) for answer in known])
        components["media_workers"] = {
            "status": "ok" if status == "healthy" else "degraded",
            **({} if status == "healthy" else {"message": _message(fleet.workers, answers)}),
            "workers": [_described(worker, answer) for worker, answer in zip(fleet.workers, answers, strict=True)],
        }
        if painting:
            components["renderers"] = painters(painting)
        if interpreter.shortfall is not None:
            components["python"] = {"fallback": interpreter.shortfall}
        body = {
            "status": status,
            "service": "gpuserver-media",
            "active_sessions": sum(_count(answer) for answer in known),
            "max_sessions": most_sessions,
            "components": components,
        }
        return web.json_response(body, status=200 if known else 503)

    app.router.add_get("/health", health)


def merged(all_components: Sequence[Health]) -> dict[str, object]:
    """Each component as the first worker has it, or the first one where it falls back: no shortfall is hidden. Peers are counted."""
    components: dict[str, object] = {}
    for each in all_components:
        for name, component in each.items():
            if name not in components or (_falls_back(component) and not _falls_back(components[name])):
                components[name] = component
    peers = [component for each in all_components if isinstance(component := each.get("peers"), dict)]
    if peers:
        components["peers"] = {**peers[0], "count": sum(int(each.get("count", 0)) for each in peers)}
    return components


async def _health_of_all(workers: Sequence[Worker]) -> list[Health | None]:
    return await asyncio.gather(*(_health_of(worker) for worker in workers))


async def _health_of(worker: Worker) -> Health | None:
    """Its own /health; None where it does not answer in time."""
    if not worker.process.serves:
        return None
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            answer = await worker.client.ask("GET", "/health")
        health = json.loads(answer.body)
    except (Unavailable, TimeoutError, ValueError):
        return None
    return health if isinstance(health, dict) else None


def _described(worker: Worker, health: Health | None) -> Health:
    about = {"worker": worker.number, "restarts": worker.process.restarts}
    if health is None:
        return {**about, "status": "silent" if worker.process.serves else "restarting", "active_sessions": 0}
    components = _components(health)
    return {
        **about,
        "status": "ok",
        "active_sessions": _count(health),
        "components": {name: components[name] for name in OF_EACH if name in components},
    }


def painters(statuses: Sequence[Health]) -> Health:
    """The component of the renderer processes. Whether the workers fall back is their own component's to say: `engine`."""
    away = [str(each["renderer"]) for each in statuses if each["state"] != "ready"]
    if not away:
        return {"status": "ok", "renderers": statuses}
    message = f"Of {len(statuses)} renderer processes, {len(away)} do not paint (number {', '.join(away)}); `state` says why."
    return {"status": "degraded", "message": message, "renderers": statuses}


def _message(workers: Sequence[Worker], answers: Sequence[Health | None]) -> str:
    down = [str(worker.number) for worker, answer in zip(workers, answers, strict=True) if answer is None]
    return f"Of {len(workers)} media workers, {len(down)} do not serve (number {', '.join(down)}); each is started again by itself."


def _components(health: Health) -> Health:
    components = health.get("components")
    return components if isinstance(components, dict) else {}


def _count(health: Health) -> int:
    count = health.get("active_sessions")
    return count if isinstance(count, int) else 0


def _falls_back(component: object) -> bool:
    return isinstance(component, dict) and bool(component.get("fallback"))
