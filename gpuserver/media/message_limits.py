"""How much a session's clients may say on their WebSockets: RATE_LIMIT for what makes work, and a ceiling for messages of any kind."""

from __future__ import annotations

from gpuserver.messages import Ask, ClientMessage, LegacyText, Say, WebRtcOffer
from gpuserver.web.rate_limit import MovingWindow, Rate, check_standing

FLOOD = Rate(calls=1200, seconds=60)  # a call begins with some 20 candidates; after that a client says something every few seconds


class MessageLimits:
    """Counts over all WebSockets of each session. rate: RATE_LIMIT; None for no limit, the ceiling stays."""

    def __init__(self, rate: Rate | None):
        self._work = None if rate is None else MovingWindow(rate)
        self._any = MovingWindow(FLOOD)

    def is_flood(self, session_id: str) -> bool:
        """Count a message. Whether there have been too many: nobody sends so many who means well."""
        return not self._any.admit(session_id).admitted

    def check(self, session_id: str, message: ClientMessage) -> None:
        """Count a message that makes work for a model, a voice or a peer. Raises RateLimited."""
        if self._work is not None and isinstance(message, Ask | Say | LegacyText | WebRtcOffer):
            check_standing(self._work.admit(session_id))
