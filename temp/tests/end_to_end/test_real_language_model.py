"""A call with a real language model: llama.cpp's server on the loopback, asked through its OpenAI-compatible API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise

import pytest
import tiny_llm
from face_page import FacePage
from playwright.sync_api import Browser, expect
from running_server import running_server

ENGLISH = tuple(sentence for sentence in tiny_llm.SENTENCES if sentence.isascii())  # what the built-in voice can speak


@pytest.fixture(scope="module")
def visit(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FacePage]:
    folder = tmp_path_factory.mktemp("model")
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(tiny_llm, "SENTENCES", ENGLISH)  # which of them it says is chance
        address = stack.enter_context(tiny_llm.tiny_llm(folder))
        server = stack.enter_context(running_server(folder, LLM="openai", OPENAI_BASE_URL=address, LLM_DEFAULT_MODEL=tiny_llm.MODEL))
        visit = FacePage(browser, server.url, locale="en-GB")
        visit.call("demo")
        yield visit
        visit.close()


def test_the_models_words_appear_one_by_one_and_are_spoken(visit: FacePage) -> None:
    pieces: list[str] = []
    visit.page.expose_function("heardPiece", lambda piece: pieces.append(piece))  # noqa: PLW0108 - it marks what it is given
    visit.page.evaluate(
        """() => new MutationObserver(() => {
            const bubble = document.querySelector(".bubble[data-role=assistant]");
            if (bubble) heardPiece(bubble.textContent);
        }).observe(document.getElementById("log"), { childList: true, subtree: true, characterData: true })"""
    )
    visit.write("Can you help me with my homework?")
    visit.wait_until("speaking")
    answer = visit.page.locator(".bubble[data-role=assistant]").last
    known_words = {word for sentence in ENGLISH for word in sentence.split()}
    visit.wait_until("listening")  # the text is complete by then
    assert len(known_words & set(answer.inner_text().replace(".", " .").replace("?", " ?").split())) > 5
    assert len(set(pieces)) > 3
    assert all(later.startswith(earlier) for earlier, later in pairwise(pieces))


def test_the_trace_names_the_model(visit: FacePage) -> None:
    visit.page.keyboard.press("Escape")
    expect(visit.page.locator("#trace")).to_be_visible()
    visit.page.click("#trace summary")
    expect(visit.page.locator("#trace")).to_contain_text(tiny_llm.MODEL)
    expect(visit.page.locator("#trace tr[data-stage=first_token]")).to_be_visible()
