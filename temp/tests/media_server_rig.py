"""The media server under test with a fake voice and a fake language model, and the calls that tests make."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import numpy as np
from aiohttp import ClientWebSocketResponse, web
from aiohttp.test_utils import TestClient
from fakes import FakeLanguageModel, FakeVoice

from gpuserver.domain import Speech
from gpuserver.pipeline.outlook import Outlook
from gpuserver.web.auth import INTERNAL_HEADER
from gpuserver.wire import ModelInfo, VoiceInfo

SECRET = "between the two processes"


class StartedFakeVoice(FakeVoice):
    """The fake voice hums: Opus filters a constant out."""

    async def speak(self, text: str, *, voice: str | None = None, rate: float = 1.0) -> AsyncGenerator[Speech, None]:
        async for speech in super().speak(text, voice=voice, rate=rate):
            hum = np.sin(np.arange(len(speech.pcm)) * 2 * np.pi * 200 / speech.sample_rate)
            yield replace(speech, pcm=(hum * speech.pcm * 5).astype(np.int16))

    def start(self) -> None:
        pass

    def choices(self) -> list[VoiceInfo]:
        return [VoiceInfo(id=self.name, name=self.name, language="en")]

    def status(self) -> dict[str, object]:
        return {"voice": self.name}


class StartedFakeModel(FakeLanguageModel):
    def start(self) -> None:
        pass

    def status(self) -> dict[str, object]:
        return {"model": self.name}

    async def choices(self) -> list[ModelInfo]:
        return [ModelInfo(id=self.name, default=True), ModelInfo(id="another")]

    async def look(self) -> Outlook:
        return Outlook(self.name, "fake")


class MediaServer:
    """The server under test and the calls that tests make."""

    def __init__(self, client: TestClient[web.Request, web.Application], model: StartedFakeModel):
        self.internal = {INTERNAL_HEADER: SECRET}
        self.client = client
        self.model = model

    async def create(self, **fields: Any) -> dict[str, Any]:
        """A new session, as POST /v1/sessions answers it."""
        body = {"tutor_id": 7, "student_id": "s", "avatar_id": "demo", **fields}
        answer = await self.client.post("/v1/sessions", json=body, headers=self.internal)
        assert answer.status == 201, await answer.text()
        created = await answer.json()
        assert isinstance(created, dict)
        return created

    async def socket(self, session: dict[str, Any]) -> ClientWebSocketResponse:
        """The session's WebSocket."""
        return await self.client.ws_connect(f"/ws/{session['session_id']}?token={session['engine_token']}")

    def negotiation(self, session: dict[str, Any]) -> Callable[[str], Awaitable[str]]:
        """For Receiver.connect: the offer over HTTP."""

        async def negotiate(sdp: str) -> str:
            path, headers = f"/v1/sessions/{session['session_id']}/offer", {"Authorization": f"Bearer {session['engine_token']}"}
            answer = await self.client.post(path, json={"sdp": sdp, "type": "offer"}, headers=headers)
            body = await answer.json()
            assert answer.status == 200, body
            return str(body["sdp"])

        return negotiate
