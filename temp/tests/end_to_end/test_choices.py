"""What the user may choose (voice, speed, language model), what the page says is missing, and the figures of the connection."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from face_page import FacePage
from playwright.sync_api import Browser, expect
from running_server import RunningServer, running_server
from scripted_model import MODELS, ScriptedModel, scripted_model


@pytest.fixture(scope="module")
def model() -> Iterator[ScriptedModel]:
    with scripted_model({}) as model:
        yield model


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, model: ScriptedModel) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("choices")
    with running_server(folder, LLM="openai", OPENAI_BASE_URL=model.url, LLM_DEFAULT_MODEL=MODELS[0]) as server:
        yield server


@pytest.fixture
def visit(browser: Browser, server: RunningServer) -> Iterator[FacePage]:
    visit = FacePage(browser, server.url, viewport={"width": 1280, "height": 800}, locale="en-GB")
    yield visit
    visit.close()


def asked(model: ScriptedModel, question: str) -> str:
    """Which model the question went to."""
    return str(next(request["model"] for request in model.requests if request["messages"][-1]["content"] == question))


def test_the_server_says_what_there_is_to_choose_from(visit: FacePage) -> None:
    visit.page.click("#lobby [popovertarget=settings]")
    expect(visit.page.locator("#settings-model option").first).to_have_text(f"Default ({MODELS[0]})")
    assert visit.page.locator("#settings-model option").all_inner_texts()[1:] == list(MODELS)
    assert visit.page.locator("#settings-voice optgroup").first.get_attribute("label") == "English"
    assert visit.page.input_value("#settings-voice") == ""


def test_a_choice_holds_for_the_call_and_changes_during_it(visit: FacePage, model: ScriptedModel) -> None:
    visit.page.click("#lobby [popovertarget=settings]")
    visit.page.select_option("#settings-model", MODELS[1])
    visit.page.keyboard.press("Escape")
    visit.page.reload()  # it is remembered
    visit.call("demo")
    visit.write("One and two.")
    visit.hear_out()
    visit.page.click("#stage [popovertarget=settings]")
    visit.page.select_option("#settings-model", "")
    visit.page.keyboard.press("Escape")
    visit.write("Three and four.")
    visit.hear_out()
    assert [asked(model, question) for question in ("One and two.", "Three and four.")] == [MODELS[1], MODELS[0]]
    assert visit.complaints == []


def test_slower_speech_takes_longer(visit: FacePage) -> None:
    visit.call("demo")
    seconds = []
    for rate in ("2", "0.5"):
        visit.page.evaluate(
            """(rate) => {
                const slider = document.getElementById("settings-rate");
                slider.value = rate;
                for (const type of ["input", "change"]) slider.dispatchEvent(new Event(type));
            }""",
            rate,
        )
        visit.write("One two three four five six.", "say")
        visit.hear_out()
        done = visit.page.locator("#trace tr[data-stage=done]").get_attribute("data-ms")
        begun = visit.page.locator("#trace tr[data-stage=first_packet]").get_attribute("data-ms")
        seconds.append((float(done or 0) - float(begun or 0)) / 1000)
    assert seconds[1] > 2 * seconds[0]
    assert visit.page.text_content("#settings-rate-value") == "0.5×"


def test_the_key_d_shows_how_the_picture_arrives_and_how_the_answer_came_about(visit: FacePage) -> None:
    visit.call("demo")
    visit.write("How is it going?")
    visit.hear_out()
    visit.page.keyboard.type("d")  # belongs to the text
    assert visit.page.input_value("#text") == "d"
    expect(visit.page.locator("#stats")).to_be_hidden()
    visit.page.focus("#hang-up")
    visit.page.keyboard.press("d")
    for figure, pattern in {
        "fps": r"[1-9]\d* per second",
        "bitrate": r"[1-9]\d* kbit/s",
        "picture": r"512 × 512",
        "loss": r"\d+\.\d%",
    }.items():
        expect(visit.page.locator(f"#stats dd[data-figure={figure}]")).to_have_text(re.compile(f"^{pattern}$"))
    expect(visit.page.locator("#stats dd[data-figure=round_trip]")).to_have_text(re.compile(r"^\d+ ms$"))
    expect(visit.page.locator("#stats tr[data-stage=first_packet] .bar-fill")).to_be_visible()
    visit.page.keyboard.press("D")
    expect(visit.page.locator("#stats")).to_be_hidden()


def test_with_all_parts_there_nothing_is_said_to_be_missing(visit: FacePage) -> None:
    with visit.page.expect_response("**/health"):
        visit.page.reload()
    expect(visit.page.locator("#missing")).to_be_hidden()


def test_what_is_missing_stands_there_in_a_plain_line_with_what_to_do(browser: Browser, shared_server: RunningServer) -> None:
    visit = FacePage(browser, shared_server.url, locale="en-GB")
    expect(visit.page.locator("#missing li[data-code=model]")).to_contain_text("Start Ollama")
    visit.close()


@pytest.mark.parametrize(
    ("components", "codes"),
    [
        ({"media_server": {"status": "down"}}, ["media"]),
        ({"voice": {"edge-tts": "unreachable", "http": "unreachable"}}, ["network_voice", "service_voice"]),
        ({"language_model": {"model": "b:1", "fallback": "The model a:70b is not there, b:1 answers."}}, ["default_model"]),
        ({"language_model": {"model": "b:1", "fallback": None, "message": None}, "voice": {"edge-tts": "ok"}}, []),
    ],
)
def test_every_missing_part_has_its_line(
    browser: Browser, server: RunningServer, components: dict[str, dict[str, str | None]], codes: list[str]
) -> None:
    visit = FacePage(browser, server.url, locale="en-GB")
    visit.page.route("**/health", lambda route: route.fulfill(json={"components": components}))
    with visit.page.expect_response("**/health"):
        visit.page.reload()
    expect(visit.page.locator("#missing li")).to_have_count(len(codes))
    assert [line.get_attribute("data-code") for line in visit.page.locator("#missing li").all()] == codes
    visit.close()
