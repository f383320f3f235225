"""GET /v1/voices and /v1/models: what a session may name as its voice and its language model."""

from __future__ import annotations

from typing import Protocol

from aiohttp import web

from gpuserver.web.answers import json_answer
from gpuserver.web.keys import needs_key
from gpuserver.wire import ModelInfo, ModelList, VoiceInfo, VoiceList


class OfferingVoice(Protocol):
    def choices(self) -> list[VoiceInfo]: ...


class OfferingModel(Protocol):
    async def choices(self) -> list[ModelInfo]: ...


def add_choice_routes(app: web.Application, voice: OfferingVoice, language_model: OfferingModel) -> None:
    """Serve both lists from `app`."""

    @needs_key
    async def voices(_request: web.Request) -> web.Response:
        choices = voice.choices()
        return json_answer(VoiceList(total=len(choices), voices=choices))

    @needs_key
    async def models(_request: web.Request) -> web.Response:
        choices = await language_model.choices()
        return json_answer(ModelList(total=len(choices), models=choices))

    app.router.add_get("/v1/voices", voices)
    app.router.add_get("/v1/models", models)
