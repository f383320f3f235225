"""Refusals in OpenAPI: one response for each set of problem types that share a status, with an example of each type."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

import openapi_pydantic as oas

from gpuserver.web.operation import Error
from gpuserver.web.problem import CONTENT_TYPE

WAITING_HELPS = frozenset({429, 503})
PROBLEM = "Problem"
URN = "urn:gpuserver:problem:"

_PROBLEM_SCHEMA = {
    "type": "object",
    "description": "RFC 9457. Tell problems apart by `type`; the sentences may change.",
    "required": ["type", "title", "status", "detail", "advice"],
    "properties": {
        "type": {"type": "string", "pattern": f"^{URN}[a-z-]+$"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "What happened this time."},
        "advice": {"type": "string", "description": "What to do about it."},
        "errors": {"type": "array", "items": {"type": "string"}, "description": "Of invalid-input: what is wrong, field by field."},
        "sessions": {"type": "array", "items": {"type": "string"}, "description": "Of avatar-in-use: which sessions show the avatar."},
    },
}


class Refusals:
    """Collects the responses of a document. responses: by their names among the components."""

    def __init__(self) -> None:
        self.schemas = {PROBLEM: oas.Schema.model_validate(_PROBLEM_SCHEMA)}
        self.responses: dict[str, oas.Response | oas.Reference] = {}

    def of(self, errors: Iterable[Error]) -> dict[str, oas.Reference]:
        """References to the responses for these errors, by status."""
        references = {}
        ordered = sorted(errors, key=lambda error: (error.status, error.slug))
        for status, group in groupby(ordered, key=lambda error: error.status):
            kinds = list(group)
            name = ".".join([str(status), *(kind.slug for kind in kinds)])
            self.responses.setdefault(name, _response(status, kinds))
            references[str(status)] = oas.Reference.model_validate({"$ref": f"#/components/responses/{name}"})
        return references


def _response(status: int, kinds: list[Error]) -> oas.Response:
    schema = {
        "allOf": [{"$ref": f"#/components/schemas/{PROBLEM}"}],
        "properties": {"type": {"enum": [URN + kind.slug for kind in kinds]}, "status": {"const": status}},
    }
    examples = {kind.slug: {"summary": kind.title, "value": kind(f"{kind.title}.").problem()} for kind in kinds}
    fields: dict[str, object] = {
        "description": "; ".join(kind.title for kind in kinds) + ".",
        "content": {CONTENT_TYPE: {"schema": schema, "examples": examples}},
    }
    headers = {}
    if status in WAITING_HELPS:
        headers["Retry-After"] = {"description": "Seconds, where waiting helps.", "schema": {"type": "integer", "minimum": 0}}
    if status == 401:
        headers["WWW-Authenticate"] = {"description": "Bearer.", "schema": {"type": "string"}}
    if headers:
        fields["headers"] = headers
    return oas.Response.model_validate(fields)
