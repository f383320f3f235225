"""Addresses to listen on: whether they are safe and free. Without aiohttp, so that the supervisor starts fast."""

from __future__ import annotations

import errno
import os
import socket
from urllib.parse import urlsplit

import structlog

from gpuserver.config import LOOPBACK_HOSTS, Settings
from gpuserver.errors import CannotStart
from gpuserver.web.auth import MAKE_A_KEY, check_keys

log = structlog.get_logger(__name__)


def check_bind(settings: Settings, name: str, host: str) -> None:
    """Refuse to be reachable from other machines without keys. `name` is the settings' prefix. Raises CannotStart."""
    check_keys(settings)
    if settings.api_keys:
        return
    if host in LOOPBACK_HOSTS:
        if _is_behind_a_proxy(settings) and not settings.allow_insecure:
            log.warning("open_to_whom_the_proxy_lets_in", host=host, advice="Set API_KEYS, unless the proxy itself asks who calls.")
        return
    if settings.allow_insecure:
        log.warning("open_to_every_machine", host=host, advice="Set API_KEYS, unless this network is closed to others.")
        return
    raise CannotStart(
        f"{name}_HOST={host} without API_KEYS would let every machine that reaches this one create avatars and sessions.",
        advice=f"Set API_KEYS to a key for your web server ({MAKE_A_KEY}), or {name}_HOST=127.0.0.1, "
        "or ALLOW_INSECURE=1 if the network is closed to others.",
    )


def _is_behind_a_proxy(settings: Settings) -> bool:
    """Whether calls are expected that come from elsewhere although the server listens on this machine only."""
    public_name = urlsplit(settings.public_url or "").hostname
    return bool(settings.trusted_proxies) or (public_name is not None and public_name not in LOOPBACK_HOSTS)


def check_port(name: str, host: str, port: int) -> None:
    """Find out early whether the port is free. `name` is the settings' prefix, such as MEDIA. Raises CannotStart."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise cannot_bind(name, host, port, error) from error


def cannot_bind(name: str, host: str, port: int, error: OSError) -> CannotStart:
    """The plain sentence for a failed bind."""
    if error.errno == errno.EADDRINUSE:
        return CannotStart(f"Port {port} on {host} is in use.", advice=f"Stop what uses it, or set {_port_setting(name)} to another port.")
    reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
    return CannotStart(f"{host}:{port} cannot be bound: {reason}.", advice=f"Correct {name}_HOST and {_port_setting(name)}.")


def _port_setting(name: str) -> str:
    return "PORT" if name == "GATEWAY" else f"{name}_PORT"
