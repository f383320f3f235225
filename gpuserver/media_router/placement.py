"""Where a new session goes: to the worker with the fewest, as long as all together have fewer than MAX_SESSIONS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog
from aiohttp import web

from gpuserver.errors import Full, SessionNotFound, Unavailable
from gpuserver.media_router.fleet import Fleet, Worker
from gpuserver.media_router.worker_client import RETRY_AFTER_SECONDS, WorkerAnswer, WorkerGone
from gpuserver.messages import AVATAR_DELETED
from gpuserver.session_names import NAME_HEADER, new_session_id
from gpuserver.wire import SessionInfo, SessionList

FULL_RETRY_SECONDS = 10
COUNT_SECONDS = 2.0  # for a worker to list its sessions
SILENT_COUNT_SECONDS = 0.5  # for one that did not do so the last time, where a new session waits for it

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """A session's worker and name, before it exists."""

    worker: Worker
    session_id: str


class Placement:
    """Counts and places the sessions of all workers. Implements web.avatar_routes.AvatarUsers."""

    def __init__(self, fleet: Fleet, most_sessions: int):
        self._fleet = fleet
        self._most = most_sessions
        self._counting = asyncio.Lock()
        self._silent: set[int] = set()  # numbers of workers that did not list their sessions in time
        self._on_their_way: dict[str, int] = {}  # names that have been given out, and the workers that are making these sessions

    async def create(self, request: web.Request, body: bytes) -> WorkerAnswer:
        """Let a worker answer the call, which makes a session; another one, where it ends meanwhile. Raises Full, Unavailable."""
        gone: set[int] = set()
        while True:
            async with self._reserve(gone) as place:
                headers = {"Content-Type": request.content_type, NAME_HEADER: place.session_id}
                try:
                    return await place.worker.client.ask(request.method, request.rel_url.raw_path, headers=headers, body=body)
                except WorkerGone:
                    log.warning("worker_gone", worker=place.worker.number)
                    gone.add(place.worker.number)

    async def sessions(self) -> list[SessionInfo]:
        """Of all workers, the oldest first. Raises Unavailable where one that runs cannot be asked."""
        listed = await self._listed(patient=True)
        silent = [worker.number for worker in self._fleet.serving if worker.number not in listed]
        if silent:
            raise Unavailable(f"Media worker {silent[0]} does not list its sessions.", retry_after=RETRY_AFTER_SECONDS)
        return sorted((info for infos in listed.values() for info in infos), key=lambda info: info.created_at)

    async def showing(self, avatar_id: str) -> list[str]:
        """Ids of the sessions that show the avatar."""
        return [info.session_id for info in await self.sessions() if info.avatar_id == avatar_id]

    async def end(self, session_ids: list[str]) -> None:
        """End these sessions, for their avatar is deleted."""
        for session_id in session_ids:
            try:
                client = self._fleet.of_session(session_id).client
                await client.ask("DELETE", f"/v1/sessions/{session_id}", query={"reason": AVATAR_DELETED})
            except (SessionNotFound, WorkerGone):
                log.info("session_ended_by_itself", session_id=session_id)

    @asynccontextmanager
    async def _reserve(self, without: set[int]) -> AsyncIterator[Place]:
        """A place that counts until its session does. One at a time: a session that is being made is counted once, by its name."""
        async with self._counting:
            names = await self._names()
            taken = sum(len(each) for each in names.values())
            if taken >= self._most:
                raise Full(f"All {self._most} session slots are taken.", retry_after=FULL_RETRY_SECONDS)
            open_to = [worker for worker in self._fleet.serving if worker.number in names and worker.number not in without]
            if not open_to:
                raise Unavailable("No media worker serves at this moment.", retry_after=RETRY_AFTER_SECONDS)
            worker = min(open_to, key=lambda each: len(names[each.number]))
            place = Place(worker, new_session_id(worker.number))
            self._on_their_way[place.session_id] = worker.number
        try:
            yield place
        finally:
            del self._on_their_way[place.session_id]

    async def _names(self) -> Mapping[int, set[str]]:
        """By worker, the sessions that are there or on their way. Nothing is reserved meanwhile."""
        before = dict(self._on_their_way)
        listed = await self._listed(patient=False)
        names = {number: {info.session_id for info in infos} for number, infos in listed.items()}
        for session_id, number in before.items():
            if number in names:
                names[number].add(session_id)
        return names

    async def _listed(self, *, patient: bool) -> dict[int, list[SessionInfo]]:
        """Those of each worker that answers."""
        serving = self._fleet.serving
        answers = await asyncio.gather(*(self._list(worker, patient=patient) for worker in serving))
        return {worker.number: infos for worker, infos in zip(serving, answers, strict=True) if infos is not None}

    async def _list(self, worker: Worker, *, patient: bool) -> list[SessionInfo] | None:
        """The worker's sessions; none where it has ended, None where it does not say."""
        try:
            async with asyncio.timeout(COUNT_SECONDS if patient or worker.number not in self._silent else SILENT_COUNT_SECONDS):
                answer = await worker.client.ask("GET", "/v1/sessions")
        except WorkerGone:
            return []
        except (TimeoutError, Unavailable):
            log.warning("worker_silent", worker=worker.number)
            self._silent.add(worker.number)
            return None
        self._silent.discard(worker.number)
        return SessionList.model_validate_json(answer.body).sessions if answer.status == 200 else None
