"""All sessions of this process: a fixed number of slots, each taken before the first await."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Protocol

import structlog

from gpuserver.config import Settings
from gpuserver.domain import Avatar, Stage
from gpuserver.errors import Full, SessionNotFound, Unavailable
from gpuserver.musetalk.rendering.admission import Admission
from gpuserver.pipeline.session import Session, SessionSettings
from gpuserver.pipeline.studio import Studio
from gpuserver.wire import CreateSession

log = structlog.get_logger(__name__)

RETRY_AFTER_SECONDS = 10

Ids = list[str]
Sessions = list[Session]


class AvatarChooser(Protocol):
    """musetalk.avatar_manager.AvatarManager, as far as sessions need it. Called in worker threads."""

    def choose(self, avatar_id: str | None, tutor_id: str) -> str:
        """The avatar that the session shows. Raises AvatarNotFound."""
        ...

    def touch(self, avatar_id: str) -> None:
        """Note that the avatar is in use now."""
        ...


class AvatarLoader(Protocol):
    """musetalk.avatar_cache.AvatarCache, as far as sessions need it. Called in worker threads."""

    def get(self, avatar_id: str) -> Avatar: ...


class SessionRegistry:
    """Creates, finds and ends sessions. make_stage: where a session's frames go, the playout of the media server."""

    def __init__(
        self,
        settings: Settings,
        studio: Studio,
        avatars: AvatarChooser,
        loader: AvatarLoader,
        make_stage: Callable[[Avatar], Stage],
        *,
        admission: Admission | None = None,
    ):
        self._settings = settings
        self._studio = studio
        self._avatars = avatars
        self._loader = loader
        self._make_stage = make_stage
        self._admission = admission
        self._sessions: dict[str, Session] = {}
        self._being_made = 0
        self._endings: set[asyncio.Task[None]] = set()
        self._closed = False
        self.created = 0  # since the process began …
        self.ended: Counter[str] = Counter()  # … by reason
        studio.standing.listen(self._tell_standing)

    async def create(self, request: CreateSession, *, session_id: str | None = None) -> Session:
        """A new session. Raises Full, AvatarNotFound, AvatarDamaged; whatever fails, the slot is free again.

        session_id: the one that a router has given it, else a new one.
        """
        if self._closed:
            raise Unavailable("The server is shutting down.")
        self._check_room()
        self._being_made += 1
        self._note_sessions()
        try:
            avatar = await asyncio.to_thread(self._load, request)
            if self._closed:
                raise Unavailable("The server is shutting down.")
            stage = self._make_stage(avatar)
            session = Session(
                request, avatar, stage, self._studio, self._settings_for(request), on_idle=self._end_idle, session_id=session_id
            )
            self._sessions[session.session_id] = session
        finally:
            self._being_made -= 1
            self._note_sessions()
        self.created += 1
        log.info("session_created", session_id=session.session_id, avatar_id=session.avatar_id)
        return session

    @property
    def taken(self) -> int:
        """Slots in use, by sessions and by those that are being made."""
        return len(self._sessions) + self._being_made

    def get(self, session_id: str) -> Session:
        """Raises SessionNotFound."""
        try:
            return self._sessions[session_id]
        except KeyError:
            raise SessionNotFound("There is no session with this id.") from None

    def list(self) -> Sessions:
        """All sessions, the oldest first."""
        return list(self._sessions.values())

    def showing(self, avatar_id: str) -> Ids:
        """The ids of the sessions that show the avatar."""
        return [session.session_id for session in self._sessions.values() if session.avatar_id == avatar_id]

    async def delete(self, session_id: str, reason: str = "deleted") -> None:
        """End a session, to the end also if the caller is cancelled. Raises SessionNotFound."""
        await asyncio.shield(self._end(self.get(session_id), reason))

    async def aclose(self) -> None:
        """End all sessions; no new ones are made."""
        self._closed = True
        for session in self.list():
            self._end(session, "shutdown")
        await asyncio.gather(*self._endings)

    def _check_room(self) -> None:
        """Raises Full."""
        if self.taken >= self._settings.max_sessions:
            raise Full(f"All {self._settings.max_sessions} session slots are taken.", retry_after=RETRY_AFTER_SECONDS)
        self._note_sessions()
        most = None if self._admission is None else self._admission.most_sessions()
        if most is not None and self.taken >= most:
            raise Full(
                f"The lips of {most} sessions are as many as can be drawn here in time, and {self.taken} are there.",
                advice="Wait for a session to end, or give the server more to draw with: CPU cores, or for MuseTalk GPUs.",
                retry_after=RETRY_AFTER_SECONDS,
            )

    def _note_sessions(self) -> None:
        if self._admission is not None:
            self._admission.note(time.monotonic(), self.taken)

    def _tell_standing(self) -> None:
        for session in self._sessions.values():
            session.tell_standing()

    def _load(self, request: CreateSession) -> Avatar:
        avatar_id = self._avatars.choose(request.avatar_id, request.tutor_id)
        avatar = self._loader.get(avatar_id)
        self._avatars.touch(avatar_id)
        return avatar

    def _settings_for(self, request: CreateSession) -> SessionSettings:
        model = self._settings.tutor_models.get(request.tutor_id)
        return SessionSettings(model, self._settings.session_timeout_seconds)

    def _end_idle(self, session: Session) -> None:
        if session.session_id in self._sessions:
            self._end(session, "idle")

    def _end(self, session: Session, reason: str) -> asyncio.Task[None]:
        """Free its slot at once; the rest takes its time, in a task of its own."""
        del self._sessions[session.session_id]
        self.ended[reason] += 1
        self._note_sessions()
        ending = asyncio.get_running_loop().create_task(self._close(session, reason), name=f"end of session {session.session_id}")
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)
        return ending

    @staticmethod
    async def _close(session: Session, reason: str) -> None:
        await session.aclose(reason)
        log.info("session_ended", session_id=session.session_id, reason=reason)
