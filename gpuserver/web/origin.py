"""Where a request comes from: the address that the client used, and whether a page of another site sent it."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from yarl import URL

from gpuserver.config import LOOPBACK_HOSTS, Settings
from gpuserver.errors import ForeignOrigin, InvalidInput
from gpuserver.web.cors import is_listed

HOST = re.compile(r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
FORWARDING = frozenset({"Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip"})
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def public_url(request: web.Request, settings: Settings) -> URL:
    """The address at which clients reach this server: PUBLIC_URL, else the one that this client used. Raises InvalidInput."""
    return URL(settings.public_url.rstrip("/")) if settings.public_url else called_url(request, settings)


def engine_url(base: URL, session_id: str) -> str:
    """The address of a session's WebSocket, without its token: ws(s)://…/ws/{session_id} below `base`."""
    return str(base.with_scheme("wss" if base.scheme == "https" else "ws") / "ws" / session_id)


def called_url(request: web.Request, settings: Settings) -> URL:
    """The address that this client used, without a path. X-Forwarded-Proto and -Host count only from TRUSTED_PROXIES.

    Raises InvalidInput for an unusable Host header.
    """
    scheme, host = request.scheme, request.host
    if _through_trusted_proxy(request, settings):
        scheme = _first(request.headers.get("X-Forwarded-Proto")) or scheme
        host = _first(request.headers.get("X-Forwarded-Host")) or host
    if scheme not in {"http", "https"} or not HOST.fullmatch(host):
        raise InvalidInput("The Host header is not a host.")
    try:
        return URL(f"{scheme}://{host}")
    except ValueError as error:
        raise InvalidInput("The Host header is not a host.") from error


def origin_middleware(settings: Settings, host: str) -> Middleware:
    """Refuse what a web page of another site makes a browser send (CSRF), also under a rebound name (DNS rebinding).

    host: where the server listens.
    """
    on_loopback = host in LOOPBACK_HOSTS

    @web.middleware
    async def check_origin(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path != "/health":
            if on_loopback and not settings.api_keys:  # a page under a rebound name has no key
                _check_host(request, settings)
            if request.method not in SAFE_METHODS or request.headers.get("Upgrade") is not None:
                _check_origin(request, settings, on_loopback=on_loopback)
        return await handler(request)

    return check_origin


def _check_host(request: web.Request, settings: Settings) -> None:
    """On a loopback bind only this machine's names are ours; a foreign name that resolves to 127.0.0.1 is an attack."""
    host = called_url(request, settings).host
    own = LOOPBACK_HOSTS | ({URL(settings.public_url).host} if settings.public_url else set())
    if host in own or _through_trusted_proxy(request, settings):
        return
    raise ForeignOrigin(
        f"The server was called as {host}, which is not its name.",
        advice="Call it as 127.0.0.1 or localhost, or set PUBLIC_URL to the address that clients use.",
    )


def _check_origin(request: web.Request, settings: Settings, *, on_loopback: bool) -> None:
    origin = request.headers.get("Origin")
    if origin is None:  # not a browser
        return
    if is_listed(origin, settings):
        return
    host = urlsplit(origin).hostname if origin != "null" else None
    own = {public_url(request, settings).host, called_url(request, settings).host}
    if on_loopback and own & LOOPBACK_HOSTS:
        own |= LOOPBACK_HOSTS  # a page that another server of this machine's user serves
    if host is None or host not in own:
        raise ForeignOrigin("The Origin header names another site.")


def is_local(request: web.Request) -> bool:
    """Whether a program on this machine calls, and not a proxy on it for somebody else."""
    peer = _peer(request)
    return peer is not None and peer.is_loopback and not FORWARDING & request.headers.keys()


def client_address(request: web.Request, settings: Settings) -> Address | None:
    """The address that the call comes from; None where it is not known.

    X-Forwarded-For counts as far as TRUSTED_PROXIES have written it: its last address that is not one of them.
    """
    address = _peer(request)
    forwarded = ",".join(request.headers.getall("X-Forwarded-For", [])).split(",")
    while address is not None and _is_trusted(address, settings) and (before := _address(forwarded.pop() if forwarded else "")):
        address = before
    return address


def client_network(request: web.Request, settings: Settings) -> str:
    """The address that the call comes from, of IPv6 the network of one subscriber (/64); empty where it is not known."""
    address = client_address(request, settings)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address or "")


def _through_trusted_proxy(request: web.Request, settings: Settings) -> bool:
    peer = _peer(request)
    return peer is not None and _is_trusted(peer, settings)


def _peer(request: web.Request) -> Address | None:
    peer = request.transport.get_extra_info("peername") if request.transport is not None else None
    return _address(peer[0]) if peer else None


def _is_trusted(address: Address, settings: Settings) -> bool:
    return any(address in ipaddress.ip_network(proxy, strict=False) for proxy in settings.trusted_proxies)


def _address(text: str) -> Address | None:
    """An address; one of IPv4 also where it is written as IPv6 (::ffff:192.0.2.1), as some proxies do."""
    try:
        address = ipaddress.ip_address(text.strip())
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


def _first(header: str | None) -> str:
    return (header or "").split(",")[0].strip()
