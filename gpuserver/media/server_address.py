"""The address of a STUN or TURN server, as settings and browsers write it: turn:host:port?transport=tcp. RFC 7064, RFC 7065."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Literal

from gpuserver.errors import CannotStart

PORT, SECURE_PORT = 3478, 5349  # where none is given
MAX_PORT = 65_535
_SYNTAX = re.compile(
    r"(?:(?P<scheme>stun|turns?):)?"
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?:\?transport=(?P<transport>[a-z]+))?"
)


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """secure: over TLS. transport: udp or tcp, as far as it is said."""

    host: str
    port: int
    secure: bool
    transport: str | None


def read_address(setting: str, scheme: Literal["stun", "turn"], value: str) -> ServerAddress:
    """`value` taken apart; a bare host:port will do. Raises CannotStart, which does not repeat `value`: there may be a secret in it."""
    match = _SYNTAX.fullmatch(value)
    said = (match["scheme"] or scheme) if match else ""
    if match is None or said.removesuffix("s") != scheme or not _is_host(match) or (scheme == "stun" and match["transport"]):
        raise CannotStart(f"{setting} must look like {scheme}:host:port or {scheme}:[2001:db8::1]:port.", advice=_advice(scheme, value))
    secure = said.endswith("s")
    port = int(match["port"] or (SECURE_PORT if secure else PORT))
    if not 0 < port <= MAX_PORT:
        raise CannotStart(f"{setting} names a port that is not 1 to {MAX_PORT}: {port}.")
    return ServerAddress(match["ipv6"] or match["name"], port, secure, match["transport"])


def _is_host(match: re.Match[str]) -> bool:
    try:
        return match["ipv6"] is None or ipaddress.ip_address(match["ipv6"]).version == 6
    except ValueError:
        return False


def _advice(scheme: str, value: str) -> str | None:
    if "@" in value:
        return "User and password do not belong there: set WEBRTC_TURN_USERNAME and WEBRTC_TURN_PASSWORD."
    if "," in value:
        return "Name one server."
    return f"For example {scheme}:{scheme}.example.org:{PORT}."
