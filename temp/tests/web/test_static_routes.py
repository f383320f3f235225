"""The page and its files."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp import web
from conftest import MakeSettings
from pytest_aiohttp.plugin import AiohttpClient
from yarl import URL

from gpuserver.config import Settings
from gpuserver.web.problem import problem_middleware
from gpuserver.web.static_routes import CONTENT_TYPES, FOLDER, add_static_routes, content_security_policy


def _app(settings: Settings, folder: Path = FOLDER) -> web.Application:
    app = web.Application(middlewares=[problem_middleware])
    add_static_routes(app, settings, folder)
    return app


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    static = tmp_path / "static"
    (static / "js").mkdir(parents=True)
    (static / "index.html").write_text("<p>page</p>")
    (static / "js" / "main.js").write_text("1")
    (static / "notes.py").write_text("not for the web")
    (tmp_path / "secret.txt").write_text("secret")
    return static


async def test_the_page_is_html_with_a_content_security_policy(aiohttp_client: AiohttpClient, settings: Settings, folder: Path) -> None:
    client = await aiohttp_client(_app(settings, folder))
    answer = await client.get("/")
    assert (answer.status, answer.content_type, await answer.text()) == (200, "text/html", "<p>page</p>")
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-cache"


async def test_a_file_in_a_folder_has_its_type_and_is_asked_for_again_by_its_etag(
    aiohttp_client: AiohttpClient, settings: Settings, folder: Path
) -> None:
    client = await aiohttp_client(_app(settings, folder))
    answer = await client.get("/static/js/main.js")
    assert (answer.status, answer.content_type) == (200, "text/javascript")
    again = await client.get("/static/js/main.js", headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status == 304


@pytest.mark.parametrize(
    "path",
    [
        "/static/",
        "/static/../secret.txt",
        "/static/%2e%2e/secret.txt",
        "/static/..%2fsecret.txt",
        "/static/js",
        "/static/notes.py",
        "/static//etc/passwd",
        "/static/a%00",
    ],
)
async def test_nothing_else_is_served(aiohttp_client: AiohttpClient, settings: Settings, folder: Path, path: str) -> None:
    client = await aiohttp_client(_app(settings, folder))
    answer = await client.get(URL(path, encoded=True))
    assert answer.status == 404


def test_every_file_of_the_page_has_a_known_type() -> None:
    assert (FOLDER / "index.html").is_file()
    unknown = [path.name for path in FOLDER.rglob("*") if path.is_file() and path.suffix not in CONTENT_TYPES and path.suffix != ".md"]
    assert unknown == []


def test_the_policy_lets_the_page_reach_engine_url_on_public_url(make_settings: MakeSettings) -> None:
    policy = content_security_policy(make_settings(public_url="https://gpu.example.org/x"))
    assert "connect-src 'self' https://gpu.example.org wss://gpu.example.org;" in policy
