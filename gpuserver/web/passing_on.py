"""Passes requests on to another process and its answers back while they arrive: status, headers on a list, bodies of bounded size."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

from gpuserver.errors import Cancelled, GpuserverError, TooLarge
from gpuserver.web.body import Pace

# Neither cookies, hop-by-hop headers (RFC 9110, 7.6.1) nor what tells about the other process's insides.
ANSWER_HEADERS = (
    "Accept-Patch",
    "Accept-Ranges",
    "Allow",
    "Cache-Control",
    "Content-Disposition",
    "Content-Encoding",
    "Content-Length",
    "Content-Range",
    "Content-Type",
    "ETag",
    "Last-Modified",
    "Link",
    "Retry-After",
)


class RequestBody:
    """What the client sends, `limit` bytes at most. failure: why chunks() ended early, which an HTTP client hides from its caller."""

    def __init__(self, request: web.Request, limit: int, limit_name: str):
        """Raises TooLarge for a body that says at once that it is."""
        self._request = request
        self._limit = limit
        self._limit_name = limit_name
        if (request.content_length or 0) > limit:
            raise self._too_large()
        self.failure: GpuserverError | None = None

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises TooLarge, TooSlow, Cancelled."""
        pace = Pace()
        try:
            while chunk := await pace.wait(self._request.content.readany()):
                pace.received += len(chunk)
                if pace.received > self._limit:
                    raise self._too_large()
                yield chunk
        except GpuserverError as error:
            self.failure = error
            raise
        except ConnectionError as error:
            self.failure = Cancelled("The client went away.")
            raise self.failure from error

    def _too_large(self) -> TooLarge:
        return TooLarge(f"The body exceeds {self._limit_name}.")


async def pass_on(
    request: web.Request, answer: aiohttp.ClientResponse, *, location: str | None = None, also: Collection[str] = ()
) -> web.StreamResponse:
    """Our answer to `request`. location: of the new resource, as our client reaches it. also: further headers that may pass.

    Raises Cancelled where the client goes away.
    """
    headers = passing_headers(answer.headers, also)
    if location is not None:
        headers["Location"] = location
    response = web.StreamResponse(status=answer.status, headers=headers)
    await response.prepare(request)
    try:
        async for chunk in answer.content.iter_any():
            await _write(response, chunk)
    except (aiohttp.ClientError, TimeoutError):
        if request.transport is not None:
            request.transport.abort()  # the client must not take it for the whole
        raise
    await response.write_eof()
    return response


def passing_headers(headers: Mapping[str, str], also: Collection[str] = ()) -> CIMultiDict[str]:
    """Those of an answer that may pass, as often as they are there."""
    passing = {name.lower() for name in (*ANSWER_HEADERS, *also)}
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() in passing)


async def _write(response: web.StreamResponse, chunk: bytes) -> None:
    try:
        await response.write(chunk)
    except ConnectionError as error:
        raise Cancelled("The client went away.") from error
