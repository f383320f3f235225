"""The pictures of the page for the README, taken from the running product. With UPDATE_SCREENSHOTS=1 they replace those in docs/."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from face_page import FacePage
from numpy.typing import NDArray
from playwright.sync_api import Browser, expect
from running_server import REPOSITORY, RunningServer, running_server
from scripted_model import MODELS, scripted_model
from small_png import write_small_png

from bench.lips import lip_gaps

QUESTION = "Why is the sky blue?"
ANSWER = (
    "Sunlight is made of all colours. Air scatters blue light far more than red, so blue reaches your eyes from every direction. "
    "At sunset the light crosses more air, the blue is lost on its way, and red remains."
)
MOST_BYTES = 400_000
DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True, "device_scale_factor": 1.5}
SPEAKING = ".bubble[data-role=assistant]"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with (
        scripted_model({QUESTION: ANSWER}) as model,
        running_server(tmp_path_factory.mktemp("shots"), LLM="openai", OPENAI_BASE_URL=model.url, LLM_DEFAULT_MODEL=MODELS[0]) as server,
    ):
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return REPOSITORY / "docs" if os.environ.get("UPDATE_SCREENSHOTS") else tmp_path


def look(visit: FacePage) -> NDArray[np.uint8]:
    """The visible part of the page as uint8 [height, width, 3], RGB."""
    encoded = np.frombuffer(visit.page.screenshot(), np.uint8)
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB), np.uint8)


def save(picture: NDArray[np.uint8], path: Path) -> None:
    write_small_png(path, picture)
    assert path.stat().st_size < MOST_BYTES


def detail(picture: NDArray[np.uint8]) -> int:
    """How many of 16 x 16 fields of the picture are more than one plain colour."""
    rows = np.array_split(picture, 16)
    return sum(int(np.ptp(field) > 24) for row in rows for field in np.array_split(row, 16, axis=1))


def in_mid_word(visit: FacePage) -> NDArray[np.uint8]:
    """The page in a call while the answer is spoken: of some moments one with an open mouth."""
    visit.call("demo")
    visit.write(QUESTION)
    visit.wait_until("speaking")
    expect(visit.page.locator(SPEAKING)).to_contain_text("red remains.")
    moments = [look(visit) for _ in range(9)]
    assert visit.page.get_attribute("#stage", "data-state") == "speaking"
    gaps, _ = lip_gaps(moments)
    return moments[int(np.argsort(gaps)[len(gaps) * 2 // 3])]


def test_the_call_on_a_desk(browser: Browser, server: RunningServer, folder: Path) -> None:
    visit = FacePage(browser, server.url, locale="en-GB", color_scheme="light", **DESKTOP)
    picture = in_mid_word(visit)
    assert detail(picture[:, :800]) > 64  # the face and what it looks into
    save(picture, folder / "page.png")
    visit.close()


def test_the_call_on_a_phone_in_the_dark(browser: Browser, server: RunningServer, folder: Path) -> None:
    visit = FacePage(browser, server.url, locale="en-GB", color_scheme="dark", **PHONE)
    picture = in_mid_word(visit)
    assert detail(picture[: picture.shape[0] // 2]) > 64
    save(picture, folder / "page-phone.png")
    visit.close()


def test_the_lobby(browser: Browser, server: RunningServer, folder: Path) -> None:
    visit = FacePage(browser, server.url, locale="en-GB", color_scheme="light", **DESKTOP)
    visit.page.wait_for_load_state("networkidle")
    picture = look(visit)
    assert detail(picture) > 24
    save(picture, folder / "lobby.png")
    visit.close()
