"""WHEP: an avatar's picture and sound for players such as GStreamer's whepsrc, by one HTTP call with SDP in and out.

https://datatracker.ietf.org/doc/draft-ietf-wish-whep/

A session lives as long as its player. Its address, unknown to anybody else, lets the player trickle and end it; with an API key, a
back-end lets it speak there.
"""

from __future__ import annotations

from aiohttp import web

from gpuserver.config import Settings
from gpuserver.errors import InvalidSdp, PreconditionFailed, SessionNotFound, Unprocessable, UnsupportedMediaType
from gpuserver.media.access import given_id
from gpuserver.media.peers import Peers
from gpuserver.media.sdp import read_offer
from gpuserver.media.sdp_fragment import read_fragment
from gpuserver.media.watched_sessions import WatchedSessions
from gpuserver.pipeline.session import Session
from gpuserver.pipeline.sessions import SessionRegistry
from gpuserver.player_wire import Accepted, Spoken
from gpuserver.web.answers import json_answer
from gpuserver.web.body import SDP_LIMIT, read_body, read_limited
from gpuserver.web.keys import key_in_query, takes_engine_token
from gpuserver.web.webrtc_config import webrtc_config
from gpuserver.wire import CreateSession, IceServer, Offer

SDP = "application/sdp"
FRAGMENT = "application/trickle-ice-sdpfrag"
CLIENT = "whep"  # tutor_id and student_id of its sessions


def add_whep_routes(app: web.Application, sessions: WatchedSessions, registry: SessionRegistry, peers: Peers, settings: Settings) -> None:
    """Serve WHEP from `app`."""
    routes = WhepRoutes(sessions, registry, peers, settings)
    app.router.add_post("/whep/{avatar_id:[A-Za-z0-9_-]{1,64}}", routes.play)
    app.router.add_patch("/whep/sessions/{session_id}", routes.trickle)
    app.router.add_delete("/whep/sessions/{session_id}", routes.end)
    app.router.add_post("/whep/sessions/{session_id}/say", routes.say)
    app.router.add_post("/whep/sessions/{session_id}/ask", routes.ask)
    app.router.add_post("/whep/sessions/{session_id}/interrupt", routes.interrupt)


class WhepRoutes:
    """One method per call."""

    def __init__(self, sessions: WatchedSessions, registry: SessionRegistry, peers: Peers, settings: Settings):
        self._sessions = sessions
        self._registry = registry
        self._peers = peers
        self._settings = settings
        self._fragments: dict[str, str] = {}  # by session, the user name fragment of its player's ICE session

    @key_in_query
    async def play(self, request: web.Request) -> web.Response:
        """POST /whep/{avatar_id}: 201 with the answer; the session's address in Location. Raises InvalidSdp, Full, AvatarNotFound."""
        offer = Offer(sdp=await _text(request, SDP), type="offer")
        fragment = read_offer(offer).username_fragment
        wanted = CreateSession(tutor_id=CLIENT, student_id=CLIENT, avatar_id=request.match_info["avatar_id"])
        session, answer = await self._sessions.open(wanted, offer, session_id=given_id(request))
        self._forget_ended()
        self._fragments[session.session_id] = fragment
        response = web.Response(text=answer.sdp, status=201, content_type=SDP)
        response.headers["Location"] = f"/whep/sessions/{session.session_id}"
        response.headers["ETag"] = _etag(fragment)
        response.headers["Accept-Patch"] = FRAGMENT
        for server in webrtc_config(self._settings).iceServers:
            response.headers.add("Link", ice_server_link(server))
        return response

    @takes_engine_token
    async def trickle(self, request: web.Request) -> web.Response:
        """PATCH: candidates of the player. Raises PreconditionFailed, and Unprocessable for an ICE restart: connect anew for that."""
        session = self._find(request)
        playing = self._fragments[session.session_id]
        if request.headers.get("If-Match", "*") not in {"*", _etag(playing)}:
            raise PreconditionFailed("If-Match does not name the ICE session of this player.")
        fragment = read_fragment(await _text(request, FRAGMENT))
        if fragment.username_fragment not in {None, playing}:
            raise Unprocessable("ICE restarts are not supported.", advice="End the session and play again.")
        for candidate in fragment.candidates:
            await self._peers.add_candidate(session, candidate)
        return web.Response(status=204)

    @takes_engine_token
    async def end(self, request: web.Request) -> web.Response:
        """DELETE: the player goes."""
        await self._registry.delete(self._find(request).session_id)
        return web.Response(status=200)

    @key_in_query
    async def say(self, request: web.Request) -> web.Response:
        """POST …/say: a text to be said as it is."""
        session, body = self._find(request), await read_body(request, Spoken)
        return _accepted(await session.say(body.text, queue=body.queue))

    @key_in_query
    async def ask(self, request: web.Request) -> web.Response:
        """POST …/ask: a question for the language model."""
        session, body = self._find(request), await read_body(request, Spoken)
        return _accepted(await session.ask(body.text, queue=body.queue))

    @key_in_query
    async def interrupt(self, request: web.Request) -> web.Response:
        """POST …/interrupt: silence now."""
        await self._find(request).interrupt()
        return web.Response(status=204)

    def _find(self, request: web.Request) -> Session:
        """The session in the path, if a player has it. Raises SessionNotFound."""
        session_id = request.match_info["session_id"]
        if session_id not in self._fragments:
            raise SessionNotFound(
                "There is no player with this address.", advice="It has gone, or the media server was restarted; play again."
            )
        return self._registry.get(session_id)

    def _forget_ended(self) -> None:
        living = {session.session_id for session in self._registry.list()}
        self._fragments = {session_id: fragment for session_id, fragment in self._fragments.items() if session_id in living}


async def _text(request: web.Request, content_type: str) -> str:
    """The body, which has to be of this type. Raises UnsupportedMediaType, InvalidSdp, TooLarge."""
    if request.content_type != content_type:
        raise UnsupportedMediaType(f"The body is {request.content_type}, not {content_type}.", advice=f"Send it as {content_type}.")
    try:
        text = (await read_limited(request, SDP_LIMIT)).decode()
    except UnicodeDecodeError as error:
        raise InvalidSdp("The body is not UTF-8.") from error
    if not text:
        raise InvalidSdp("The body is empty.")
    return text


def ice_server_link(server: IceServer) -> str:
    """How WHEP tells a player of a STUN or TURN server (section 4.6 of the draft)."""
    parts = [f"<{server.urls[0]}>", 'rel="ice-server"']
    if server.username and server.credential:
        parts += [f'username="{server.username}"', f'credential="{server.credential}"', 'credential-type="password"']
    return "; ".join(parts)


def _etag(fragment: str) -> str:
    return f'"{fragment}"'


def _accepted(turn: int) -> web.Response:
    return json_answer(Accepted(turn=turn))
