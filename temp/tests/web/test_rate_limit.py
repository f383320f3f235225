"""RATE_LIMIT: exact over every window, per caller, said in every answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from conftest import MakeSettings
from hypothesis import given
from hypothesis import strategies as st
from pytest_aiohttp.plugin import AiohttpClient

from gpuserver.errors import CannotStart
from gpuserver.web import rate_limit
from gpuserver.web.keys import needs_key, public
from gpuserver.web.middleware import add_security_headers, middlewares
from gpuserver.web.rate_limit import MovingWindow, Rate, parse_rate, uncounted

Client = TestClient[web.Request, web.Application]
MakeClient = Callable[..., Awaitable[Client]]

KEYS = ("a" * 32, "b" * 32)


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.floats(0, 3), max_size=60))
def test_no_window_ever_holds_more_calls_than_allowed_and_none_is_refused_too_early(pauses: list[float]) -> None:
    clock = Clock()
    window = MovingWindow(Rate(calls=3, seconds=5), clock)
    admitted: list[float] = []
    for pause in pauses:
        clock.now += pause
        recent = [at for at in admitted if at > clock.now - 5]
        standing = window.admit("caller")
        assert standing.admitted == (len(recent) < 3)
        if standing.admitted:
            admitted.append(clock.now)
        assert standing.remaining == 3 - len([at for at in admitted if at > clock.now - 5])


def test_who_waits_as_long_as_told_is_admitted() -> None:
    clock = Clock()
    window = MovingWindow(Rate(calls=2, seconds=60), clock)
    window.admit("a")
    clock.now += 20.5
    assert window.admit("a").admitted
    refused = window.admit("a")
    assert (refused.admitted, refused.remaining, refused.wait) == (False, 0, 40)
    clock.now += refused.wait
    assert window.admit("a").admitted


def test_callers_are_counted_apart_and_those_silent_longest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "MOST_CALLERS", 2)
    window = MovingWindow(Rate(calls=1, seconds=60), Clock())
    assert [window.admit(caller).admitted for caller in "abab"] == [True, True, False, False]
    assert window.admit("c").admitted  # a is forgotten
    assert [window.admit(caller).admitted for caller in "bca"] == [False, False, True]


@pytest.mark.parametrize(
    ("text", "rate"),
    [("120/minute", Rate(120, 60)), (" 10 per second ", Rate(10, 1)), ("5000/Hour", Rate(5000, 3600)), ("1/day", Rate(1, 86400))],
)
def test_a_rate_is_written_as_calls_per_unit(text: str, rate: Rate) -> None:
    assert parse_rate(text) == rate


def test_off_is_no_limit() -> None:
    assert parse_rate("OFF") is None


@pytest.mark.parametrize(
    "text", ["120", "0/minute", "-1/minute", "1.5/second", "120/fortnight", "120/minute;5/second", "many", "9999999/day"]
)
def test_what_is_no_rate_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(CannotStart, match="RATE_LIMIT") as caught:
        parse_rate(text)
    assert "120/minute" in caught.value.advice


@pytest.fixture
def make_client(aiohttp_client: AiohttpClient, make_settings: MakeSettings) -> MakeClient:
    async def make(**settings: object) -> Client:
        async def answer(_request: web.Request) -> web.Response:
            return web.Response(text="ok")

        async def health(_request: web.Request) -> web.Response:
            return web.Response(text="ok")

        async def picture(_request: web.Request) -> web.Response:
            return web.Response(text="ok")

        app = web.Application(middlewares=middlewares(make_settings(**settings), secret="the secret"))
        app.on_response_prepare.append(add_security_headers)
        app.router.add_get("/counted", needs_key(answer))
        app.router.add_get("/health", public(health))
        app.router.add_get("/picture", uncounted(needs_key(picture)))
        return await aiohttp_client(app)

    return make


async def _statuses(client: Client, path: str, times: int, **headers: str) -> list[int]:
    return [
        (await client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})).status for _ in range(times)
    ]


async def test_one_call_too_many_is_a_429_that_says_when_to_come_back(make_client: MakeClient) -> None:
    client = await make_client(rate_limit="2/hour")
    first = await client.get("/counted")
    assert first.headers["RateLimit-Policy"] == '"default";q=2;w=3600'
    assert first.headers["RateLimit"] == '"default";r=1;t=3600'
    assert await _statuses(client, "/counted", 1) == [200]
    refused = await client.get("/counted")
    assert refused.status == 429
    assert (await refused.json())["type"].endswith(":rate-limited")
    assert 3590 <= int(refused.headers["Retry-After"]) <= 3600
    assert refused.headers["RateLimit"].startswith('"default";r=0;t=3')
    assert await _statuses(client, "/nowhere", 1) == [429]


async def test_health_pictures_and_the_other_process_are_not_counted(make_client: MakeClient) -> None:
    client = await make_client(rate_limit="1/hour")
    assert await _statuses(client, "/health", 3) == [200] * 3
    assert await _statuses(client, "/picture", 3) == [200] * 3
    assert await _statuses(client, "/counted", 3, X_Internal_Secret="the secret") == [200] * 3
    assert await _statuses(client, "/counted", 2, X_Internal_Secret="another") == [200, 429]
    assert await _statuses(client, "/health", 1) == [200]


async def test_every_key_has_a_limit_of_its_own(make_client: MakeClient) -> None:
    client = await make_client(rate_limit="1/hour", api_keys=",".join(KEYS))
    assert await _statuses(client, "/counted", 2, X_API_Key=KEYS[0]) == [200, 429]
    assert await _statuses(client, "/counted", 2, X_API_Key=KEYS[1]) == [200, 429]
    assert await _statuses(client, "/counted", 1) == [401]


async def test_behind_a_trusted_proxy_every_address_has_a_limit_of_its_own(make_client: MakeClient) -> None:
    client = await make_client(rate_limit="1/hour", trusted_proxies=("127.0.0.1", "10.0.0.0/8"))
    assert await _statuses(client, "/counted", 2, X_Forwarded_For="203.0.113.1") == [200, 429]
    assert await _statuses(client, "/counted", 1, X_Forwarded_For="203.0.113.2, 10.0.0.1") == [200]
    # What the client itself wrote in front does not count, nor do the addresses of one IPv6 subscriber.
    assert await _statuses(client, "/counted", 1, X_Forwarded_For="198.51.100.9, 203.0.113.1") == [429]
    assert await _statuses(client, "/counted", 1, X_Forwarded_For="198.51.100.9, nonsense, 10.0.0.1") == [200]
    assert await _statuses(client, "/counted", 1, X_Forwarded_For="198.51.100.9, gibberish, 10.0.0.1") == [429]
    assert await _statuses(client, "/counted", 1, X_Forwarded_For="2001:db8::1") == [200]
    assert await _statuses(client, "/counted", 1, X_Forwarded_For="2001:db8::2") == [429]
    # Some proxies write IPv4 addresses in this way.
    assert await _statuses(client, "/counted", 1, X_Forwarded_For="::ffff:203.0.113.77") == [200]
    assert await _statuses(client, "/counted", 1, X_Forwarded_For="::ffff:203.0.113.1, ::ffff:10.0.0.1") == [429]


async def test_without_a_trusted_proxy_no_header_gives_another_address(make_client: MakeClient) -> None:
    client = await make_client(rate_limit="1/hour")
    assert await _statuses(client, "/counted", 1, X_Forwarded_For="203.0.113.1") == [200]
    assert await _statuses(client, "/counted", 1, X_Forwarded_For="203.0.113.2") == [429]


async def test_off_sets_no_limit_and_no_header(make_client: MakeClient) -> None:
    client = await make_client(rate_limit="off")
    assert set(await _statuses(client, "/counted", 200)) == {200}
    assert "RateLimit" not in (await client.get("/counted")).headers
