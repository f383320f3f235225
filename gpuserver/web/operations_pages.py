"""The page, the documentation and the metrics as OpenAPI describes them."""

from __future__ import annotations

from gpuserver.web.operation import IF_NONE_MATCH, RANGE, STRING, Answer, Operation, Operations, Parameter, file_answers

ABOUT_REFUSALS = """**Refusals** are `application/problem+json`; tell them apart by `type`.
[Every type](docs/problems) says what to do about it.

**Limits.** Answers carry `RateLimit` and `RateLimit-Policy`. 429 and 503 carry `Retry-After` where waiting helps. Compressed bodies are not
taken."""

_FILE = Parameter("path", "path", "A file of /docs.", STRING, "docs.js")

PAGES, DOCUMENTATION, MONITORING = "The page", "Documentation", "Monitoring"
HTML = "text/html"
ANY_TYPE = "*/*"

PAGE_OPERATIONS: Operations = {
    "GET /": Operation(PAGES, "The page", file_answers(HTML, "HTML."), parameters=(IF_NONE_MATCH, RANGE)),
    "GET /static/{path}": Operation(PAGES, "Its files", file_answers(ANY_TYPE, "The file."), parameters=(IF_NONE_MATCH, RANGE)),
}

DOCUMENTATION_OPERATIONS: Operations = {
    "GET /openapi.json": Operation(
        DOCUMENTATION, "This document", (Answer("OpenAPI 3.1.", {"type": "object"}, {"openapi": "3.1.1", "info": {"title": "…"}}),)
    ),
    "GET /docs": Operation(
        DOCUMENTATION, "This document to read and to try", (Answer("HTML.", STRING, "<!doctype html>…", content_type=HTML),)
    ),
    "GET /docs/problems": Operation(
        DOCUMENTATION, "Every type of problem", (Answer("HTML.", STRING, "<!doctype html>…", content_type=HTML),)
    ),
    "GET /docs/files/{path}": Operation(
        DOCUMENTATION, "Its files", file_answers(ANY_TYPE, "The file."), parameters=(_FILE, IF_NONE_MATCH, RANGE)
    ),
}

METRICS_OPERATIONS: Operations = {
    "GET /metrics": Operation(
        MONITORING,
        "Figures for Prometheus",
        tuple(
            Answer("As Prometheus reads it.", STRING, "# TYPE gpuserver_sessions gauge\ngpuserver_sessions 1\n", content_type=content_type)
            for content_type in ("text/plain", "application/openmetrics-text")
        ),
        "Without a key only for this machine.",
    ),
}
