"""LiveTalking's HTTP API: a sessionid tells the worker that has the session. See docs/livetalking.md."""

from __future__ import annotations

from collections.abc import Mapping

import aiohttp
from aiohttp import web
from pydantic import ValidationError

from gpuserver.errors import SessionNotFound
from gpuserver.media_router.fleet import Fleet
from gpuserver.media_router.forwarding import forward, whole
from gpuserver.media_router.placement import Placement
from gpuserver.media_router.worker_client import WorkerClient, WorkerGone
from gpuserver.player_wire import OfSession
from gpuserver.session_names import worker_of_number
from gpuserver.web.body import JSON_LIMIT, read_limited
from gpuserver.web.keys import key_in_query
from gpuserver.web.outcomes import in_their_words
from gpuserver.web.rate_limit import uncounted
from gpuserver.web.sound_form import SoundForm, SoundForms


def add_livetalking_routes(app: web.Application, fleet: Fleet, placement: Placement) -> None:
    """Serve the API from `app`."""
    routes = LiveTalkingRoutes(fleet, placement)
    app.router.add_post("/offer", routes.offer)
    app.router.add_post("/humanaudio", routes.humanaudio)
    app.router.add_post("/is_speaking", routes.poll)
    for name in ("human", "interrupt_talk", "record", "set_audiotype"):
        app.router.add_post(f"/{name}", routes.tell)
    for suffix in ("", ".mp4"):
        app.router.add_get(r"/record/{sessionid:\d{1,16}}" + suffix, routes.film)


class LiveTalkingRoutes:
    def __init__(self, fleet: Fleet, placement: Placement):
        self._fleet = fleet
        self._placement = placement
        self._sounds = SoundForms()

    @key_in_query
    @in_their_words
    async def offer(self, request: web.Request) -> web.StreamResponse:
        """POST /offer: a new session with its peer."""
        return whole(await self._placement.create(request, await read_limited(request, JSON_LIMIT)))

    @key_in_query
    @in_their_words
    async def tell(self, request: web.Request) -> web.StreamResponse:
        """POST /human, /interrupt_talk, /record, /set_audiotype."""
        return await self._to_its_worker(request)

    @uncounted
    @key_in_query
    @in_their_words
    async def poll(self, request: web.Request) -> web.StreamResponse:
        """POST /is_speaking."""
        return await self._to_its_worker(request)

    @key_in_query
    @in_their_words
    async def humanaudio(self, request: web.Request) -> web.StreamResponse:
        """POST /humanaudio: a sound file to be said."""
        async with self._sounds.receive(request) as form:
            return await _send(request, self._client(form.sessionid), form)

    @key_in_query
    async def film(self, request: web.Request) -> web.StreamResponse:
        """GET /record/{sessionid}, also with .mp4: the workers share the folder of films."""
        return await forward(request, self._fleet.any().client)

    async def _to_its_worker(self, request: web.Request) -> web.StreamResponse:
        body = await read_limited(request, JSON_LIMIT)
        headers = {"Content-Type": request.headers.get("Content-Type", "application/json")}
        try:
            number = OfSession.model_validate_json(body).sessionid
        except ValidationError:
            client = self._fleet.any().client  # which says what is wrong with the body
        else:
            client = self._client(number)
        return await _ask(request, client, headers, body)

    def _client(self, number: int) -> WorkerClient:
        """The way to the worker that gave this number. Raises SessionNotFound."""
        try:
            return self._fleet.get(worker_of_number(number)).client
        except SessionNotFound as error:
            raise _unknown_number() from error


async def _send(request: web.Request, client: WorkerClient, form: SoundForm) -> web.Response:
    data = aiohttp.FormData({"sessionid": str(form.sessionid)})
    with form.file.open("rb") as sound:  # aiohttp reads it on a thread
        data.add_field("file", sound, filename="sound")
        return await _ask(request, client, {}, data)


async def _ask(request: web.Request, client: WorkerClient, headers: Mapping[str, str], body: bytes | aiohttp.FormData) -> web.Response:
    try:
        return whole(await client.ask("POST", request.rel_url.raw_path, headers=headers, body=body))
    except WorkerGone as error:
        raise _unknown_number() from error


def _unknown_number() -> SessionNotFound:
    return SessionNotFound("There is no session with this sessionid.", advice="Connect again: POST /offer gives a new one.")
