"""/v1/avatars: create, upload, list, show, preview and delete avatars. The same code in both processes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Protocol

from aiohttp import web
from pydantic import ValidationError

from gpuserver.errors import AvatarInUse, InvalidAvatarId, InvalidInput, TooManyJobs
from gpuserver.musetalk.avatar_manager import AvatarManager
from gpuserver.musetalk.avatars.disk_room import DiskRoom
from gpuserver.musetalk.preparing.preparation_job import Analysed, Progress
from gpuserver.web.answers import json_answer
from gpuserver.web.body import log_unknown_fields, parse_flag, query_flag, read_body
from gpuserver.web.bounded_pool import RETRY_AFTER_SECONDS, BoundedPool
from gpuserver.web.interim import while_client_waits
from gpuserver.web.job_routes import accepted, add_job_routes, wants_job
from gpuserver.web.jobs import Jobs
from gpuserver.web.keys import key_in_query, needs_key
from gpuserver.web.metrics import watch_queue
from gpuserver.web.places import Places
from gpuserver.web.problem import invalid_input
from gpuserver.web.rate_limit import uncounted
from gpuserver.web.uploads import Form, receive_form
from gpuserver.wire import AvatarCreated, AvatarList, AvatarProfile, CreateAvatar, check_avatar_id

PREPARATIONS_AT_ONCE = 2  # each one is a child process that keeps a core busy
MOST_UPLOADS = 16  # on their way, or waiting with their clients until they are prepared
MOST_FILMS_QUEUED = 8  # a film takes seconds, and most clients can do without one
FILE_FIELD = "video_file"
PROFILE = set(AvatarProfile.model_fields)


class AvatarUsers(Protocol):
    """Knows which sessions show an avatar, and can end them."""

    async def showing(self, avatar_id: str) -> list[str]:
        """Ids of the sessions that show the avatar."""
        ...

    async def end(self, session_ids: list[str]) -> None:
        """End these sessions; one that is already gone is no error."""
        ...


def add_avatar_routes(app: web.Application, manager: AvatarManager, users: AvatarUsers, *, max_upload_mb: int) -> None:
    """Serve /v1/avatars… and /v1/jobs… from `app`. The manager must be started before the first request."""
    preparations = BoundedPool(PREPARATIONS_AT_ONCE, "preparation")
    # A film does not wait behind a queue of preparations.
    films = BoundedPool(1, "film", most_queued=MOST_FILMS_QUEUED, products="films")
    jobs = Jobs(preparations)

    async def run(_app: web.Application) -> AsyncIterator[None]:
        yield
        await jobs.aclose()
        for pool in (preparations, films):
            pool.shutdown(wait=False, cancel_futures=True)

    async def end_jobs(_app: web.Application) -> None:
        """While the sockets are still open: who follows a job learns of its end."""
        await jobs.aclose()

    app.cleanup_ctx.append(run)
    app.on_shutdown.append(end_jobs)
    watch_queue(app, "preparations", lambda: preparations.unfinished)
    watch_queue(app, "films", lambda: films.unfinished)
    add_job_routes(app, jobs)
    routes = AvatarRoutes(manager, users, jobs, preparations, films, max_upload_bytes=max_upload_mb * 1024**2)
    app.router.add_post("/v1/avatars", routes.create)
    app.router.add_post("/v1/avatars/upload", routes.upload)
    app.router.add_get("/v1/avatars", routes.list)
    app.router.add_get("/v1/avatars/{avatar_id}", routes.show)
    app.router.add_get("/v1/avatars/{avatar_id}/preview", routes.preview)
    app.router.add_get("/v1/avatars/{avatar_id}/idle.mp4", routes.film)
    app.router.add_delete("/v1/avatars/{avatar_id}", routes.delete)


class AvatarRoutes:
    def __init__(
        self,
        manager: AvatarManager,
        users: AvatarUsers,
        jobs: Jobs,
        preparations: BoundedPool,
        films: BoundedPool,
        *,
        max_upload_bytes: int,
    ):
        self._manager = manager
        self._users = users
        self._jobs = jobs
        self._preparations = preparations
        self._films = films
        self._max_upload_bytes = max_upload_bytes
        self._uploads = Places(MOST_UPLOADS, _too_many_uploads)

    @needs_key
    async def create(self, request: web.Request) -> web.Response:
        """POST /v1/avatars: from a video or picture on this machine."""
        self._preparations.check_room()  # before the body is received
        replace = query_flag(request, "replace")
        body = await read_body(request, CreateAvatar)

        def make(cancel: threading.Event, progress: Progress | None = None, analysed: Analysed | None = None) -> AvatarCreated:
            return self._manager.create(body, replace=replace, progress=progress, analysed=analysed, cancel=cancel)

        if wants_job(request):
            await asyncio.to_thread(self._manager.check, body, replace=replace)
            return accepted(self._jobs.start(body.avatar_id, lambda job: make(job.cancel, job.progress, job.analysed)))
        return _created(await while_client_waits(request, self._preparations, make))

    @needs_key
    async def upload(self, request: web.Request) -> web.Response:
        """POST /v1/avatars/upload: from a video or picture in the request."""
        replace = query_flag(request, "replace")
        self._preparations.check_room()
        await asyncio.to_thread(self._manager.check_room, request.content_length or 0, replace=replace)
        with self._uploads.one():
            return await self._receive(request, replace=replace)

    async def _receive(self, request: web.Request, *, replace: bool) -> web.Response:
        folder, limit = self._manager.uploads_dir, self._max_upload_bytes

        async def check(name: str, text: str) -> None:
            if name == "avatar_id":  # if it comes before the file, the file need not be received in vain
                await asyncio.to_thread(self._manager.check_new, _checked_id(text), replace=replace)

        async with receive_form(request, file_field=FILE_FIELD, folder=folder, limit=limit, check=check, room=DiskRoom(folder)) as form:
            body, video = _parse_upload(request, form)

            def make(cancel: threading.Event, progress: Progress | None = None, analysed: Analysed | None = None) -> AvatarCreated:
                return self._manager.create_from_file(
                    body.avatar_id,
                    video,
                    apply_blur=body.apply_blur,
                    tutor_id=body.tutor_id,
                    profile=AvatarProfile.model_validate(body.model_dump(include=PROFILE)),
                    replace=replace,
                    progress=progress,
                    analysed=analysed,
                    cancel=cancel,
                )

            if not wants_job(request):
                return _created(await while_client_waits(request, self._preparations, make))
            await asyncio.to_thread(self._manager.check_new, body.avatar_id, replace=replace)
            self._preparations.check_room()  # from here on nothing may fail: the file is the job's
            video = form.take()
            remove = partial(video.unlink, missing_ok=True)
            return accepted(self._jobs.start(body.avatar_id, lambda job: make(job.cancel, job.progress, job.analysed), cleanup=remove))

    @needs_key
    async def list(self, request: web.Request) -> web.Response:
        """GET /v1/avatars: the ids; with ?detail=true all that is known."""
        if query_flag(request, "detail"):
            infos = await asyncio.to_thread(self._manager.infos)
            return json_answer(AvatarList(total=len(infos), avatars=infos))
        ids = await asyncio.to_thread(self._manager.ids)
        return json_answer(AvatarList(total=len(ids), avatars=ids))

    @needs_key
    async def show(self, request: web.Request) -> web.Response:
        """GET /v1/avatars/{avatar_id}."""
        return json_answer(await asyncio.to_thread(self._manager.info, _avatar_id(request)))

    @uncounted
    @key_in_query
    async def preview(self, request: web.Request) -> web.FileResponse:
        """GET /v1/avatars/{avatar_id}/preview: a JPEG."""
        path = await asyncio.to_thread(self._manager.preview, _avatar_id(request))
        # The same id may show another face after ?replace=true: the browser asks again, a 304 is cheap.
        return web.FileResponse(path, headers={"Content-Type": "image/jpeg", "Cache-Control": "no-cache"})

    @uncounted
    @key_in_query
    async def film(self, request: web.Request) -> web.FileResponse:
        """GET /v1/avatars/{avatar_id}/idle.mp4: the idle loop, forth and back; made when it is first asked for. Ranges are served."""
        avatar_id = _avatar_id(request)
        path = await asyncio.to_thread(self._manager.made_film, avatar_id)
        if path is None:
            path = await while_client_waits(request, self._films, lambda cancel: self._manager.film(avatar_id, cancel))
        return web.FileResponse(path, headers={"Content-Type": "video/mp4", "Cache-Control": "no-cache"})

    @needs_key
    async def delete(self, request: web.Request) -> web.Response:
        """DELETE /v1/avatars/{avatar_id}; ?force=true ends the sessions that show it."""
        avatar_id = _avatar_id(request)
        force = query_flag(request, "force")
        await asyncio.to_thread(self._manager.folder, avatar_id)  # AvatarNotFound comes before AvatarInUse
        session_ids = await self._users.showing(avatar_id)
        if session_ids and not force:
            raise AvatarInUse(f"{len(session_ids)} session(s) show {avatar_id}.", extra={"sessions": session_ids})
        if session_ids:
            await self._users.end(session_ids)
        await asyncio.to_thread(self._manager.delete, avatar_id)
        return web.Response(status=204)


def _too_many_uploads() -> TooManyJobs:
    return TooManyJobs(f"{MOST_UPLOADS} uploads are on their way.", retry_after=RETRY_AFTER_SECONDS)


def _avatar_id(request: web.Request) -> str:
    return _checked_id(request.match_info["avatar_id"])


def _checked_id(text: str) -> str:
    try:
        return check_avatar_id(text)
    except ValueError as error:
        raise InvalidAvatarId(f"avatar_id: {error}.") from error


class _UploadFields(CreateAvatar):
    """The text fields of an upload: those of CreateAvatar, with the file in the place of video_path."""

    video_path: str = ""


def _parse_upload(request: web.Request, form: Form) -> tuple[CreateAvatar, Path]:
    if form.file is None:
        raise InvalidInput(f"{FILE_FIELD}: the form has no such file.", advice=f"Send the video as the form field {FILE_FIELD}.")
    known = {"avatar_id", "apply_blur", "tutor_id", *PROFILE}
    log_unknown_fields(request, set(form.fields) - known)
    values: dict[str, object] = {name: form.fields[name] for name in known & set(form.fields)}
    values["apply_blur"] = parse_flag("apply_blur", form.fields.get("apply_blur", ""))
    if not values.get("tutor_id"):
        values["tutor_id"] = None  # an HTML form sends an empty field for "none"
    try:
        return _UploadFields.model_validate(values), form.file
    except ValidationError as error:
        raise invalid_input(error) from error


def _created(created: AvatarCreated) -> web.Response:
    return json_answer(created, status=201, headers={"Location": f"/v1/avatars/{created.avatar_id}"})
