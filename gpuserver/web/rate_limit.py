"""RATE_LIMIT: how often a caller may call, counted over a moving window, in memory, in each process for itself.

Callers are told apart by their key, else by their address. Answers carry the headers of draft-ietf-httpapi-ratelimit-headers-10.
"""

from __future__ import annotations

import math
import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from gpuserver.config import Settings
from gpuserver.errors import CannotStart, RateLimited
from gpuserver.web.keys import ANYBODY, CALLER, INTERNAL_CALLER, Access, stated_access
from gpuserver.web.origin import client_network

SYNTAX = re.compile(r"(?P<calls>[1-9][0-9]{0,5})\s*(/|per)\s*(?P<unit>second|minute|hour|day)", re.IGNORECASE)
UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}  # in seconds
MOST_CALLERS = 10_000  # that are remembered; of more, those who have been silent longest are forgotten

_UNCOUNTED = "__uncounted__"
H = TypeVar("H", bound=Callable[..., object])


@dataclass(frozen=True, slots=True)
class Rate:
    """So many calls in any period of so many seconds."""

    calls: int
    seconds: int

    def __str__(self) -> str:
        return f"{self.calls} calls in {self.seconds} s"


@dataclass(frozen=True, slots=True)
class Standing:
    """How a caller stands after a call. remaining: calls that are left. wait: whole seconds until there is one more."""

    rate: Rate
    admitted: bool
    remaining: int
    wait: int

    def headers(self) -> dict[str, str]:
        """What is allowed, and what is left of it."""
        policy = f'"default";q={self.rate.calls};w={self.rate.seconds}'
        return {"RateLimit-Policy": policy, "RateLimit": f'"default";r={self.remaining};t={self.wait}'}


STANDING = web.RequestKey("rate limit", Standing)


class MovingWindow:
    """Remembers when each caller called within the last `rate.seconds`. Bounded in callers, and in calls of each."""

    def __init__(self, rate: Rate, clock: Callable[[], float] = time.monotonic):
        self.rate = rate
        self._clock = clock
        self._calls: dict[str, deque[float]] = {}  # in the order of the callers' last calls

    def admit(self, caller: str) -> Standing:
        """Count a call, unless it is one too many."""
        now = self._clock()
        calls = self._calls.pop(caller, None) or deque()
        self._calls[caller] = calls
        if len(self._calls) > MOST_CALLERS:
            del self._calls[next(iter(self._calls))]
        while calls and calls[0] <= now - self.rate.seconds:
            calls.popleft()
        admitted = len(calls) < self.rate.calls
        if admitted:
            calls.append(now)
        wait = math.ceil(calls[0] + self.rate.seconds - now)
        return Standing(self.rate, admitted, self.rate.calls - len(calls), wait)


def parse_rate(text: str) -> Rate | None:
    """RATE_LIMIT as a Rate; None for "off". Raises CannotStart."""
    if text.strip().lower() == "off":
        return None
    match = SYNTAX.fullmatch(text.strip())
    if match is None:
        raise CannotStart("RATE_LIMIT cannot be understood.", advice="Write it like 120/minute, 10/second or 5000/hour, or off.")
    return Rate(int(match["calls"]), UNITS[match["unit"].lower()])


def uncounted(handler: H) -> H:
    """A decorator for what a page fetches in numbers, such as the pictures of a gallery."""
    setattr(handler, _UNCOUNTED, True)
    return handler


def rate_limit_middleware(settings: Settings) -> Middleware:
    """Refuse callers beyond RATE_LIMIT. Belongs after keys_middleware. Public and uncounted routes and the other process are exempt.

    Raises CannotStart for a RATE_LIMIT that cannot be understood.
    """
    rate = parse_rate(settings.rate_limit)
    window = None if rate is None else MovingWindow(rate)

    @web.middleware
    async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
        if window is not None and not _is_exempt(request):
            caller = request[CALLER] if request[CALLER] != ANYBODY else client_network(request, settings)
            request[STANDING] = standing = window.admit(caller)
            check_standing(standing)
        return await handler(request)

    return count


def check_standing(standing: Standing) -> None:
    """Raises RateLimited."""
    if not standing.admitted:
        raise RateLimited(f"More than {standing.rate}.", retry_after=standing.wait)


def _is_exempt(request: web.Request) -> bool:
    handler = request.match_info.handler
    return request[CALLER] == INTERNAL_CALLER or stated_access(handler) is Access.PUBLIC or getattr(handler, _UNCOUNTED, False)
