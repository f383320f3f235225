"""Who would answer a question now."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outlook:
    """model: its name. server: the kind of server it is on, such as "Ollama"; None where only the echo answers, or nothing.

    fallback: why it is not the wanted model, or why nothing answers; None where all is well.
    """

    model: str
    server: str | None = None
    fallback: str | None = None
