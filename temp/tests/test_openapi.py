"""The OpenAPI documents say what is true: of every route, with examples that fit, and as they are committed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from aiohttp import web
from openapi_pydantic import OpenAPI

from gpuserver.config import Settings
from gpuserver.gateway.server import create_app
from gpuserver.openapi_documents import applications
from gpuserver.web.docs_routes import DOCS, problem_kinds
from gpuserver.web.openapi import undescribed_routes
from gpuserver.web.operation import Answer, Operation

ROOT = Path(__file__).parents[2]
NAMES = ("management", "media")

# What is answered on a WebSocket, in a job or at /health, or where there is no route.
ELSEWHERE = {
    "conflict",  # LiveTalking's calls tell it in their own words
    "device-full",
    "device-lost",
    "method-not-allowed",
    "no-device",
    "weights-damaged",
    "weights-missing",
    "weights-unusable",
}


@pytest.fixture(scope="module")
def apps() -> dict[str, web.Application]:
    return {**applications(), "gateway": create_app(Settings(_env_file=None))}


@pytest.fixture(scope="module")
def documents(apps: dict[str, web.Application]) -> dict[str, dict[str, Any]]:
    return {name: json.loads(app[DOCS].text()) for name, app in apps.items()}


@pytest.mark.parametrize("name", [*NAMES, "gateway"])
def test_every_route_is_described(apps: dict[str, web.Application], name: str) -> None:
    """CONTRIBUTING.md says how to describe one."""
    assert undescribed_routes(apps[name], apps[name][DOCS].operations) == []


def test_a_route_without_a_description_and_a_description_without_a_route_are_found(apps: dict[str, web.Application]) -> None:
    operations = dict(apps["media"][DOCS].operations)
    described = operations.pop("POST /human")
    assert undescribed_routes(apps["media"], operations) == ["POST /human"]
    with pytest.raises(LookupError, match="POST /inhuman"):
        undescribed_routes(apps["media"], {**operations, "POST /inhuman": described})


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_document_is_the_one_that_is_served(apps: dict[str, web.Application], name: str) -> None:
    """`make openapi` writes them anew."""
    assert (ROOT / f"docs/openapi-{name}.json").read_text(encoding="utf-8") == apps[name][DOCS].text()


@pytest.mark.parametrize("name", [*NAMES, "gateway"])
def test_the_document_is_openapi_3_1_and_all_references_lead_somewhere(documents: dict[str, dict[str, Any]], name: str) -> None:
    document = documents[name]
    OpenAPI.model_validate(document)
    assert document["openapi"].startswith("3.1.")
    references = list(_references(document))
    assert references
    for reference in references:
        assert _at(document, reference) is not None, reference


@pytest.mark.parametrize("name", [*NAMES, "gateway"])
def test_every_request_and_every_answer_with_a_body_has_an_example_that_fits_its_schema(
    documents: dict[str, dict[str, Any]], name: str
) -> None:
    document = documents[name]
    checked = 0
    for label, media_type in _media_types(document):
        examples = [example["value"] for example in media_type.get("examples", {}).values()] or [media_type["example"]]
        for example in examples:
            assert _faults(document, media_type["schema"], example) == [], label
            checked += 1
    assert checked > 100


@pytest.mark.parametrize("name", [*NAMES, "gateway"])
def test_null_may_stand_for_every_field_of_json_that_may_be_left_out(documents: dict[str, dict[str, Any]], name: str) -> None:
    document = documents[name]
    for path, item in document["paths"].items():
        for method, operation in item.items():
            media_type = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if media_type is not None:
                schema = document["components"]["schemas"][media_type["schema"]["$ref"].rpartition("/")[2]]
                shortest = {field: value for field, value in _an_example(media_type).items() if field in schema.get("required", ())}
                nulls = dict.fromkeys(schema["properties"].keys() - shortest.keys())
                assert _faults(document, media_type["schema"], nulls | shortest) == [], (method, path)


def _an_example(media_type: dict[str, Any]) -> dict[str, Any]:
    example: dict[str, Any] = next(iter(media_type["examples"].values()))["value"]
    return example


def test_an_example_that_does_not_fit_is_found(documents: dict[str, dict[str, Any]]) -> None:
    schema = {"$ref": "#/components/schemas/CreateAvatar"}
    assert _faults(documents["management"], schema, {"avatar_id": "ms lee", "video_path": "x"})
    assert _faults(documents["management"], schema, {"avatar_id": "ms_lee"})


@pytest.mark.parametrize("name", [*NAMES, "gateway"])
def test_every_call_says_what_it_answers_and_which_errors_it_can_give(documents: dict[str, dict[str, Any]], name: str) -> None:
    for path, item in documents[name]["paths"].items():
        for method, operation in item.items():
            statuses = set(operation["responses"])
            assert any(status.startswith(("1", "2")) for status in statuses), (method, path)
            assert {"400", "403", "415", "500"} <= statuses, (method, path)
            assert operation["summary"]
            assert operation["security"] == [] or "401" in statuses, (method, path)


def test_every_problem_type_that_is_sent_over_http_is_in_a_document(documents: dict[str, dict[str, Any]]) -> None:
    text = json.dumps(documents)
    missing = {kind.slug for kind in problem_kinds() if f'"urn:gpuserver:problem:{kind.slug}"' not in text}
    assert missing <= ELSEWHERE


def test_answers_that_differ_in_their_type_alone_stand_together(documents: dict[str, dict[str, Any]]) -> None:
    speech = documents["media"]["paths"]["/v1/audio/speech"]["post"]
    assert set(speech["responses"]["200"]["content"]) == {"audio/mpeg", "audio/wav", "audio/pcm"}


def test_an_operation_needs_no_more_than_a_summary_and_an_answer() -> None:
    operation = Operation("Tag", "What it does", (Answer("Done.", status=204),))
    assert (operation.body, operation.parameters, operation.errors) == (None, (), ())


def _media_types(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            for kind, media_type in operation.get("requestBody", {}).get("content", {}).items():
                yield f"{method} {path} {kind}", media_type
            for status, response in operation["responses"].items():
                found = _at(document, response["$ref"]) if "$ref" in response else response
                for kind, media_type in found.get("content", {}).items():
                    yield f"{method} {path} {status} {kind}", media_type


def _references(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for value in part.values():
            yield from _references(value)
    elif isinstance(part, list):
        for value in part:
            yield from _references(value)


def _at(document: dict[str, Any], reference: str) -> Any:
    part: Any = document
    for name in reference.removeprefix("#/").split("/"):
        part = part[name]
    return part


def _faults(document: dict[str, Any], schema: dict[str, Any], example: object) -> list[str]:
    """What of the example does not fit. Binary strings stand for files; their content is not looked at."""
    validator = jsonschema_rs.Draft202012Validator({**schema, "components": document["components"]})
    return [error.message for error in validator.iter_errors(example)]
