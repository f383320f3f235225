"""LiveTalking's HTTP API, so that its web clients work unchanged. https://github.com/lipku/LiveTalking

Every answer has the status 200; its clients look at `code`: 0, or -1 with a `msg`. A session ends when its peer goes.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web

from gpuserver.errors import AvatarNotFound
from gpuserver.media.access import given_id
from gpuserver.media.audio_upload import TITLE, AudioUploads
from gpuserver.media.recorder import Recorder
from gpuserver.media.session_numbers import SessionNumbers
from gpuserver.media.watched_sessions import WatchedSessions
from gpuserver.player_wire import (
    Human,
    LiveTalkingAnswer,
    LiveTalkingOffer,
    OfSession,
    Outcome,
    Record,
    SetAudiotype,
)
from gpuserver.web.body import read_body
from gpuserver.web.keys import key_in_query
from gpuserver.web.outcomes import in_their_words, outcome
from gpuserver.web.rate_limit import uncounted
from gpuserver.web.sound_form import SoundForms, session_number
from gpuserver.wire import AvatarInfo, CreateSession, Offer

CLIENT = "livetalking"  # tutor_id and student_id of its sessions
ONE_LOOP = "Avatars here have one idle loop; the number changes nothing."


class AvatarCollection(Protocol):
    """musetalk.avatar_manager.AvatarManager, as far as these routes need it. Called in worker threads."""

    def infos(self) -> list[AvatarInfo]:
        """All avatars."""
        ...


@dataclass(frozen=True, slots=True)
class LiveTalkingParts:
    """What the routes stand on; started and closed by whoever puts them together."""

    sessions: WatchedSessions
    numbers: SessionNumbers
    uploads: AudioUploads
    recorder: Recorder
    avatars: AvatarCollection


def add_livetalking_routes(app: web.Application, parts: LiveTalkingParts) -> None:
    """Serve the API from `app`."""
    routes = LiveTalkingRoutes(parts)
    for name in ("offer", "human", "humanaudio", "interrupt_talk", "is_speaking", "record", "set_audiotype"):
        app.router.add_post(f"/{name}", getattr(routes, name))
    for suffix in ("", ".mp4"):
        app.router.add_get(r"/record/{sessionid:\d{1,16}}" + suffix, routes.film)


class LiveTalkingRoutes:
    """One method per call; see docs/livetalking.md."""

    def __init__(self, parts: LiveTalkingParts):
        self._parts = parts
        self._sounds = SoundForms()

    @key_in_query
    @in_their_words
    async def offer(self, request: web.Request) -> web.StreamResponse:
        """POST /offer: a new session with its peer."""
        body = await read_body(request, LiveTalkingOffer)
        avatar_id = body.avatar or await self._newest_avatar()
        wanted = CreateSession(tutor_id=CLIENT, student_id=CLIENT, avatar_id=avatar_id, voice=body.refaudio)
        session, answer = await self._parts.sessions.open(wanted, Offer(sdp=body.sdp, type=body.type), session_id=given_id(request))
        return outcome(LiveTalkingAnswer(sdp=answer.sdp, sessionid=self._parts.numbers.give(session)))

    @key_in_query
    @in_their_words
    async def human(self, request: web.Request) -> web.StreamResponse:
        """POST /human: a text to be said, or a question to be answered."""
        body = await read_body(request, Human)
        session = self._parts.numbers.find(body.sessionid)
        speak = session.say if body.type == "echo" else session.ask
        await speak(body.text, queue=not body.interrupt)
        return outcome(Outcome())

    @key_in_query
    @in_their_words
    async def humanaudio(self, request: web.Request) -> web.StreamResponse:
        """POST /humanaudio: a sound file to be said after what is being said."""
        async with self._sounds.receive(request) as form:
            session = self._parts.numbers.find(form.sessionid)
            sound = await self._parts.uploads.decode(form.file)
        await session.play(sound, TITLE, queue=True)
        return outcome(Outcome())

    @key_in_query
    @in_their_words
    async def interrupt_talk(self, request: web.Request) -> web.StreamResponse:
        """POST /interrupt_talk: silence now."""
        await self._parts.numbers.find((await read_body(request, OfSession)).sessionid).interrupt()
        return outcome(Outcome())

    @uncounted
    @key_in_query
    @in_their_words
    async def is_speaking(self, request: web.Request) -> web.StreamResponse:
        """POST /is_speaking: whether something is being said or thought of, as `data`."""
        session = self._parts.numbers.find((await read_body(request, OfSession)).sessionid)
        return outcome(Outcome(data=session.speaking))

    @key_in_query
    @in_their_words
    async def record(self, request: web.Request) -> web.StreamResponse:
        """POST /record: begin, or end and have the film at data.url."""
        body = await read_body(request, Record)
        session = self._parts.numbers.find(body.sessionid)
        if body.type == "start_record":
            await self._parts.recorder.start(session, str(body.sessionid))
            return outcome(Outcome())
        film = await self._parts.recorder.stop(session)
        data = {"url": f"/record/{film.path.name}", "seconds": round(film.seconds, 2), "cut_short": film.cut_short}
        return outcome(Outcome(data=data))

    @key_in_query
    async def film(self, request: web.Request) -> web.StreamResponse:
        """GET /record/{sessionid}, also with .mp4: the session's last film; errors are problem+json here."""
        number = session_number(request.match_info["sessionid"])
        return web.FileResponse(self._parts.recorder.film(str(number)), headers={"Content-Type": "video/mp4"})

    @key_in_query
    @in_their_words
    async def set_audiotype(self, request: web.Request) -> web.StreamResponse:
        """POST /set_audiotype: accepted, without effect."""
        self._parts.numbers.find((await read_body(request, SetAudiotype)).sessionid)
        return outcome(Outcome(data=ONE_LOOP))

    async def _newest_avatar(self) -> str:
        infos = await asyncio.to_thread(self._parts.avatars.infos)
        if not infos:
            raise AvatarNotFound("There is no avatar yet.", advice="Create one first: POST /v1/avatars/upload.")
        return max(infos, key=lambda info: info.created_at).avatar_id
