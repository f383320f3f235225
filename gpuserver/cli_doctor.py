"""gpuserver doctor: what works on this machine, what does not, and what to do about it."""

from __future__ import annotations

import asyncio
import http.client
import logging
from collections.abc import Iterator
from typing import Annotated

import typer
from pydantic import ValidationError

from gpuserver.cli_settings import read_settings
from gpuserver.config import Settings
from gpuserver.running_media_server import ask
from gpuserver.wire import Diagnosis

ANSWER_SECONDS = 30.0  # every check has 15 s, and all run at once


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Try the network, TURN, voice, language model, GPU, weights and disk. Exit code 1 if something needed fails."""
    settings = read_settings()
    found = of_running_server(settings) or _examined(settings)
    print(found.model_dump_json(indent=2) if as_json else "\n".join(lines(found)))
    if not found.healthy:
        raise typer.Exit(1)


def of_running_server(settings: Settings) -> Diagnosis | None:
    """What the media server of this machine finds; None if none runs. Blocks for ANSWER_SECONDS at most."""
    try:
        status, body = ask(settings, "/v1/diagnosis", ANSWER_SECONDS)
        return Diagnosis.model_validate_json(body) if status == 200 else None
    except (OSError, http.client.HTTPException, ValidationError):
        return None


def _examined(settings: Settings) -> Diagnosis:
    import structlog

    from gpuserver.media.doctor.doctor import examine

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))  # the findings say it all
    return asyncio.run(examine(settings))


def lines(found: Diagnosis) -> Iterator[str]:
    """The list for people."""
    width = max(len(finding.name) for finding in found.findings)
    for finding in found.findings:
        yield f"{finding.status:7}  {finding.name:{width}}  {finding.detail}"
        if finding.advice:
            yield f"{'':7}  {'':{width}}  -> {finding.advice}"
    yield ""
    yield "Everything that is needed works." if found.healthy else "Something that is needed does not work."
