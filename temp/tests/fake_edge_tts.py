"""A fake of Microsoft's speech service: the websocket that edge-tts talks to, on the loopback, with the faults it can have."""

from __future__ import annotations

import asyncio
import functools
import io
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import av
import edge_tts.communicate
import numpy as np
import pytest
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer

SAMPLE_RATE = 24_000
TICKS_PER_SECOND = 10_000_000
CHUNK = 720  # bytes: 120 ms at 48 kbit/s
AUDIO_HEADER = b"X-RequestId:1\r\nContent-Type:audio/mpeg\r\nPath:audio\r\n"
MODES = ("ok", "cut", "abort", "hang", "hang_after_sound", "forbidden", "garbage", "no_sound")


@functools.cache
def mp3(seconds: float) -> bytes:
    """A 440 Hz tone, 24 kHz mono at 48 kbit/s, as the service sends it: frames only, no tag."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tone = (np.sin(2 * np.pi * 440 * time) * 0.25).astype(np.float32)[np.newaxis]
    file = io.BytesIO()
    with av.open(file, "w", format="mp3", options={"write_xing": "0", "id3v2_version": "0"}) as container:
        stream = container.add_stream("mp3", rate=SAMPLE_RATE, layout="mono")
        stream.bit_rate = 48_000
        frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return file.getvalue()


class FakeEdgeTts:
    """Answers every request with `seconds` of a tone. mode: one of MODES. requests: the SSML documents received."""

    def __init__(self, mode: str = "ok", seconds: float = 1.0):
        assert mode in MODES
        self.mode = mode
        self.seconds = seconds
        self.requests: list[str] = []
        self.open_connections = 0
        self._released = asyncio.Event()

    def texts(self) -> list[str]:
        return [re.sub(r"<[^>]*>", "", ssml.split("\r\n\r\n", 1)[1]) for ssml in self.requests]

    def voices(self) -> list[str]:
        return [found[1] for ssml in self.requests if (found := re.search(r"<voice name='([^']*)'", ssml))]

    def release(self) -> None:
        """Let the connections that hang come to an end."""
        self._released.set()

    async def connect(self, request: web.Request) -> web.StreamResponse:
        if self.mode == "forbidden":
            return web.Response(status=403)
        socket = web.WebSocketResponse(compress=True)
        await socket.prepare(request)
        self.open_connections += 1
        try:
            async for message in socket:
                if message.type == WSMsgType.TEXT and "Path:ssml" in message.data:
                    self.requests.append(message.data)
                    await self._answer(socket, request)
                    break
        finally:
            self.open_connections -= 1
        return socket

    async def _answer(self, socket: web.WebSocketResponse, request: web.Request) -> None:
        if self.mode == "hang":
            await self._released.wait()
            return
        await socket.send_str("X-RequestId:1\r\nPath:turn.start\r\n\r\n{}")
        await socket.send_str("X-RequestId:1\r\nPath:audio.metadata\r\n\r\n" + self._boundary())
        sound = b"" if self.mode == "no_sound" else mp3(self.seconds)
        for start in range(0, len(sound), CHUNK):
            await socket.send_bytes(len(AUDIO_HEADER).to_bytes(2, "big") + AUDIO_HEADER + sound[start : start + CHUNK])
            if start >= len(sound) // 2 and self.mode in {"cut", "abort", "hang_after_sound", "garbage"}:
                await self._break_off(socket, request)
                return
        await socket.send_str("X-RequestId:1\r\nPath:turn.end\r\n\r\n{}")

    async def _break_off(self, socket: web.WebSocketResponse, request: web.Request) -> None:
        match self.mode:
            case "cut":
                await socket.close()
            case "abort":
                assert request.transport is not None
                request.transport.abort()
            case "garbage":
                await socket.send_bytes(b"\x00\x05nocolon")
            case "hang_after_sound":
                await self._released.wait()

    def _boundary(self) -> str:
        data = {"Offset": 1_000_000, "Duration": round((self.seconds - 0.1) * TICKS_PER_SECOND), "text": {"Text": "…"}}
        return json.dumps({"Metadata": [{"Type": "SentenceBoundary", "Data": data}]})


@asynccontextmanager
async def fake_edge_tts(monkeypatch: pytest.MonkeyPatch, mode: str = "ok", seconds: float = 1.0) -> AsyncIterator[FakeEdgeTts]:
    """The fake, listening, with edge-tts pointed at it."""
    fake = FakeEdgeTts(mode, seconds)
    app = web.Application()
    app.router.add_get("/speech", fake.connect)
    async with TestServer(app) as server:
        monkeypatch.setattr(edge_tts.communicate, "WSS_URL", f"ws://127.0.0.1:{server.port}/speech?token=1")
        try:
            yield fake
        finally:
            fake.release()
