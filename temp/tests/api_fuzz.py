"""schemathesis against a running server: hostile calls of every operation, and what they were answered."""

from __future__ import annotations

import http.client
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

import httpx
import requests.utils
import schemathesis
from api_live_calls import DEMO, AnyCase, credentials, enliven, example_of, named_by
from api_world import KEYS, World
from schemathesis import HookContext
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.engine import Status, events, from_schema
from schemathesis.hooks import GLOBAL_HOOK_DISPATCHER
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [status_code_conformance, content_type_conformance, response_headers_conformance, response_schema_conformance]
CREATIONS = ["POST /v1/avatars", "POST /v1/avatars/upload", "POST /api/avatar/create"]  # a real picture would keep a core busy
UPLOADS = CREATIONS[1:]
MOST_UPLOADS = 12  # random cases of each, and no boundary cases: every file starts a child process
MOST_FAULTS = 3  # that are kept of each operation
HEADERS = {**KEYS, "User-Agent": requests.utils.default_user_agent()}  # requests cannot read the interim responses that others are sent
WEBSOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
}


@dataclass
class Tally:
    """What one operation was answered."""

    statuses: Counter[int] = field(default_factory=Counter)
    undocumented: int = 0
    unanswered: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def cases(self) -> int:
        return self.statuses.total() + self.unanswered

    @property
    def server_errors(self) -> int:
        return sum(number for status, number in self.statuses.items() if status >= 500)

    @property
    def succeeded(self) -> bool:
        return any(status == http.client.SWITCHING_PROTOCOLS or 200 <= status < 300 for status in self.statuses)

    def count(self, status: int | None, wrong: Iterable[str], call: str) -> None:
        """One case. status: None where no answer came. wrong: what the description did not say."""
        wrong = list(wrong)
        if status is None:
            self.unanswered += 1
        else:
            self.statuses[status] += 1
        self.undocumented += bool(wrong)
        if (wrong or status is None or status >= 500) and len(self.faults) < MOST_FAULTS:
            self.faults.append(f"{status} {call}: {'; '.join(wrong)}")


def _as_text(_context: schemathesis.SerializationContext, value: object) -> bytes:
    return str(value).encode("utf-8", "surrogatepass")


