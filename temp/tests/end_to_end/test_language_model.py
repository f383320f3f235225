"""A call with a real language model: llama.cpp's server on the loopback, asked through its OpenAI-compatible API."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from face_page import FacePage
from running_server import running_server
from tiny_llm import MODEL, SENTENCES, tiny_llm


@pytest.fixture(scope="module")
def visit(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FacePage]:
    folder = tmp_path_factory.mktemp("model")
    with tiny_llm(folder) as address, running_server(folder, LLM="openai", OPENAI_BASE_URL=address, LLM_DEFAULT_MODEL=MODEL) as server:
        visit = FacePage(browser, server.url, locale="en-GB")
        visit.call("demo")
        yield visit
        visit.close()


def test_the_models_words_appear_one_by_one_and_are_spoken(visit: FacePage) -> None:
    pieces = []
    visit.page.expose_function("heardPiece", pieces.append)
    visit.page.evaluate(
        """() => new MutationObserver(() => {
            const bubble = document.querySelector(".bubble[data-role=assistant]");
            if (bubble) heardPiece(bubble.textContent);
        }).observe(document.getElementById("log"), { childList: true, subtree: true, characterData: true })"""
    )
    visit.write("Can you help me with my homework?")
    visit.wait_until("speaking")
    answer = visit.page.locator(".bubble[data-role=assistant]").last
    known_words = {word for sentence in SENTENCES for word in sentence.split()}
    assert len(known_words & set(answer.inner_text().replace(".", " .").replace("?", " ?").split())) > 5
    assert len(set(pieces)) > 3
    assert all(later.startswith(earlier) for earlier, later in zip(pieces, pieces[1:], strict=False))


def test_the_trace_names_the_model(visit: FacePage) -> None:
    visit.page.keyboard.press("Escape")
    expect(visit.page.locator("#trace")).to_be_visible()
    visit.page.click("#trace summary")
    expect(visit.page.locator("#trace")).to_contain_text(MODEL)
    expect(visit.page.locator("#trace tr[data-stage=first_token]")).to_be_visible()
