"""Relayed addresses at a TURN server, and in plain words why there are none."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from aioice import Candidate, stun
from aioice.ice import StunProtocol, relayed_candidate

TURN_SECONDS = 3.0  # three attempts at 0, 0.5 and 1.5 s; a server that is there answers within two round trips
SILENT_SECONDS = 1.0  # for a server that has just been silent, so that not every session waits for it

_REFUSALS = {
    400: "does not understand the request",
    401: "refuses WEBRTC_TURN_USERNAME and WEBRTC_TURN_PASSWORD",
    403: "forbids relaying",
    486: "has given this user all the relays that it may have",
    508: "has no relay port left",
}

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TurnServer:
    """As aioice wants it. transport: udp or tcp."""

    host: str
    port: int
    username: str | None
    password: str | None
    ssl: bool
    transport: str

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port} ({'TLS' if self.ssl else self.transport.upper()})"


class TurnRelay:
    """One TURN server, as our side of the connections uses it."""

    def __init__(self, server: TurnServer):
        self.server = server
        self._trouble: str | None = None
        self._asked = False
        self._silent = False

    def status(self) -> dict[str, object]:
        """For /health: how the newest attempt went."""
        status = "not asked yet" if not self._asked else "ok" if self._trouble is None else "failed"
        return {"server": str(self.server), "status": status, **({"reason": self._trouble} if self._trouble else {})}

    async def candidate(self, protocol_factory: Callable[[], StunProtocol], *, only_way: bool) -> tuple[Candidate, StunProtocol] | None:
        """A relayed candidate of component 1, or None after TURN_SECONDS at most.

        only_way: nothing but the relay may be used, so it is given all its time, and our own address is not told with its.
        """
        try:
            async with asyncio.timeout(SILENT_SECONDS if self._silent and not only_way else TURN_SECONDS):
                made = await relayed_candidate(
                    component=1,
                    hide_related_address=only_way,
                    protocol_factory=protocol_factory,
                    turn_server=(self.server.host, self.server.port),
                    turn_username=self.server.username,
                    turn_password=self.server.password,
                    turn_ssl=self.server.ssl,
                    turn_transport=self.server.transport,
                )
        except (OSError, stun.TransactionError) as error:
            self._silent = is_silence(error)
            self._note(f"The TURN server {self.server} {reason_for(error)}.")
            return None
        self._silent = False
        self._note(None)
        return made

    def _note(self, trouble: str | None) -> None:
        """Each change is said once in the log; /health always has the newest."""
        if trouble is not None and trouble != self._trouble:
            log.warning("turn_failed", message=trouble)
        elif trouble is None and self._trouble is not None:
            log.info("turn_works_again", server=str(self.server))
        self._trouble, self._asked = trouble, True


def reason_for(error: OSError | stun.TransactionError) -> str:
    """What the server did, to stand behind its name. TimeoutError and ConnectionError are OSErrors."""
    if isinstance(error, stun.TransactionFailed):
        code = error.response.error_code or 0
        return f"{_REFUSALS.get(code, 'refuses')} (error {code})"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"has a certificate that is not trusted here ({error.verify_message}); SSL_CERT_FILE may name an authority of your own"
    if isinstance(error, socket.gaierror):
        return "has a name that cannot be found"
    if is_silence(error):
        return "does not answer in time"
    return f"cannot be used: {error}"


def is_silence(error: OSError | stun.TransactionError) -> bool:
    return isinstance(error, TimeoutError | stun.TransactionTimeout)
