"""The way to the lip-sync service, the media server at LIPSYNC_SERVICE_URL: avatars and WebRTC."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from aiohttp import web
from yarl import URL

from gpuserver.config import LOOPBACK_HOSTS, Settings
from gpuserver.errors import LipSyncFailed
from gpuserver.web.auth import INTERNAL_HEADER, known_secret
from gpuserver.web.keys import KEY_HEADER
from gpuserver.web.problem import CONTENT_TYPE as PROBLEM

CONNECT_SECONDS = 2.0
SILENCE_SECONDS = 60.0  # without a byte of an answer; a creation sends interim responses while it goes on
UNANSWERED = (aiohttp.ClientError, TimeoutError)


@dataclass(frozen=True, slots=True)
class ServiceAnswer:
    """What the service answered, problem objects included."""

    status: int
    body: bytes
    content_type: str
    retry_after: str | None

    @property
    def ok(self) -> bool:
        return self.status < 300

    def refusal(self) -> web.Response:
        """The service's own problem object, for our client. Raises LipSyncFailed where it is none."""
        if self.content_type != PROBLEM:
            raise LipSyncFailed(f"The lip-sync service answers with status {self.status}.")
        headers = {} if self.retry_after is None else {"Retry-After": self.retry_after}
        return web.Response(status=self.status, body=self.body, content_type=PROBLEM, headers=headers)


class LipSyncService:
    """Calls the service with the gateway's own credentials: the caller's are checked here and go no further."""

    def __init__(self, settings: Settings):
        self.base = URL(settings.lipsync_url)
        self._settings = settings
        self._credentials: dict[str, str] = {}
        self._session: aiohttp.ClientSession | None = None

    async def run(self, _app: web.Application) -> AsyncIterator[None]:
        """The life of the client, as a cleanup_ctx."""
        self._credentials = self._find_credentials()
        # A kept connection that died with the service would fail the next POST, which must not be sent twice.
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)
        async with aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            # Answers are passed on as they are, to clients that may not know a compression.
            auto_decompress=False,
            headers={"Accept-Encoding": "identity"},
            # What a client does not say about its body is not made up.
            skip_auto_headers=("Content-Type",),
        ) as self._session:
            yield

    @asynccontextmanager
    async def open(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: AsyncIterator[bytes] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request, as far as its answer's headers. path: below the service's address, made by us. Redirects are not followed.

        Raises LipSyncFailed where the service does not answer, also in the middle of its answer, or refuses the gateway itself.
        """
        if self._session is None:
            raise RuntimeError("LipSyncService.run has not begun")
        url = self.base.joinpath(path.lstrip("/"), encoded=True).with_query(query or {})
        sent = {**(headers or {}), **self._credentials}
        try:
            async with self._session.request(method, url, headers=sent, data=body, allow_redirects=False) as answer:
                if answer.status == 401:
                    raise LipSyncFailed(
                        "The lip-sync service refuses this gateway.",
                        advice="Let the first of the gateway's API_KEYS be one of the service's.",
                    )
                yield answer
        except UNANSWERED as error:
            raise LipSyncFailed(f"The lip-sync service at {self.base} does not answer.") from error

    async def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: AsyncIterator[bytes] | None = None,
    ) -> ServiceAnswer:
        """One request and its whole answer. Raises LipSyncFailed as open() does."""
        async with self.open(method, path, query=query, headers=headers, body=body) as answer:
            return ServiceAnswer(answer.status, await answer.read(), answer.content_type, answer.headers.get("Retry-After"))

    def _find_credentials(self) -> dict[str, str]:
        """What opens the service: the internal secret if it is on this machine, and our own first API key."""
        credentials = {}
        secret = known_secret(self._settings)
        if secret is not None and self.base.host in LOOPBACK_HOSTS:
            credentials[INTERNAL_HEADER] = secret
        if self._settings.api_keys:
            credentials[KEY_HEADER] = self._settings.api_keys[0].get_secret_value()
        return credentials
