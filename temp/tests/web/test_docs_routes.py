"""/openapi.json and /docs: open to everybody, without secrets, from files that are those of Swagger UI's makers."""

from __future__ import annotations

import hashlib
import json
import re

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from conftest import MakeSettings
from pytest_aiohttp.plugin import AiohttpClient

from gpuserver.errors import CannotStart, GpuserverError
from gpuserver.gateway.server import create_app
from gpuserver.web.docs_routes import FOLDER, problem_kinds

KEY = "0123456789abcdef0123456789abcdef"
# swagger-ui-dist 5.35.0 from the npm registry, file by file as it is in its package.
SHA256 = {
    "swagger-ui.css": "5ed08757e53da3e026d6cbecc61fe5d43585c9560b302d534ad56692519a273d",
    "swagger-ui-bundle.js": "e6a898692f2d768e807c3ba4626068a69a2c5dd960dd6c76f3e4d3a3de180af2",
    "swagger-ui-bundle.js.LICENSE.txt": "37eb6e7e59aed57b2c1acf076574b818ea07b74265717e0bd67b59e0baf9abbb",
    "swagger-ui.LICENSE.txt": "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30",
    "swagger-ui.NOTICE.txt": "0d20d1adef18aee3f40dd258172155521ce702ac445cb5f7b7d60ed32dad2fb2",
}

Client = TestClient[web.Request, web.Application]


@pytest.fixture
async def client(aiohttp_client: AiohttpClient, make_settings: MakeSettings) -> Client:
    return await aiohttp_client(create_app(make_settings(llm="echo", api_keys=KEY)))


@pytest.mark.parametrize("name", SHA256)
def test_the_files_of_swagger_ui_are_unchanged(name: str) -> None:
    assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == SHA256[name]


async def test_the_document_is_public_and_holds_no_secret(client: Client) -> None:
    answer = await client.get("/openapi.json")
    text = await answer.text()
    assert (answer.status, answer.content_type, answer.headers["Cache-Control"]) == (200, "application/json", "no-cache")
    assert "/api/chat/completion" in json.loads(text)["paths"]
    assert KEY not in text
    assert await (await client.get("/openapi.json")).text() == text


async def test_docs_load_their_files_from_this_server_alone(client: Client) -> None:
    answer = await client.get("/docs")
    page = await answer.text()
    assert (answer.status, answer.content_type) == (200, "text/html")
    assert "script-src 'self';" in answer.headers["Content-Security-Policy"]
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert {address for address in addresses if "://" in address} == set()
    for address in addresses:
        if not address.startswith("data:"):
            assert (await client.get(f"/{address}")).status == 200, address
    assert not re.search(r"<script>|<style>|\son\w+=", page)


@pytest.mark.parametrize("path", ["/docs/files/nothing.js", "/docs/files/..%2Fdocs_routes.py", "/docs/files/docs_routes.py"])
async def test_no_other_file_is_served(client: Client, path: str) -> None:
    assert (await client.get(path)).status == 404


async def test_the_problem_types_are_a_page_with_every_kind(client: Client) -> None:
    answer = await client.get("/docs/problems")
    page = await answer.text()
    assert (answer.status, answer.content_type) == (200, "text/html")
    kinds = set(problem_kinds())
    assert GpuserverError in kinds
    assert CannotStart not in kinds
    for kind in kinds:
        assert f'<tr id="{kind.slug}"><td>{kind.status}</td>' in page
