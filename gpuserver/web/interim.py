"""Keeps a client waiting: `102 Processing` while long work runs, so that its read time-out does not strike; and ends work nobody waits for.

httpx gives up after 5 s without a byte, curl and aiohttp after longer; all of them skip interim responses (RFC 9110, 15.2).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Protocol, TypeVar

from aiohttp import HttpVersion11, web

from gpuserver.errors import Cancelled

INTERVAL_SECONDS = 1.0
PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"

# Python's http.client takes any interim response but 100 for the final one; these clients wait without a time-out by default.
CANNOT_SKIP_INTERIM = ("python-requests/", "python-urllib/", "python-urllib3/")

# Proxies name themselves in one of these. nginx takes an interim response for the final one (measured with 1.22, HTTP/1.1 upstream).
NAMES_A_PROXY = ("Via", "Forwarded", "X-Forwarded-For", "X-Real-IP")

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


class Work(Protocol[T_co]):
    """Blocking work that looks at `cancel` and gives up soon after it is set."""

    def __call__(self, cancel: threading.Event) -> T_co: ...


async def while_client_waits(request: web.Request, executor: Executor, work: Work[T]) -> T:
    """Run `work` on a thread and return its result; cancel it when the client goes away.

    Does not return or raise before the work has ended, so that the caller may clean up behind it.
    """
    cancel = threading.Event()
    future = asyncio.get_running_loop().run_in_executor(executor, work, cancel)
    try:
        await _attend(request, future, give_up=cancel.set, interim=True)
    except asyncio.CancelledError:
        cancel.set()
        await asyncio.wait([future])
        raise
    return await future


async def while_client_awaits(request: web.Request, work: Coroutine[None, None, T]) -> T:
    """As while_client_waits, for work that awaits: it is cancelled when the client goes away. Raises Cancelled then."""
    return await _result(request, work, interim=True)


async def while_client_stays(request: web.Request, work: Coroutine[None, None, T]) -> T:
    """The same without interim responses, for work that answers by itself, or is not expected to take long."""
    return await _result(request, work, interim=False)


async def _result(request: web.Request, work: Coroutine[None, None, T], *, interim: bool) -> T:
    task = asyncio.create_task(work)
    try:
        await _attend(request, task, give_up=task.cancel, interim=interim)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
    if task.cancelled():
        raise Cancelled("The client went away.")
    return task.result()


async def _attend(request: web.Request, work: asyncio.Future[T], *, give_up: Callable[[], object], interim: bool) -> None:
    """Until the work has ended: give_up where there is no client any more; interim: tell it meanwhile that the work goes on."""
    while not (await asyncio.wait([work], timeout=INTERVAL_SECONDS))[0]:
        if has_left(request):
            give_up()
        elif interim and request.transport is not None and _skips_interim(request):
            request.transport.write(PROCESSING)


def has_left(request: web.Request) -> bool:
    """Whether nobody waits for the answer any more."""
    return request.transport is None or request.transport.is_closing()


def _skips_interim(request: web.Request) -> bool:
    if any(name in request.headers for name in NAMES_A_PROXY):
        return False
    agent = request.headers.get("User-Agent", "").lower()
    return request.version >= HttpVersion11 and not agent.startswith(CANNOT_SKIP_INTERIM)
