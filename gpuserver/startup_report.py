"""What works only in part, read from /health, in plain sentences for whoever started the server."""

from __future__ import annotations

import http.client
import json
from http import HTTPStatus

ANSWER_SECONDS = 2.5
ATTEMPTS = 3  # on a slow machine the media server is still busy with its own start


def shortcomings(host: str, port: int) -> list[str]:
    """One line per component that falls back or is down. Blocks for a few seconds at most."""
    lines: list[str] = []
    for _ in range(ATTEMPTS):
        answers, lines = _ask(host, port)
        if answers:
            break
    return lines


def _ask(host: str, port: int) -> tuple[bool, list[str]]:
    """Whether all that is needed answers, and what is short."""
    connection = http.client.HTTPConnection(host, port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        return answer.status == HTTPStatus.OK, describe(json.loads(answer.read()))
    except (OSError, http.client.HTTPException, ValueError):
        return False, ["The management API does not answer /health yet."]
    finally:
        connection.close()


def describe(health: dict[str, object]) -> list[str]:
    """The sentences that the components themselves give: `fallback` where another one stands in, `message` where one is down."""
    components = health.get("components")
    lines = []
    for name, component in components.items() if isinstance(components, dict) else ():
        if not isinstance(component, dict):
            continue
        sentence = component.get("fallback") or component.get("message")
        if isinstance(sentence, str):
            lines.append(f"{name.replace('_', ' ')}: {sentence}")
    return lines
