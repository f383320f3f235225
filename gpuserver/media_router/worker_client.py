"""The way to one media worker: HTTP over its socket, with the internal secret, which opens every route there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from gpuserver.errors import SessionNotFound, Unauthorized, Unavailable
from gpuserver.web.auth import INTERNAL_HEADER
from gpuserver.web.relay import MESSAGE_LIMIT

BASE = URL("http://127.0.0.1")  # what the worker sees as its own name
CONNECT_SECONDS = 2.0
SILENCE_SECONDS = 60.0  # without a byte of an answer: the end of a recording takes long
CLOSE_SECONDS = 1.0
RETRY_AFTER_SECONDS = 2  # a restart takes about this long


class WorkerGone(Unavailable):
    """The worker does not run, or ended before it had answered; its sessions have ended with it."""


@dataclass(frozen=True, slots=True)
class WorkerAnswer:
    """A whole answer, problem objects included."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes


class WorkerClient:
    """An asynchronous context manager. Every call has a connection of its own: one that was kept might have died with the worker."""

    def __init__(self, socket: Path, secret: str):
        self._socket = socket
        self._internal = {INTERNAL_HEADER: secret}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> WorkerClient:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(self._socket), force_close=True, limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("Content-Type",),  # what a client does not say about its body is not made up
        )
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._http.close()

    @asynccontextmanager
    async def open(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None, body: Any = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request, as far as its answer's headers. path: encoded. body: whatever aiohttp takes as `data`.

        Raises WorkerGone, also in the middle of the answer, and Unavailable for a worker that is silent.
        """
        url = BASE.joinpath(path.lstrip("/"), encoded=True).with_query(query or {})
        try:
            async with self._http.request(
                method, url, headers={**(headers or {}), **self._internal}, data=body, allow_redirects=False
            ) as answer:
                yield answer
        except TimeoutError as error:
            raise Unavailable("The media worker does not answer.", retry_after=RETRY_AFTER_SECONDS) from error
        except aiohttp.ClientError as error:
            raise _gone() from error

    async def ask(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None, body: Any = None
    ) -> WorkerAnswer:
        """One request and its whole answer. Raises as open() does."""
        async with self.open(method, path, query=query, headers=headers, body=body) as answer:
            return WorkerAnswer(answer.status, answer.headers, await answer.read())

    @asynccontextmanager
    async def websocket(self, session_id: str, token: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """The session's WebSocket. Raises Unauthorized, SessionNotFound, Unavailable."""
        headers = {**self._internal, "Authorization": f"Bearer {token}"}
        try:
            socket = await self._http.ws_connect(BASE / "ws" / session_id, headers=headers, max_msg_size=MESSAGE_LIMIT)
        except aiohttp.WSServerHandshakeError as error:
            raise _refused(error.status) from error
        except TimeoutError as error:
            raise Unavailable("The media worker does not answer.", retry_after=RETRY_AFTER_SECONDS) from error
        except aiohttp.ClientError as error:
            raise session_gone() from error
        try:
            yield socket
        finally:
            with suppress(TimeoutError):  # one that reads nothing takes no close frame either
                await asyncio.wait_for(socket.close(), CLOSE_SECONDS)

    @property
    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("WorkerClient has not been entered")
        return self._session


def session_gone() -> SessionNotFound:
    """For a session whose worker has ended, or that never was."""
    return SessionNotFound("There is no session with this id; a media worker that ends takes its sessions with it.")


def _gone() -> WorkerGone:
    return WorkerGone("The media worker has ended and is started again.", retry_after=RETRY_AFTER_SECONDS)


def _refused(status: int) -> Exception:
    if status in {401, 403}:
        return Unauthorized("The token does not belong to this session.")
    if status == 404:
        return session_gone()
    return Unavailable(f"The media worker refused the WebSocket (status {status}).", retry_after=RETRY_AFTER_SECONDS)
