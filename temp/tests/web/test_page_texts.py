"""What the server may refuse is said to a Chinese visitor in Chinese."""

from __future__ import annotations

import re

import pytest

from gpuserver.web.docs_routes import problem_kinds
from gpuserver.web.static_routes import FOLDER

# The page does nothing that is refused like this: what calls the API is a program, or the server's own machinery.
ELSEWHERE = frozenset({
    "conflict", "device-full", "device-lost", "expectation-failed", "forbidden", "job-ended", "job-not-found", "lip-sync-service-failed",
    "method-not-allowed", "no-device", "no-language-model", "not-found", "precondition-failed", "unauthorized", "unprocessable",
    "unsupported-media-type", "upgrade-required", "upstream-failed", "video-not-found", "video-path-forbidden", "video-url-refused",
    "weights-damaged", "weights-missing", "weights-unusable",
})  # fmt: skip
CHINESE = dict(re.findall(r'"(problem\.[^"]+)": "([^"]*)"', (FOLDER / "strings_zh.js").read_text(encoding="utf-8")))


@pytest.mark.parametrize("slug", sorted({kind.slug for kind in problem_kinds()} - ELSEWHERE))
def test_a_problem_that_a_visitor_may_meet_has_its_two_chinese_sentences(slug: str) -> None:
    assert CHINESE[f"problem.{slug}"]
    assert f"problem.{slug}.advice" in CHINESE


def test_what_visitors_do_not_meet_are_problems_that_exist() -> None:
    assert {kind.slug for kind in problem_kinds()} >= ELSEWHERE
