"""/openapi.json, and /docs: Swagger UI on it, from the package's own files, without anything from another host."""

from __future__ import annotations

import asyncio
import html
from collections.abc import Iterator
from pathlib import Path

from aiohttp import web

from gpuserver.errors import CannotStart, GpuserverError
from gpuserver.web.keys import public
from gpuserver.web.operation import Error, Operations
from gpuserver.web.static_routes import CONTENT_TYPES

FOLDER = Path(__file__).parent / "docs"
# Swagger UI shows pictures of its own as data: addresses and sets no style as text.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}

PROBLEMS_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Problem types</title>
<link rel="stylesheet" href="files/problems.css">
<link rel="icon" href="data:,">
</head>
<body>
<h1>Problem types</h1>
<p>Every refusal is <code>application/problem+json</code> (RFC 9457).
Its <code>type</code> is <code>urn:gpuserver:problem:</code> and one of these names. <a href="../docs">The API</a></p>
<table>
<thead><tr><th>Status</th><th>Type</th><th>What happened</th><th>What to do</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
</body>
</html>
"""


def add_docs_routes(app: web.Application, operations: Operations, *, title: str, description: str) -> None:
    """Describe `app` by its own routes and `operations`. The document is made when it is first asked for."""
    docs = app[DOCS] = Docs(app, operations, title, description)
    app.router.add_get("/openapi.json", docs.document)
    app.router.add_get("/docs", docs.page)
    app.router.add_get("/docs/problems", docs.problems)
    app.router.add_get("/docs/files/{path}", docs.file)


class Docs:
    """One method per address. operations: what the document describes."""

    def __init__(self, app: web.Application, operations: Operations, title: str, description: str):
        self.operations = operations
        self._app = app
        self._title = title
        self._description = description
        self._making = asyncio.Lock()
        self._document: str | None = None
        self._files = {path.name: path for path in FOLDER.iterdir() if path.suffix in CONTENT_TYPES}

    @public
    async def document(self, _request: web.Request) -> web.Response:
        """GET /openapi.json."""
        async with self._making:
            if self._document is None:
                self._document = await asyncio.to_thread(self.text)
        return web.Response(text=self._document, content_type="application/json", headers={"Cache-Control": "no-cache"})

    @public
    async def page(self, _request: web.Request) -> web.FileResponse:
        """GET /docs."""
        return self._send("index.html")

    @public
    async def problems(self, _request: web.Request) -> web.Response:
        """GET /docs/problems: the exception tree, as a table."""
        return web.Response(text=problems_page(), content_type="text/html", charset="utf-8", headers=HEADERS)

    @public
    async def file(self, request: web.Request) -> web.FileResponse:
        """GET /docs/files/{path}."""
        return self._send(request.match_info["path"])

    def text(self) -> str:
        """The document. Raises LookupError for an operation without a route."""
        from gpuserver.web.openapi import as_text, make_document  # half a second that only those pay who read it

        return as_text(make_document(self._app, self.operations, title=self._title, description=self._description))

    def _send(self, name: str) -> web.FileResponse:
        path = self._files.get(name)
        if path is None:
            raise web.HTTPNotFound
        return web.FileResponse(path, headers={**HEADERS, "Content-Type": CONTENT_TYPES[path.suffix]})


DOCS = web.AppKey("docs", Docs)


def problems_page() -> str:
    """Every type of problem, what it means and what to do about it, as HTML."""
    rows = "\n".join(
        f'<tr id="{kind.slug}"><td>{kind.status}</td><td><code>{kind.slug}</code></td>'
        f"<td>{html.escape(kind.title)}</td><td>{html.escape(kind.default_advice)}</td></tr>"
        for kind in sorted(problem_kinds(), key=lambda kind: (kind.status, kind.slug))
    )
    return PROBLEMS_PAGE.format(rows=rows)


def problem_kinds(root: Error = GpuserverError) -> Iterator[Error]:
    """The exception tree, as far as it is sent over HTTP."""
    if root is not CannotStart:
        yield root
    for kind in root.__subclasses__():
        yield from problem_kinds(kind)