class Fuzzer:
    """Calls one server. examples: random cases of every operation, besides the boundary cases that schemathesis derives.

    document: what the server is said to do; its own one if there is none.
    """

    def __init__(self, world: World, *, examples: int, boundaries: bool = True, seed: int = 1, document: dict[str, Any] | None = None):
        self._world = world
        self._document = document or httpx.get(f"{world.url}/openapi.json", trust_env=False).json()
        schemathesis.serializer("application/sdp", "application/trickle-ice-sdpfrag")(_as_text)
        config = schemathesis.Config.from_dict(_configuration(world.url, examples, boundaries=boundaries, seed=seed))
        self._schema = schemathesis.openapi.from_dict(self._document, config=config)
        self._calls: Counter[str] = Counter()
        self.tallies: dict[str, Tally] = {}

    def run(self) -> dict[str, Tally]:
        """The tallies by operation, like "POST /v1/avatars"."""
        for result in self._schema.get_all_operations():
            operation = cast(Ok[Any], result).ok()
            if operation.path.startswith("/ws/"):
                self._open_websocket(operation.label, operation.path)
            else:
                self._call_as_meant(operation)
        hook = self._before_call
        GLOBAL_HOOK_DISPATCHER.register_hook_with_name(hook, "before_call")
        try:
            for event in from_schema(self._schema).execute():
                self._hear(event)
        finally:
            GLOBAL_HOOK_DISPATCHER.unregister(hook)
        return self.tallies

    def _hear(self, event: events.EngineEvent) -> None:
        if isinstance(event, events.ScenarioFinished):
            self._count(event)
        elif isinstance(event, events.NonFatalError):
            self._tally(event.label).count(None, [], repr(event.value))
        elif isinstance(event, events.FatalError):
            raise event.exception

    def _call_as_meant(self, operation: Any) -> None:
        """The example of the document, with identifiers of what is there."""
        case = operation.Case(**example_of(self._document, operation.label), headers=credentials(operation.label, self._world))
        enliven(operation.label, case, self._world)
        response = case.call(base_url=self._world.url, headers={**HEADERS, **case.headers}, timeout=60)
        wrong = []
        try:
            case.validate_response(response, checks=CHECKS)
        except FailureGroup as failures:
            wrong = [f"{failure.title} {failure.message}" for failure in failures.exceptions]
        self._tally(operation.label).count(response.status_code, wrong, f"as meant: {response.content[:200]!r}")

    def _open_websocket(self, label: str, path: str) -> None:
        session = self._world.session()
        connection = http.client.HTTPConnection(urlsplit(self._world.url).netloc, timeout=30)
        connection.request("GET", path.format(**session), headers={**WEBSOCKET, "Authorization": f"Bearer {session['engine_token']}"})
        self._tally(label).count(connection.getresponse().status, [], "handshake")
        connection.close()

    def _before_call(self, _context: HookContext, case: AnyCase, _options: Mapping[str, Any]) -> None:
        """Every second case meets what is there; elsewhere its identifiers are as hostile as the rest of it.

        The demo avatar is never deleted: others need it.
        """
        label = case.operation.label
        case.headers.update(credentials(label, self._world))
        self._calls[label] += 1
        if (self._calls[label] % 2 and label not in CREATIONS) or (case.method == "DELETE" and DEMO in named_by(case)):
            enliven(label, case, self._world, is_meant=False)

    def _count(self, event: events.ScenarioFinished) -> None:
        for case_id, interaction in event.recorder.interactions.items():
            case = event.recorder.cases[case_id].value
            wrong = [
                f"{check.failure_info.failure.title} {check.failure_info.failure.message}"
                for check in event.recorder.checks.get(case_id, [])
                if check.status == Status.FAILURE and check.failure_info is not None
            ]
            status = interaction.response.status_code if interaction.response is not None else None
            self._tally(case.operation.label).count(status, wrong, case.as_curl_command()[:600])

    def _tally(self, label: str) -> Tally:
        return self.tallies.setdefault(label, Tally())


def table(tallies: Mapping[str, Tally]) -> str:
    """One line for each operation, as Markdown."""
    head = ["| operation | cases | 2xx | 4xx | server errors | undocumented |", "|---|---|---|---|---|---|"]
    rows = [
        f"| {label} | {tally.cases} | {_of_class(tally, 2)} | {_of_class(tally, 4)} | {tally.server_errors} | {tally.undocumented} |"
        for label, tally in tallies.items()
    ]
    return "\n".join(head + rows)


def _of_class(tally: Tally, first_digit: int) -> int:
    return sum(number for status, number in tally.statuses.items() if status // 100 == first_digit)


def _configuration(url: str, examples: int, *, boundaries: bool, seed: int) -> dict[str, Any]:
    generation = {"max-examples": examples, "no-shrink": True, "database": "none", "with-security-parameters": False}
    return {
        "base-url": url,
        "headers": HEADERS,
        "seed": seed,
        "continue-on-failure": True,
        "request-timeout": 30,
        "workers": 1,
        "generation": generation,
        "phases": {
            "examples": {"enabled": False},  # _call_as_meant
            "coverage": {"enabled": boundaries, "unexpected-methods": []},
            # Values of earlier answers would be sent over and over; enliven() knows better ones.
            "fuzzing": {"enabled": True, "extra-data-sources": {"responses": False}, "error-feedback": {"enabled": False}},
            "stateful": {"enabled": False},
        },
        "checks": {"enabled": False, **{check.__name__: {"enabled": True} for check in CHECKS}},
        "operations": [
            {
                "include-name": UPLOADS,
                "generation": {**generation, "max-examples": min(examples, MOST_UPLOADS)},
                "phases": {"coverage": {"enabled": False}},
            }
        ],
    }
