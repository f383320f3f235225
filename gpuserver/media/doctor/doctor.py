"""The whole examination: of a running media server by itself, or of this machine while none runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack

from aiohttp import web

from gpuserver.config import Settings
from gpuserver.errors import CannotStart
from gpuserver.media.doctor.checks import Check, diagnose, failed, ok
from gpuserver.media.doctor.machine_checks import machine_checks
from gpuserver.media.doctor.network_checks import network_checks
from gpuserver.media.doctor.service_checks import service_checks
from gpuserver.media.ice import ice_network
from gpuserver.media.ice_connection import IceNetwork
from gpuserver.media.ports import make_ports
from gpuserver.pipeline.language_model import ReportingModel, make_language_model
from gpuserver.pipeline.voice import ReportingVoice, make_voice
from gpuserver.web.answers import json_answer
from gpuserver.web.binding import check_port
from gpuserver.web.keys import needs_key
from gpuserver.wire import Diagnosis, Finding

SERVER, SETTINGS = "Server", "Settings"


class SharedDiagnosis:
    """One examination at a time: who asks while one runs gets its result, so that many who ask cost no more than one."""

    def __init__(self, examine: Callable[[], Coroutine[None, None, Diagnosis]]):
        self._examine = examine
        self._running: asyncio.Task[Diagnosis] | None = None

    async def get(self) -> Diagnosis:
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._examine(), name="diagnosis")
        return await asyncio.shield(self._running)

    async def aclose(self, _app: web.Application | None = None) -> None:
        """End what runs."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])


def add_diagnosis_route(
    app: web.Application, settings: Settings, network: IceNetwork, voice: ReportingVoice, language_model: ReportingModel
) -> None:
    """Serve GET /v1/diagnosis from the media server's `app`."""
    shared = SharedDiagnosis(
        lambda: diagnose([Check(SERVER, _runs, needed=True), *_checks(settings, network, voice, language_model)]),
    )

    @needs_key
    async def diagnosis(_request: web.Request) -> web.Response:
        return json_answer(await shared.get())

    app.router.add_get("/v1/diagnosis", diagnosis)
    app.on_shutdown.append(shared.aclose)


async def examine(settings: Settings) -> Diagnosis:
    """Of a machine where no media server runs: its ports are bound for as long as this takes."""
    async with AsyncExitStack() as parts:
        try:
            network, voice, language_model = ice_network(settings), make_voice(settings), make_language_model(settings)
            for ports in (network.ports, *(make_ports(settings, worker) for worker in range(1, settings.media_workers))):
                ports.start()
                parts.callback(ports.close)
        except CannotStart as error:
            return Diagnosis(healthy=False, findings=[failed(SETTINGS, error.detail, error.advice, needed=True)])
        for part in (voice, language_model):
            part.start()
            parts.push_async_callback(part.aclose)
        free = Check(SERVER, lambda: _could_run(settings), needed=True)
        return await diagnose([free, *_checks(settings, network, voice, language_model)])


def _checks(settings: Settings, network: IceNetwork, voice: ReportingVoice, language_model: ReportingModel) -> list[Check]:
    return [*network_checks(settings, network), *service_checks(settings, voice, language_model), *machine_checks(settings)]


async def _runs() -> Sequence[Finding]:
    return [ok(SERVER, "The media server runs; this is what it finds.")]


async def _could_run(settings: Settings) -> Sequence[Finding]:
    wanted = [
        ("MANAGEMENT_API", settings.management_api_host, settings.management_api_port),
        ("MEDIA", settings.media_host, settings.media_port),
        *([("TTS", settings.media_host, settings.tts_port)] if settings.tts_port else []),
    ]
    findings = []
    for name, host, port in wanted:
        try:
            check_port(name, host, port)
        except CannotStart as error:
            findings.append(failed(SERVER, error.detail, error.advice, needed=True))
        else:
            findings.append(ok(SERVER, f"{host}:{port} is free for it."))
    return findings
