"""/docs in a real browser: Swagger UI comes up under the strict content security policy, offline, and its calls succeed with a key."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from browser import STEP_MS, chromium
from playwright.sync_api import Page
from running_server import RunningServer, running_server

KEY = "a-key-of-at-least-thirty-two-characters"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("docs"), demo=False, API_KEYS=KEY) as server:
        yield server


@pytest.fixture
def page() -> Iterator[Page]:
    with chromium() as browser:
        page = browser.new_page()
        page.set_default_timeout(STEP_MS)
        yield page


def test_docs_show_every_operation_offline_and_call_with_a_key(server: RunningServer, page: Page) -> None:
    complaints: list[str] = []
    hosts: set[str] = set()
    page.on("console", lambda message: complaints.append(message.text) if message.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    page.goto(f"{server.url}/docs")
    page.wait_for_selector(".opblock")

    document = httpx.get(f"{server.url}/openapi.json").json()
    assert page.locator(".opblock").count() == sum(len(item) for item in document["paths"].values())
    page.get_by_role("button", name="Authorize").first.click()
    page.locator(".auth-container", has_text="X-API-Key").locator("input").fill(KEY)
    page.locator(".auth-container", has_text="X-API-Key").get_by_role("button", name="Apply credentials").click()
    page.get_by_role("button", name="Close").first.click()
    operation = page.locator("#operations-Avatars-get_v1_avatars")
    operation.locator(".opblock-summary").click()
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_role("button", name="Execute").click()
    assert operation.locator(".live-responses-table tbody .response-col_status").first.inner_text().startswith("200")
    assert complaints == []
    assert hosts == {urlsplit(server.url).netloc}


def test_the_problem_types_are_a_page_to_read(server: RunningServer, page: Page) -> None:
    page.goto(f"{server.url}/docs")
    with page.expect_popup() as opened:
        page.get_by_role("link", name="Every type of problem").click()
    problems = opened.value
    problems.wait_for_selector("#avatar-not-found")
    assert problems.locator("tbody tr").count() > 40
    border = problems.evaluate("getComputedStyle(document.querySelector('td')).borderBottomStyle")
    assert border == "solid"  # its style sheet has been applied
