"""The OpenAPI 3.1 document of a server, made of its routes, of the tables of its operations and of the pydantic models."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus

import openapi_pydantic as oas
from aiohttp import web
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from gpuserver import __version__
from gpuserver.errors import NotFound
from gpuserver.web.keys import Access, stated_access
from gpuserver.web.openapi_access import SECURITY, SECURITY_SCHEMES, errors_of_access
from gpuserver.web.openapi_problems import Refusals
from gpuserver.web.operation import BODY_ERRORS, PATH_PARAMETERS, Answer, Body, Operation, Operations, Parameter

REFERENCE = "#/components/schemas/{model}"
ANY_METHOD = "*"
PLACEHOLDER = re.compile(r"\{(\w+)\}")

Shape = type[BaseModel] | Mapping[str, object]


def make_document(app: web.Application, operations: Operations, *, title: str, description: str) -> dict[str, object]:
    """The document as JSON. Raises LookupError for an operation that `app` has no route for."""
    schemas = _Schemas(operations.values())
    refusals = Refusals()
    paths: dict[str, dict[str, oas.Operation]] = {}
    for key, operation in operations.items():
        method, path = key.split(" ")
        access = Access.PUBLIC if operation.is_open else stated_access(_route_of(key, app).handler) or Access.KEY
        paths.setdefault(path, {})[method.lower()] = _operation(key, operation, access, schemas, refusals)
    document = oas.OpenAPI(
        openapi="3.1.1",
        info=oas.Info(
            title=title, version=__version__, description=description, license=oas.License(name="Apache-2.0", identifier="Apache-2.0")
        ),
        externalDocs=oas.ExternalDocumentation(url="docs/problems", description="Every type of problem, and what to do about it"),
        tags=[oas.Tag(name=name) for name in dict.fromkeys(operation.tag for operation in operations.values())],
        paths={path: oas.PathItem.model_validate(item) for path, item in paths.items()},
        components=oas.Components(
            schemas={**schemas.components, **refusals.schemas}, responses=dict(refusals.responses), securitySchemes=dict(SECURITY_SCHEMES)
        ),
    )
    return document.model_dump(mode="json", by_alias=True, exclude_unset=True)


def undescribed_routes(app: web.Application, operations: Operations) -> list[str]:
    """The routes of `app` that no operation describes, like "POST /v1/avatars"."""
    described = {id(_route_of(key, app)) for key in operations}
    routes = (route for route in app.router.routes() if route.method != "HEAD")  # HEAD comes with every GET
    return [_key_of(route) for route in routes if id(route) not in described]


def _route_of(key: str, app: web.Application) -> web.AbstractRoute:
    """The route of the operation, or the longest that takes any method and path below its own."""
    path = key.partition(" ")[2]
    routes = list(app.router.routes())
    for route in routes:
        if _key_of(route) in {key, f"{ANY_METHOD} {path}"}:
            return route
    roots = [(_key_of(route).partition(" ")[2].partition("{")[0], route) for route in routes if route.method == ANY_METHOD]
    candidates = [(root, route) for root, route in roots if path.startswith(root)]
    if not candidates:
        raise LookupError(f"no route for {key}")
    return max(candidates, key=lambda candidate: len(candidate[0]))[1]


def _key_of(route: web.AbstractRoute) -> str:
    return f"{route.method} {route.resource.canonical if route.resource is not None else ''}"


def _operation(key: str, operation: Operation, access: Access, schemas: _Schemas, refusals: Refusals) -> oas.Operation:
    method, path = key.split(" ")
    own = {parameter.name: parameter for parameter in operation.parameters}
    in_path = [own.pop(name, PATH_PARAMETERS[name]) for name in PLACEHOLDER.findall(path)]
    errors = {*operation.errors, *errors_of_access(access)}
    if operation.body is not None:
        errors |= set(BODY_ERRORS)
    if in_path:
        errors.add(NotFound)
    fields: dict[str, object] = {
        "tags": [operation.tag],
        "summary": operation.summary,
        "operationId": re.sub(r"\W+", "_", f"{method.lower()}{path}").strip("_"),
        "security": SECURITY[access],
        "responses": {**_answers(operation.answers, schemas), **refusals.of(errors)},
    }
    if operation.description:
        fields["description"] = operation.description
    if parameters := [*in_path, *own.values()]:
        fields["parameters"] = [_parameter(parameter) for parameter in parameters]
    if operation.body is not None:
        fields["requestBody"] = _request_body(operation.body, schemas)
    return oas.Operation.model_validate(fields)


def _parameter(parameter: Parameter) -> oas.Parameter:
    fields: dict[str, object] = {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.description,
        "schema": dict(parameter.schema),
    }
    if parameter.place == "path":
        fields |= {"required": True, "example": parameter.example}
    return oas.Parameter.model_validate(fields)


def _request_body(body: Body, schemas: _Schemas) -> oas.RequestBody:
    media_type = oas.MediaType(
        media_type_schema=schemas.of(body.shape), examples={name: oas.Example(value=_plain(value)) for name, value in body.examples.items()}
    )
    return oas.RequestBody(content=dict.fromkeys(body.content_types, media_type), required=body.required)


def _answers(answers: Iterable[Answer], schemas: _Schemas) -> dict[str, oas.Response]:
    """By status; answers that differ in their content type alone are one."""
    responses: dict[str, oas.Response] = {}
    for answer in answers:
        response = _answer(answer, schemas)
        before = responses.setdefault(str(answer.status), response)
        if before is not response:
            before.content = {**(before.content or {}), **(response.content or {})}
    return responses


def _answer(answer: Answer, schemas: _Schemas) -> oas.Response:
    response = oas.Response(description=answer.description or HTTPStatus(answer.status).phrase)
    if answer.shape is not None:
        example = {"example": _plain(answer.example)}
        media_type = oas.MediaType.model_validate({"schema": schemas.of(answer.shape), **example})
        response.content = {answer.content_type: media_type}
    if answer.headers:
        response.headers = {name: _header(description) for name, description in answer.headers.items()}
    return response


def _header(description: str) -> oas.Header | oas.Reference:
    return oas.Header.model_validate({"description": description, "required": True, "schema": {"type": "string"}})


def _plain(value: object) -> object:
    """An example as JSON."""
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


class _Schemas:
    """The schemas of all models that operations name, as components."""

    def __init__(self, operations: Iterable[Operation]):
        wanted: dict[tuple[type[BaseModel], JsonSchemaMode], None] = {}
        for operation in operations:
            if operation.body is not None and isinstance(operation.body.shape, type):
                wanted[operation.body.shape, "validation"] = None
            for answer in operation.answers:
                if isinstance(answer.shape, type):
                    wanted[answer.shape, "validation"] = None  # as in requests: what has a default may be left out
        references, definitions = models_json_schema(list(wanted), ref_template=REFERENCE)
        self._references = {model: reference for (model, _), reference in references.items()}
        self.components = {name: oas.Schema.model_validate(schema) for name, schema in definitions.get("$defs", {}).items()}

    def of(self, shape: Shape) -> oas.Schema | oas.Reference:
        if isinstance(shape, type):
            return oas.Reference.model_validate(self._references[shape])
        return oas.Schema.model_validate(dict(shape))


def as_text(document: Mapping[str, object]) -> str:
    """The document as it is sent and kept in docs/."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"
