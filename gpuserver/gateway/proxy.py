"""/api/avatar/webrtc/{path}: signalling and speech, passed on to {path} of the lip-sync service, and to nothing else.

What may be called is a list. Paths are compared as they were sent: anything with dots, doubled slashes or percent signs is no path
of the list, so nothing leads elsewhere. Bodies stream both ways; headers pass by a list, credentials never.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from aiohttp import web
from yarl import URL

from gpuserver.config import Settings
from gpuserver.errors import NotFound
from gpuserver.gateway.lipsync_service import LipSyncService
from gpuserver.web.body import refuse_content_encoding
from gpuserver.web.interim import while_client_stays
from gpuserver.web.keys import KEY_PARAMETER, key_in_query
from gpuserver.web.origin import called_url, client_address
from gpuserver.web.passing_on import RequestBody, pass_on
from gpuserver.web.rate_limit import uncounted

PREFIX = "/api/avatar/webrtc/"
ALLOWED = re.compile(r"(offer|human|humanaudio|interrupt_talk|is_speaking|record|set_audiotype|whep(/[A-Za-z0-9_-]{1,128}){1,3})")
REQUEST_HEADERS = ("Accept", "Accept-Language", "Content-Type", "If-Match", "If-None-Match", "Range")


def add_proxy_routes(app: web.Application, settings: Settings, service: LipSyncService) -> None:
    """Serve /api/avatar/webrtc/{path} from `app`, with every method."""
    proxy = Proxy(settings, service)
    app.router.add_route("*", PREFIX + "is_speaking", proxy.poll)
    app.router.add_route("*", PREFIX + "{path:.*}", proxy.serve)


class Proxy:
    def __init__(self, settings: Settings, service: LipSyncService):
        self._settings = settings
        self._service = service
        self._limit = settings.max_upload_mb * 1024**2

    @key_in_query
    async def serve(self, request: web.Request) -> web.StreamResponse:
        """One call, both ways."""
        return await while_client_stays(request, self._pass_on(request))

    @key_in_query
    @uncounted
    async def poll(self, request: web.Request) -> web.StreamResponse:
        """What existing pages ask several times a second."""
        return await while_client_stays(request, self._pass_on(request))

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        path = _path_of(request)
        refuse_content_encoding(request)
        query = {name: value for name, value in request.query.items() if name != KEY_PARAMETER}
        body = RequestBody(request, self._limit, f"MAX_UPLOAD_MB ({self._limit // 1024**2} MB)") if request.body_exists else None
        try:
            async with self._service.open(
                request.method, path, query=query, headers=self._headers(request), body=body.chunks() if body else None
            ) as answer:
                location = _our_location(answer.headers.get("Location"), self._service.base)
                return await pass_on(request, answer, location=location)
        finally:
            if body is not None and body.failure is not None:
                raise body.failure

    def _headers(self, request: web.Request) -> dict[str, str]:
        """Those on the list, and where the call came from, by our own account: nobody can claim another address."""
        headers = {name: request.headers[name] for name in REQUEST_HEADERS if name in request.headers}
        url = called_url(request, self._settings)
        headers |= {"X-Forwarded-Proto": url.scheme, "X-Forwarded-Host": url.authority}
        if (address := client_address(request, self._settings)) is not None:
            headers["X-Forwarded-For"] = str(address)
        return headers


def _path_of(request: web.Request) -> str:
    """The path below the lip-sync service. Raises NotFound."""
    path = request.rel_url.raw_path.removeprefix(PREFIX)
    if not ALLOWED.fullmatch(path):
        raise NotFound(
            "This is not passed on to the lip-sync service.",
            advice="offer, human, humanaudio, interrupt_talk, is_speaking, record, set_audiotype and whep/… are.",
        )
    return path


def _our_location(location: str | None, base: URL) -> str | None:
    """The address of a resource of the service as our client reaches it; None where it is none that we pass on to."""
    if location is None:
        return None
    try:
        parts = urlsplit(location)
    except ValueError:
        return None
    path = parts.path.removeprefix(base.path.rstrip("/")).lstrip("/")
    if (parts.netloc and parts.netloc != base.authority) or not ALLOWED.fullmatch(path):
        return None
    return PREFIX + path
