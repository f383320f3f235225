"""Passes an answer of the lip-sync service on while it arrives: its status, the headers on a list, its body."""

from __future__ import annotations

import aiohttp
from aiohttp import web

from gpuserver.errors import Cancelled

# Neither cookies, hop-by-hop headers (RFC 9110, 7.6.1) nor what tells about the service's insides.
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


async def pass_on(request: web.Request, answer: aiohttp.ClientResponse, *, location: str | None = None) -> web.StreamResponse:
    """Our answer to `request`. location: of the new resource, as our client reaches it. Raises Cancelled where the client goes away."""
    headers = {name: answer.headers[name] for name in ANSWER_HEADERS if name in answer.headers}
    if location is not None:
        headers["Location"] = location
    response = web.StreamResponse(status=answer.status, headers=headers)
    await response.prepare(request)
    async for chunk in answer.content.iter_any():
        try:
            await response.write(chunk)
        except ConnectionError as error:
            raise Cancelled("The client went away.") from error
    await response.write_eof()
    return response
