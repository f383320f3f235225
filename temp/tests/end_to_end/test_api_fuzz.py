"""Hostile calls of every operation of both running servers: no server error, nothing undocumented, and each operation works as meant.

`make fuzz` makes more than 10,000 of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from api_fuzz import Fuzzer, Tally, table
from api_world import World, worlds

EXAMPLES = 4  # random ones; the boundary cases of the media server are eight hundred more, those of the other take too long here


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, World]]:
    with worlds(tmp_path_factory.mktemp("worlds")) as made:
        yield made


@pytest.mark.slow
@pytest.mark.timeout(600)  # generous: the machine may be busy with other tests
@pytest.mark.parametrize("name", ["management", "media"])
def test_hostile_calls_are_refused_as_documented_and_every_operation_works(both: dict[str, World], name: str) -> None:
    tallies = Fuzzer(both[name], examples=EXAMPLES, boundaries=name == "media").run()
    print(table(tallies))
    assert {label: tally.faults for label, tally in tallies.items() if tally.faults} == {}
    assert [label for label, tally in tallies.items() if not tally.succeeded] == []
    document = httpx.get(f"{both[name].url}/openapi.json", trust_env=False).json()
    assert set(tallies) == {f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item}


def test_what_the_document_does_not_say_is_found(both: dict[str, World]) -> None:
    """An answer without its status, one with another shape, one with another type: each is told."""
    document = httpx.get(f"{both['management'].url}/openapi.json", trust_env=False).json()
    whole = document["paths"]["/v1/avatars"]["get"]

    def faults(**changed: Any) -> str:
        responses = {**whole["responses"], **changed}
        kept = {status: response for status, response in responses.items() if response is not None}
        lying = {**document, "paths": {"/v1/avatars": {"get": {**whole, "responses": kept}}}}
        tally = Fuzzer(both["management"], examples=1, document=lying).run()["GET /v1/avatars"]
        assert tally.undocumented > 0 or not tally.faults
        return " ".join(tally.faults)

    assert faults() == ""
    assert re.search("(?i)undocumented status code", faults(**{"200": None}))
    wrong_shape = {"description": "", "content": {"application/json": {"schema": {"type": "array"}, "example": []}}}
    assert re.search("(?i)violates schema", faults(**{"200": wrong_shape}))
    wrong_type = {"description": "", "content": {"text/plain": {"schema": {}, "example": ""}}}
    assert re.search("(?i)undocumented content-type", faults(**{"200": wrong_type}))


def test_a_tally_counts_what_is_wrong_and_keeps_examples() -> None:
    tally = Tally()
    tally.count(200, [], "fine")
    tally.count(500, [], "broken")
    tally.count(404, ["undocumented"], "unsaid")
    tally.count(None, [], "silent")
    assert (tally.cases, tally.server_errors, tally.undocumented, tally.unanswered, tally.succeeded) == (4, 1, 1, 1, True)
    assert [fault.split(":")[0] for fault in tally.faults] == ["500 broken", "404 unsaid", "None silent"]
    assert not Tally().succeeded
