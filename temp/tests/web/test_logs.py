"""Logs: JSON for machines, text for people, never a secret out of a traceback."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from conftest import MakeSettings

from gpuserver.web.logs import configure_logging


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_json_lines_carry_ids_level_and_time(make_settings: MakeSettings, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(make_settings(log_format="json"))
    with structlog.contextvars.bound_contextvars(session_id="s1", turn=3):
        structlog.get_logger("gpuserver.here").info("turn_started", ms=1.5)
    line = json.loads(capsys.readouterr().err)
    expected = {"event": "turn_started", "session_id": "s1", "turn": 3, "ms": 1.5, "level": "info", "logger": "gpuserver.here"}
    assert expected.items() <= line.items()
    assert line["timestamp"].endswith("Z")


def test_the_standard_librarys_loggers_write_the_same_lines(make_settings: MakeSettings, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(make_settings(log_format="json"))
    logging.getLogger("aiohttp.server").error("bad %s", "luck")
    logging.getLogger("aioice.ice").info("every candidate")
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["logger"], line["level"]) == ("bad luck", "aiohttp.server", "error")


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_shows_no_local_variables(make_settings: MakeSettings, capsys: pytest.CaptureFixture[str], log_format: str) -> None:
    configure_logging(make_settings(log_format=log_format))

    def fails() -> None:
        password = "hunter" + str(1 + 1)
        raise RuntimeError(f"failed with {len(password)} characters")

    try:
        fails()
    except RuntimeError:
        structlog.get_logger("gpuserver.here").exception("request_failed")
    printed = capsys.readouterr().err
    assert "failed with 7 characters" in printed
    assert "hunter2" not in printed


def test_lines_below_the_level_are_not_written(make_settings: MakeSettings, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(make_settings(log_level="warning"))
    structlog.get_logger("gpuserver.here").info("quiet")
    assert capsys.readouterr().err == ""
