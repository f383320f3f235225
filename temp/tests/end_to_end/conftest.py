"""One browser per module; one server for the modules that leave it as they found it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browser import chromium
from playwright.sync_api import Browser
from running_server import RunningServer, running_server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Nothing reachable but the built-in English voice; the demo avatar, which every test leaves alone."""
    with running_server(tmp_path_factory.mktemp("shared")) as server:
        yield server
