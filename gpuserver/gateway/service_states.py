"""Whether the services that the gateway depends on answer, asked at the moment of the request."""

from __future__ import annotations

import aiohttp
from yarl import URL

from gpuserver.gateway.wire import ServiceState

ANSWER_SECONDS = 1.0
ASKS_WHO_CALLS = frozenset({401, 403})


async def state_of(service: str, path: str) -> ServiceState:
    """GET path of the service at this address, without any credentials: 200 is well, and so is a service that asks for some."""
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.get(URL(service).joinpath(path), allow_redirects=False) as answer,
        ):
            status = answer.status
    except (aiohttp.ClientError, TimeoutError):
        return ServiceState(url=service, status="disconnected", message="It does not answer.")
    if status in ASKS_WHO_CALLS:
        return ServiceState(url=service, status="connected", message="It answers, and asks for a key.")
    if status != 200:
        return ServiceState(url=service, status="disconnected", message=f"It answers with status {status}.")
    return ServiceState(url=service, status="connected")
