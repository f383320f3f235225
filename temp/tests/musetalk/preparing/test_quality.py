"""The report on a video: its advice, and that the page can give it in Chinese."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clips import portrait

from gpuserver import web
from gpuserver.errors import NoUsableFace
from gpuserver.musetalk.preparing.quality import report, usable_run
from gpuserver.musetalk.vision.face_track import Findings, Run
from gpuserver.musetalk.vision.faces import Face, FaceFinder

STATIC = Path(str(web.__file__)).parent / "static"
POOR = Findings(200, 10, 10, 10, 10, with_others=25, brightness=20, sharpness=0.001, run=Run(0, 40))
POOR_PICTURE = Findings(1, 0, 0, 0, 0, with_others=1, brightness=240, sharpness=0.05, run=Run(0, 1), upside_down=True)


@pytest.fixture(scope="module")
def face() -> Face:
    face = FaceFinder().find(portrait())
    assert face is not None
    return face


def turned(face: Face, quarters: int) -> Face:
    """The face after so many quarter turns, and small."""
    x, y = (np.linalg.matrix_power(np.array([[0, -1], [1, 0]]), quarters) @ (face.landmarks / 2).T).astype(np.float32)
    return replace(face, landmarks=np.stack([x, y], axis=1))


def moving(face: Face, count: int) -> list[Face]:
    return [replace(face, landmarks=face.landmarks + np.float32(3 * index)) for index in range(count)]


def test_a_good_video_needs_no_advice(face: Face) -> None:
    findings = Findings(200, 0, 0, 0, 0, with_others=0, brightness=150, sharpness=0.05, run=Run(0, 200))
    advice = report(findings, Run(0, 200), [face] * 200).advice
    assert [line for line in advice if not line.startswith("The lips are parted")] == []  # the portrait smiles


def test_a_loop_that_is_seen_to_repeat_is_named(face: Face) -> None:
    findings = Findings(60, 0, 0, 0, 0, with_others=0, brightness=150, sharpness=0.05, run=Run(0, 60))
    advice = report(findings, Run(0, 60), [face] * 60).advice
    assert advice[0] == "The loop is only 2.4 seconds long, so it is seen to repeat: film 5 to 60 seconds."


@pytest.mark.parametrize(("still", "wanted"), [(True, "Take a picture of one person"), (False, "Film one person")])
def test_without_a_face_the_advice_is_about_what_was_sent(still: bool, wanted: str) -> None:
    frames = 1 if still else 100
    nobody = Findings(frames, frames, 0, 0, 0, with_others=0, brightness=0, sharpness=0, run=None)
    with pytest.raises(NoUsableFace) as caught:
        usable_run(nobody, [], still=still)
    assert caught.value.advice.startswith(wanted)


@pytest.mark.parametrize("quarters", [1, 3])
def test_a_face_on_its_side_comes_first(face: Face, quarters: int) -> None:
    assert "lies on its side" in report(POOR, Run(0, 40), [turned(each, quarters) for each in moving(face, 40)]).advice[0]


def test_the_page_can_give_every_advice_in_chinese(face: Face) -> None:
    known = re.findall(r'\["(advice\.\w+)", /(.+)/\],', (STATIC / "report.js").read_text())
    chinese = (STATIC / "strings_zh.js").read_text()
    advice = [
        *report(POOR, Run(0, 40), [turned(each, 1) for each in moving(face, 40)], cut_short=True).advice,
        *report(POOR_PICTURE, Run(0, 1), [face]).advice,
    ]
    found = {sentence: [key for key, pattern in known if re.match(pattern, sentence)] for sentence in advice}
    assert {sentence: keys for sentence, keys in found.items() if len(keys) != 1} == {}
    assert {key for key, _ in known} == {key for keys in found.values() for key in keys}
    assert [key for key, _ in known if f'"{key}": ' not in chinese] == []
