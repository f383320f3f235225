"""/v1/jobs: what became of `Prefer: respond-async`. Show a job, follow it as server-sent events, cancel it."""

from __future__ import annotations

import re

from aiohttp import web
from aiohttp_sse import EventSourceResponse, sse_response

from gpuserver.web.answers import json_answer
from gpuserver.web.event_stream import tell_while_heard
from gpuserver.web.jobs import Job, Jobs
from gpuserver.web.keys import key_in_query, needs_key

HEARTBEAT_SECONDS = 10.0  # a comment line, so that neither proxies nor we hold on to a dead connection

_ASYNC = re.compile(r"(^|[,;\s])respond-async($|[,;\s])", re.IGNORECASE)


def add_job_routes(app: web.Application, jobs: Jobs) -> None:
    """Serve /v1/jobs… from `app`."""
    routes = JobRoutes(jobs)
    app.router.add_get("/v1/jobs/{job_id}", routes.show)
    app.router.add_get("/v1/jobs/{job_id}/events", routes.events)
    app.router.add_delete("/v1/jobs/{job_id}", routes.cancel)


def wants_job(request: web.Request) -> bool:
    """Whether the client asks not to be kept waiting (RFC 7240, 4.1)."""
    return any(_ASYNC.search(value) for value in request.headers.getall("Prefer", []))


def accepted(job: Job) -> web.Response:
    """202: where the job can be followed."""
    headers = {"Location": f"/v1/jobs/{job.job_id}", "Preference-Applied": "respond-async"}
    return json_answer(job.state, status=202, headers=headers)


class JobRoutes:
    def __init__(self, jobs: Jobs):
        self._jobs = jobs

    @needs_key
    async def show(self, request: web.Request) -> web.Response:
        """GET /v1/jobs/{job_id}."""
        return json_answer(self._jobs.get(request.match_info["job_id"]).state)

    @key_in_query
    async def events(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/jobs/{job_id}/events: an event `job` with the whole job now and after every change; ends with the job."""
        job = self._jobs.get(request.match_info["job_id"])
        async with sse_response(request, ping_interval=HEARTBEAT_SECONDS) as stream:
            await tell_while_heard(stream, _tell(job, stream))
        return stream

    @needs_key
    async def cancel(self, request: web.Request) -> web.Response:
        """DELETE /v1/jobs/{job_id}: 204 when nothing of it is left; 409 if its avatar has been made."""
        await self._jobs.cancel(request.match_info["job_id"])
        return web.Response(status=204)


async def _tell(job: Job, stream: EventSourceResponse) -> None:
    async for state in job.states():
        await stream.send(state.model_dump_json(), event="job")
