"""Two media workers with a call each: one that dies or hangs takes its own call only, which goes on by itself in the other one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest
from face_page import IN_CALL, FacePage
from playwright.sync_api import Browser, expect
from running_server import RunningServer, running_server
from scripted_model import MODELS, ScriptedModel, scripted_model

from gpuserver.session_names import worker_of_id

pytestmark = pytest.mark.timeout(240)

PATIENCE_MS = 30_000
HANGS_MS = 15_000  # until a worker that stands still is ended
MODEL_SECONDS = 75.0  # a model that was overlooked is asked again after 10 s
# Every state that the page shows from now on.
WATCH_STATES = """() => {
  globalThis.seenStates = [];
  const stage = document.querySelector("#stage");
  new MutationObserver(() => globalThis.seenStates.push(stage.dataset.state)).observe(stage, { attributeFilter: ["data-state"] });
}"""


@pytest.fixture(scope="module")
def model() -> Iterator[ScriptedModel]:
    with scripted_model({"Who am I?": "You are Bob.", "Are you well?": "I am well, thank you."}) as model:
        yield model


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, model: ScriptedModel) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("workers")
    language_model: dict[str, Any] = {"LLM": "openai", "OPENAI_BASE_URL": model.url, "LLM_DEFAULT_MODEL": MODELS[0]}
    with running_server(folder, MEDIA_WORKERS="2", MAX_SESSIONS="2", RATE_LIMIT="off", **language_model) as server:
        yield server


@pytest.mark.parametrize(
    ("number", "patience"), [(signal.SIGKILL, PATIENCE_MS), (signal.SIGSTOP, PATIENCE_MS + HANGS_MS)], ids=["killed", "hangs"]
)
def test_a_worker_that_fails_ends_no_conversation(
    browser: Browser, server: RunningServer, model: ScriptedModel, number: signal.Signals, patience: int
) -> None:
    _await_workers(server)
    with ExitStack() as stack:
        hit, other = (stack.enter_context(_called(browser, server)) for _ in range(2))
        sessions = {visit: visit.session_id for visit in (hit, other)}
        workers = {visit: worker_of_id(session_id) for visit, session_id in sessions.items()}
        assert sorted(workers.values(), key=str) == [1, 2]
        hit.write("My name is Bob.")
        hit.hear_out()
        other.page.evaluate(WATCH_STATES)
        other.write("Are you well?")
        other.wait_until("speaking")

        worker = workers[hit]
        assert worker is not None
        os.kill(server.worker_process_id(worker), number)
        hit.page.wait_for_selector(f"#call:not([data-session-id='{sessions[hit]}'])", timeout=patience)
        hit.page.wait_for_selector(IN_CALL, timeout=PATIENCE_MS)
        assert worker_of_id(hit.session_id) == workers[other]  # it has not waited for the worker to be started again
        hit.write("Who am I?")
        hit.wait_until("speaking")
        expect(hit.page.locator(".bubble[data-role=assistant]").last).to_contain_text("You are Bob.")
        asked = [(each["role"], each["content"].strip()) for each in model.requests[-1]["messages"]]
        assert [asked[-3], asked[-1]] == [("user", "My name is Bob."), ("user", "Who am I?")]  # with the first answer between them

        other.wait_until("listening")
        assert other.session_id == sessions[other]
        assert set(other.page.evaluate("() => globalThis.seenStates")) <= {"thinking", "speaking", "listening"}
        assert httpx.get(f"{server.url}/v1/sessions").json()["total"] == 2


def _await_workers(server: RunningServer) -> None:
    """Until both serve and know the language model, which a busy one may overlook at its start; they are asked in turn."""
    known = 0
    deadline = time.monotonic() + MODEL_SECONDS
    while known < 2:
        serve = httpx.get(f"{server.media_url}/health").json()["status"] == "healthy"
        known = known + 1 if serve and httpx.get(f"{server.url}/v1/models").json()["total"] else 0
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.1 if known else 0.5)


@contextmanager
def _called(browser: Browser, server: RunningServer) -> Iterator[FacePage]:
    """A visitor in a call with the demo avatar."""
    visit = FacePage(browser, server.url, locale="en-GB")
    try:
        visit.call("demo")
        yield visit
        visit.hang_up()
    finally:
        visit.close()
