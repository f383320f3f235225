"""Where a server may listen."""

from __future__ import annotations

import socket

import pytest
from conftest import MakeSettings
from pydantic import SecretStr
from structlog.testing import capture_logs

from gpuserver.errors import CannotStart
from gpuserver.web.binding import check_bind, check_port


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_is_always_allowed(make_settings: MakeSettings, host: str) -> None:
    check_bind(make_settings(), "MEDIA", host)


@pytest.mark.parametrize("proxied", [{"public_url": "https://gpu.example.org"}, {"trusted_proxies": ("127.0.0.1",)}])
def test_a_loopback_server_behind_a_proxy_says_that_it_has_no_keys(make_settings: MakeSettings, proxied: dict[str, object]) -> None:
    with capture_logs() as logs:
        for settings in ({"public_url": "http://localhost:9000"}, {**proxied, "api_keys": "k" * 32}, {**proxied, "allow_insecure": True}):
            check_bind(make_settings(**settings), "MEDIA", "127.0.0.1")
        assert logs == []
        check_bind(make_settings(**proxied), "MEDIA", "127.0.0.1")
    assert [(line["log_level"], line["event"]) for line in logs] == [("warning", "open_to_whom_the_proxy_lets_in")]


def test_other_addresses_need_keys_or_allow_insecure(make_settings: MakeSettings) -> None:
    with pytest.raises(CannotStart, match=r"MEDIA_HOST=0\.0\.0\.0") as caught:
        check_bind(make_settings(), "MEDIA", "0.0.0.0")
    assert all(name in caught.value.advice for name in ("API_KEYS", "MEDIA_HOST=127.0.0.1", "ALLOW_INSECURE=1"))
    with capture_logs() as logs:
        check_bind(make_settings(api_keys="k" * 32), "MEDIA", "0.0.0.0")
        assert logs == []
        check_bind(make_settings(allow_insecure=True), "MEDIA", "0.0.0.0")
    assert [(line["log_level"], line["event"]) for line in logs] == [("warning", "open_to_every_machine")]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("key", ["k" * 31, "k" * 257, "k" * 16 + " " + "k" * 16, "é" * 32, "k" * 32 + "\n"])
def test_a_key_that_is_short_or_no_header_can_carry_is_refused_by_its_number(make_settings: MakeSettings, host: str, key: str) -> None:
    settings = make_settings(api_keys=(SecretStr("k" * 32), SecretStr(key)), allow_insecure=True)
    with pytest.raises(CannotStart, match="API_KEYS: key 2 is not a key of at least 32") as caught:
        check_bind(settings, "MEDIA", host)
    assert key not in caught.value.detail + caught.value.advice
    assert "openssl" in caught.value.advice


def test_a_port_in_use_is_one_plain_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotStart, match=f"Port {port} on .* is in use") as caught:
            check_port("MEDIA", "127.0.0.1", port)
    assert "MEDIA_PORT" in caught.value.advice
    check_port("MEDIA", "127.0.0.1", port)


def test_an_address_of_another_machine_cannot_be_bound() -> None:
    with pytest.raises(CannotStart, match="cannot be bound") as caught:
        check_port("MEDIA", "192.0.2.1", 1)
    assert "MEDIA_HOST" in caught.value.advice
