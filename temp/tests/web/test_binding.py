"""Where a server may listen."""

from __future__ import annotations

import socket

import pytest
from conftest import MakeSettings

from gpuserver.errors import CannotStart
from gpuserver.web.binding import check_bind, check_port


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_is_always_allowed(make_settings: MakeSettings, host: str) -> None:
    check_bind(make_settings(), "MEDIA", host)


def test_other_addresses_need_allow_insecure(make_settings: MakeSettings) -> None:
    with pytest.raises(CannotStart, match=r"MEDIA_HOST=0\.0\.0\.0") as caught:
        check_bind(make_settings(), "MEDIA", "0.0.0.0")
    assert "ALLOW_INSECURE=1" in caught.value.advice
    check_bind(make_settings(allow_insecure=True), "MEDIA", "0.0.0.0")


def test_keys_do_not_protect_yet_and_are_not_trusted(make_settings: MakeSettings) -> None:
    with pytest.raises(CannotStart, match="not supported yet"):
        check_bind(make_settings(api_keys="k"), "MEDIA", "0.0.0.0")


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
