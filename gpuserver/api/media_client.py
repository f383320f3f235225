"""The way to the media server: plain HTTP on this machine, with the internal secret."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from urllib.parse import quote

import aiohttp
from aiohttp import web
from yarl import URL

from gpuserver.config import Settings
from gpuserver.errors import SessionNotFound, Unauthorized, Unavailable
from gpuserver.messages import AVATAR_DELETED
from gpuserver.web.auth import INTERNAL_HEADER, internal_secret
from gpuserver.web.relay import MESSAGE_LIMIT
from gpuserver.wire import SessionList

REQUEST_SECONDS = 30.0
HEALTH_SECONDS = 2.0
RETRY_AFTER_SECONDS = 2  # a restart takes about this long
CLOSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class MediaAnswer:
    """What the media server answered, problem objects included."""

    status: int
    body: bytes
    content_type: str
    retry_after: str | None

    def response(self) -> web.Response:
        """The same answer for our own client."""
        headers = {} if self.retry_after is None else {"Retry-After": self.retry_after}
        content_type = None if self.status == 204 else self.content_type
        return web.Response(status=self.status, body=self.body, content_type=content_type, headers=headers)


class MediaClient:
    """Calls the media server. Implements AvatarUsers: sessions live there."""

    def __init__(self, settings: Settings):
        self._base = URL(settings.media_url)
        self._internal = {INTERNAL_HEADER: internal_secret(settings)}
        self._session: aiohttp.ClientSession | None = None

    async def run(self, _app: web.Application) -> AsyncIterator[None]:
        """The life of the client, as a cleanup_ctx."""
        # A kept connection that died with the media server would fail the next POST, which must not be sent twice.
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False) as self._session:
            yield

    async def send(
        self, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None, token: str | None = None
    ) -> MediaAnswer:
        """One request; with `token` for a browser that has sent it. Raises Unavailable."""
        all_headers = {"Content-Type": "application/json"} if body is not None else {}
        all_headers |= {**self._internal, **(headers or {})}
        if token is not None:
            all_headers["Authorization"] = f"Bearer {token}"
        try:
            async with self._http.request(method, self._base.join(URL(path, encoded=True)), data=body, headers=all_headers) as answer:
                return MediaAnswer(answer.status, await answer.read(), answer.content_type, answer.headers.get("Retry-After"))
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _down() from error

    async def health(self) -> dict[str, object] | None:
        """The media server's own /health; None if it does not answer in time."""
        try:
            async with self._http.get(self._base / "health", timeout=aiohttp.ClientTimeout(total=HEALTH_SECONDS)) as answer:
                health = await answer.json()
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None
        return health if isinstance(health, dict) else None

    @asynccontextmanager
    async def websocket(self, session_id: str, token: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """The session's WebSocket. Raises Unauthorized, SessionNotFound, Unavailable."""
        headers = {**self._internal, "Authorization": f"Bearer {token}"}
        try:
            socket = await self._http.ws_connect(self._base / "ws" / session_id, headers=headers, max_msg_size=MESSAGE_LIMIT)
        except aiohttp.WSServerHandshakeError as error:
            raise _refused(error.status, session_id) from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _down() from error
        try:
            yield socket
        finally:
            with suppress(TimeoutError):  # one that reads nothing takes no close frame either
                await asyncio.wait_for(socket.close(), CLOSE_SECONDS)

    async def showing(self, avatar_id: str) -> list[str]:
        """Ids of the sessions that show the avatar; none while the media server is down, for its sessions died with it."""
        try:
            answer = await self.send("GET", "/v1/sessions")
        except Unavailable:
            return []
        if answer.status != 200:
            raise Unavailable(f"The media server did not list its sessions (status {answer.status}).")
        sessions = SessionList.model_validate_json(answer.body).sessions
        return [session.session_id for session in sessions if session.avatar_id == avatar_id]

    async def end(self, session_ids: list[str]) -> None:
        """End these sessions, for their avatar is deleted. Raises Unavailable."""
        for session_id in session_ids:
            await self.send("DELETE", f"/v1/sessions/{session_id}?reason={quote(AVATAR_DELETED)}")

    @property
    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("MediaClient.run has not begun")
        return self._session


def _down() -> Unavailable:
    return Unavailable("The media server does not answer.", retry_after=RETRY_AFTER_SECONDS)


def _refused(status: int, session_id: str) -> Exception:
    if status in {401, 403}:
        return Unauthorized("The token does not belong to this session.")
    if status == 404:
        return SessionNotFound(f"There is no session {session_id}.")
    return Unavailable(f"The media server refused the WebSocket (status {status}).", retry_after=RETRY_AFTER_SECONDS)
