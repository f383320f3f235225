"""Addresses of STUN and TURN servers, as operators write them."""

from __future__ import annotations

from typing import Literal

import pytest

from gpuserver.errors import CannotStart
from gpuserver.media.server_address import ServerAddress, read_address


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("turn.example.org", ServerAddress("turn.example.org", 3478, secure=False, transport=None)),
        ("10.0.0.5:80", ServerAddress("10.0.0.5", 80, secure=False, transport=None)),
        ("turn:host:3478?transport=tcp", ServerAddress("host", 3478, secure=False, transport="tcp")),
        ("turns:host", ServerAddress("host", 5349, secure=True, transport=None)),
        ("turn:[2001:db8::1]:3479", ServerAddress("2001:db8::1", 3479, secure=False, transport=None)),
        ("[::1]", ServerAddress("::1", 3478, secure=False, transport=None)),
    ],
)
def test_a_server_may_be_named_in_these_ways(value: str, address: ServerAddress) -> None:
    assert read_address("WEBRTC_TURN_SERVER", "turn", value) == address


@pytest.mark.parametrize(
    ("scheme", "value", "sentence"),
    [
        ("turn", "turn:host:70000", "a port that is not 1 to 65535: 70000"),
        ("stun", "host:0", "a port that is not 1 to 65535: 0"),
        ("turn", "", "must look like turn:host:port"),
        ("turn", "stun:host:1", "must look like turn:host:port"),
        ("turn", "a host:1", "must look like turn:host:port"),
        ("turn", "http://host", "must look like turn:host:port"),
        ("turn", "2001:db8::1", "must look like"),
        ("turn", "turn:[1.2.3.4]:1", "must look like"),
        ("turn", "turn:a,turn:b", "must look like"),
        ("stun", "stuns:host", "must look like stun:host:port"),
        ("stun", "host?transport=tcp", "must look like stun:host:port"),
    ],
)
def test_anything_else_is_refused_in_plain_words(scheme: Literal["stun", "turn"], value: str, sentence: str) -> None:
    with pytest.raises(CannotStart, match=sentence) as refusal:
        read_address("WEBRTC_SERVER", scheme, value)
    assert refusal.value.detail.startswith("WEBRTC_SERVER ")


def test_a_password_in_the_address_is_not_repeated() -> None:
    with pytest.raises(CannotStart) as refusal:
        read_address("WEBRTC_TURN_SERVER", "turn", "turn:tutor:geheim@host:3478")
    assert "geheim" not in str(refusal.value) + refusal.value.detail + (refusal.value.advice or "")
    assert "WEBRTC_TURN_PASSWORD" in (refusal.value.advice or "")
