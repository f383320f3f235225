"""/api/avatar: avatars as the Avatar Service names them. They live in the lip-sync service; nothing is kept here."""

from __future__ import annotations

import asyncio

from aiohttp import web
from aiohttp.typedefs import Handler

from gpuserver.config import Settings
from gpuserver.errors import InvalidAvatarId, InvalidInput
from gpuserver.gateway.create_form import CreateForm
from gpuserver.gateway.lipsync_service import LipSyncService
from gpuserver.gateway.service_states import state_of
from gpuserver.gateway.text_form import read_text_form
from gpuserver.gateway.wire import AvatarHealth, AvatarMade, AvatarsByName, Done, ListedAvatar
from gpuserver.web.answers import json_answer
from gpuserver.web.body import query_flag
from gpuserver.web.interim import while_client_awaits, while_client_stays
from gpuserver.web.keys import key_in_query, needs_key, public
from gpuserver.web.passing_on import pass_on
from gpuserver.web.rate_limit import uncounted
from gpuserver.wire import AvatarCreated, AvatarInfo, AvatarList, check_avatar_id

SPEECH_URL = "http://localhost:8604"  # where TTS_SERVICE_URL is not set


def add_avatar_routes(app: web.Application, settings: Settings, service: LipSyncService) -> Handler:
    """Serve /api/avatar… but for the WebRTC proxy from `app`; gives the handler of /api/avatar/health."""
    routes = AvatarRoutes(settings, service)
    app.router.add_get("/api/avatar/list", routes.list)
    app.router.add_post("/api/avatar/create", routes.create)
    app.router.add_post("/api/avatar/start", routes.start)
    app.router.add_get("/api/avatar/preview/{name}", routes.preview)
    app.router.add_delete("/api/avatar/delete", routes.delete)
    app.router.add_get("/api/avatar/health", routes.health)
    return routes.health


class AvatarRoutes:
    def __init__(self, settings: Settings, service: LipSyncService):
        self._settings = settings
        self._service = service

    @needs_key
    async def list(self, request: web.Request) -> web.Response:
        """GET /api/avatar/list: all avatars, by name."""
        answer = await while_client_stays(request, self._service.ask("GET", "/v1/avatars", query={"detail": "true"}))
        if not answer.ok:
            return answer.refusal()
        infos = AvatarList.model_validate_json(answer.body).avatars
        return json_answer(AvatarsByName({info.avatar_id: _listed(info) for info in infos if isinstance(info, AvatarInfo)}))

    @needs_key
    async def create(self, request: web.Request) -> web.Response:
        """POST /api/avatar/create: from a video or picture in the form; ?replace=true swaps an avatar that has this name."""
        replace = query_flag(request, "replace")
        form = CreateForm(request, self._settings.max_upload_mb * 1024**2)
        return await while_client_awaits(request, self._create(form, replace=replace))

    async def _create(self, form: CreateForm, *, replace: bool) -> web.Response:
        query = {"replace": "true"} if replace else {}
        try:
            answer = await self._service.ask(
                "POST", "/v1/avatars/upload", query=query, headers={"Content-Type": form.content_type}, body=form.body()
            )
        finally:
            if form.failure is not None:
                raise form.failure
        if not answer.ok:
            return answer.refusal()
        created = AvatarCreated.model_validate_json(answer.body)
        asked = form.fields.get("avatar_model") or created.engine
        made = AvatarMade(
            message=_message(created, asked, wants_clone=form.wants_clone),
            avatar_id=created.avatar_id,
            image_path=_image_path(created.avatar_id),
            avatar_model=asked,
            engine=created.engine,
        )
        return json_answer(made)

    @needs_key
    async def start(self, request: web.Request) -> web.Response:
        """POST /api/avatar/start: the lip-sync service loads the avatar, so that the next session need not wait for the disk."""
        name = await _name_of(request)
        answer = await while_client_awaits(request, self._service.ask("POST", f"/v1/avatars/{name}/preload"))
        return json_answer(Done(message=f"Avatar {name} is loaded")) if answer.ok else answer.refusal()

    @key_in_query
    @uncounted
    async def preview(self, request: web.Request) -> web.StreamResponse:
        """GET /api/avatar/preview/{name}: a JPEG."""
        name = _checked("name", request.match_info["name"])
        kept = {header: request.headers[header] for header in ("If-None-Match", "If-Modified-Since") if header in request.headers}

        async def show() -> web.StreamResponse:
            async with self._service.open("GET", f"/v1/avatars/{name}/preview", headers=kept) as answer:
                return await pass_on(request, answer)

        return await while_client_stays(request, show())

    @needs_key
    async def delete(self, request: web.Request) -> web.Response:
        """DELETE /api/avatar/delete: name as avatar_name or name; ?force=true ends the sessions that show it."""
        query = {"force": "true"} if query_flag(request, "force") else {}
        name = await _name_of(request)
        answer = await while_client_stays(request, self._service.ask("DELETE", f"/v1/avatars/{name}", query=query))
        return json_answer(Done(message=f"Avatar {name} is deleted")) if answer.ok else answer.refusal()

    @public
    async def health(self, _request: web.Request) -> web.Response:
        """GET /api/avatar/health, and /health of the gateway alone: 503 while the lip-sync service does not answer."""
        lipsync, tts = await asyncio.gather(
            state_of(self._settings.lipsync_url, "health"), state_of(self._settings.tts_service_url or SPEECH_URL, "tts/models")
        )
        healthy = lipsync.status == "connected"
        health = AvatarHealth(status="healthy" if healthy else "unhealthy", lipsync=lipsync, tts=tts)
        return json_answer(health, status=200 if healthy else 503)


async def _name_of(request: web.Request) -> str:
    """The avatar that a small form names. Raises InvalidInput, InvalidAvatarId."""
    fields = await read_text_form(request)
    for field in ("avatar_name", "name"):
        if field in fields:
            return _checked(field, fields[field])
    raise InvalidInput("avatar_name: is missing.", advice="Send the avatar's name as the form field avatar_name.")


def _checked(field: str, text: str) -> str:
    try:
        return check_avatar_id(text)
    except ValueError as error:
        raise InvalidAvatarId(f"{field}: {error}.") from error


def _image_path(name: str) -> str:
    return f"/api/avatar/preview/{name}"


def _listed(info: AvatarInfo) -> ListedAvatar:
    return ListedAvatar(
        description=info.description,
        timbre=info.timbre,
        tts_model=info.tts_model,
        avatar_model=info.avatar_model or info.engine,
        engine=info.engine,
        image_path=_image_path(info.avatar_id),
    )


def _message(created: AvatarCreated, asked: str, *, wants_clone: bool) -> str:
    """What was done, and what was not done although it was asked for."""
    sentences = [f"{created.message}."]
    if asked.lower() != created.engine:
        sentences.append(f"Its lips are drawn by the engine {created.engine}, not by {asked}.")
    if wants_clone:
        sentences.append("No voice is cloned here: the voice sample is not used and was not kept.")
    return " ".join(sentences)
