"""A fake of a speech service with OpenAI's POST /v1/audio/speech, on the loopback, with the faults it can have."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from aiohttp import web
from attentive_server import AttentiveServer

CHUNK = 4_801  # bytes: pieces end in the middle of a sample
MODES = (
    "wav", "wav_of_known_length", "stereo", "pcm", "cut_chunks", "cut_length", "short_wav", "abort", "garbage", "float_wav", "html",
    "json", "empty", "headers_only", "failing", "unknown_voice", "busy", "hang", "hang_before_sound", "hang_after_sound", "endless",
)  # fmt: skip


def tone(seconds: float, rate: int) -> np.ndarray:
    return (np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate) * 8192).astype("<i2")


def wav_header(rate: int, length: int, channels: int = 1, code: int = 1, bits: int = 16) -> bytes:
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, code, channels, rate, rate * channels * bits // 8, channels * bits // 8, bits)
    note = b"LIST" + struct.pack("<I", 3) + b"hi!\0"  # an odd chunk is padded
    return b"RIFF" + struct.pack("<I", min(length + 48, 0xFFFFFFFF)) + b"WAVE" + form + note + b"data" + struct.pack("<I", length)


class FakeSpeechService:
    """Answers every request with `seconds` of a tone. mode: one of MODES. requests: the bodies received."""

    def __init__(self, mode: str = "wav", seconds: float = 1.0, rate: int = 22_050):
        assert mode in MODES
        self.mode = mode
        self.seconds = seconds
        self.rate = 24_000 if mode == "pcm" else rate
        self.requests: list[dict[str, Any]] = []
        self.answer_closed = asyncio.Event()
        self._released = asyncio.Event()

    def release(self) -> None:
        """Let what hangs come to an end."""
        self._released.set()

    async def speech(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(await request.json())
        match self.mode:
            case "failing":
                return web.json_response({"error": {"message": "out of memory"}}, status=500)
            case "unknown_voice":
                return web.json_response({"error": {"message": "no such voice"}}, status=400)
            case "busy":
                return web.Response(status=503)
            case "html":
                return web.Response(text="<html>proxy</html>", content_type="text/html")
            case "json":
                return web.json_response({"audio": "none"})
            case "empty":
                return web.Response(body=b"", content_type="audio/wav")
            case "hang":
                await self._released.wait()
        response = web.StreamResponse(headers={"Content-Type": "audio/pcm" if self.mode == "pcm" else "audio/wav"})
        sound = self._sound()
        if self.mode == "cut_length":
            response.content_length = len(sound)
        await response.prepare(request)
        try:
            await self._stream(request, response, sound)
        finally:
            self.answer_closed.set()
        return response

    def _sound(self) -> bytes:
        samples = tone(self.seconds, self.rate)
        match self.mode:
            case "pcm":
                return samples.tobytes()
            case "stereo":
                return wav_header(self.rate, 4 * len(samples), channels=2) + np.repeat(samples, 2).tobytes()
            case "wav_of_known_length":
                return wav_header(self.rate, 2 * len(samples)) + samples.tobytes() + b"LIST\x02\0\0\0hi"
            case "short_wav":
                return wav_header(self.rate, 4 * len(samples)) + samples.tobytes()
            case "float_wav":
                return wav_header(self.rate, 0xFFFFFFFF, code=3, bits=32) + samples.tobytes()
            case "garbage":
                return b"RIFF\0\0\0\0AVI " + bytes(100)
            case "headers_only":
                return wav_header(self.rate, 0xFFFFFFFF)
        return wav_header(self.rate, 0xFFFFFFFF) + samples.tobytes()

    async def _stream(self, request: web.Request, response: web.StreamResponse, sound: bytes) -> None:
        if self.mode == "hang_before_sound":
            await self._released.wait()
        for start in range(0, len(sound), CHUNK):
            await response.write(sound[start : start + CHUNK])
            if start >= len(sound) // 2:
                match self.mode:
                    case "abort" | "cut_chunks" | "cut_length":
                        assert request.transport is not None
                        request.transport.abort() if self.mode == "abort" else request.transport.close()
                        return
                    case "hang_after_sound":
                        await self._released.wait()
        while self.mode == "endless":
            await response.write(sound)


@asynccontextmanager
async def fake_speech_service(mode: str = "wav", seconds: float = 1.0) -> AsyncIterator[tuple[FakeSpeechService, str]]:
    """The fake, listening, and its TTS_SERVICE_URL."""
    fake = FakeSpeechService(mode, seconds)
    app = web.Application()
    app.router.add_post("/v1/audio/speech", fake.speech)
    async with AttentiveServer(app) as server:
        try:
            yield fake, f"http://127.0.0.1:{server.port}"
        finally:
            fake.release()
