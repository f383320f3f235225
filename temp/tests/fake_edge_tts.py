"""A fake of Microsoft's speech service: the websocket that edge-tts talks to, on the loopback, with the faults it can have."""

from __future__ import annotations

import asyncio
import functools
import io
import json
import math
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from xml.sax.saxutils import unescape

import av
import edge_tts.communicate
import numpy as np
import pytest
from aiohttp import WSMsgType, web
from attentive_server import AttentiveServer

SAMPLE_RATE = 24_000
TICKS_PER_SECOND = 10_000_000
BYTES_PER_SECOND = 6_000  # 48 kbit/s
CHUNK = 720  # bytes: 120 ms
AUDIO_HEADER = b"X-RequestId:1\r\nContent-Type:audio/mpeg\r\nPath:audio\r\n"
MODES = (
    "ok", "cut", "cut_before_sound", "cut_before_the_end", "missing_sound", "abort", "hang", "hang_after_turn_start", "hang_after_sound",
    "forbidden", "unavailable", "garbage", "garbage_sound", "no_sound",
)  # fmt: skip
WORD_SECONDS = 0.3
FIRST_WORD_AT = 0.1  # seconds: the service opens every sentence with a little silence
ANNOUNCING = (
    "ahead",
    "late",
    "first",
    "last",
    "never",
)  # when a word is announced: before or after its sound, all before or after the sound
WORD = re.compile(r"[\w']+(?:\.\d+)?")


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
    """Answers every request with `seconds` of a tone, and the words of its text as if they were said in it, 0.3 s each.

    mode: one of MODES. announcing: one of ANNOUNCING. requests: the SSML documents received.
    """

    def __init__(self, mode: str = "ok", seconds: float = 1.0, announcing: str = "ahead"):
        assert mode in MODES
        assert announcing in ANNOUNCING
        self.mode = mode
        self.announcing = announcing
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
        if self.mode in {"forbidden", "unavailable"}:
            return web.Response(status=403 if self.mode == "forbidden" else 503)
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
        if self.mode == "hang_after_turn_start":
            await self._released.wait()
            return
        words = self._words()
        if self.announcing == "first" or self.mode in {"cut_before_sound", "no_sound"}:
            await self._announce(socket, words, math.inf)
        if self.mode == "cut_before_sound":
            await socket.close()
            return
        if not await self._send_sound(socket, request, words):
            return
        if self.announcing in {"late", "last"}:
            await self._announce(socket, words, math.inf)
        if self.mode == "cut_before_the_end":
            await socket.close()
            return
        await socket.send_str("X-RequestId:1\r\nPath:turn.end\r\n\r\n{}")

    async def _send_sound(self, socket: web.WebSocketResponse, request: web.Request, words: list[tuple[str, float]]) -> bool:
        """Whether all of it was sent."""
        sound = b"" if self.mode == "no_sound" else mp3(self.seconds)
        if self.mode == "missing_sound":
            sound = sound[: len(sound) // 2]
        if self.mode == "garbage_sound":
            sound = b"<html>" * (len(sound) // 6)
        for start in range(0, len(sound), CHUNK):
            at = start / BYTES_PER_SECOND
            if self.announcing in {"ahead", "late"}:
                await self._announce(socket, words, at + (CHUNK / BYTES_PER_SECOND if self.announcing == "ahead" else -WORD_SECONDS))
            await socket.send_bytes(len(AUDIO_HEADER).to_bytes(2, "big") + AUDIO_HEADER + sound[start : start + CHUNK])
            if start >= len(sound) // 2 and self.mode in {"cut", "abort", "hang_after_sound", "garbage"}:
                await self._break_off(socket, request)
                return False
        if self.mode == "missing_sound":
            await self._announce(socket, words, math.inf)
        return True

    def _words(self) -> list[tuple[str, float]]:
        """The words of the last text that fit into the sound, with the times at which they begin."""
        text = unescape(self.texts()[-1])
        found = [word for run in WORD.findall(text) for word in (run if run[0] > "\u2e80" else [run])]
        times = [FIRST_WORD_AT + number * WORD_SECONDS for number in range(len(found))]
        return [(word, time) for word, time in zip(found, times, strict=True) if time + WORD_SECONDS <= self.seconds]

    async def _announce(self, socket: web.WebSocketResponse, words: list[tuple[str, float]], until: float) -> None:
        """Send the boundaries of the words that begin before `until` (seconds), and forget them."""
        while words and words[0][1] < until and self.announcing != "never":
            word, start = words.pop(0)
            ticks = {"Offset": round(start * TICKS_PER_SECOND), "Duration": round(WORD_SECONDS * TICKS_PER_SECOND)}
            data = {**ticks, "text": {"Text": word, "Length": len(word), "BoundaryType": "WordBoundary"}}
            metadata = json.dumps({"Metadata": [{"Type": "WordBoundary", "Data": data}]})
            await socket.send_str("X-RequestId:1\r\nPath:audio.metadata\r\n\r\n" + metadata)

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


@asynccontextmanager
async def fake_edge_tts(
    monkeypatch: pytest.MonkeyPatch, mode: str = "ok", seconds: float = 1.0, announcing: str = "ahead"
) -> AsyncIterator[FakeEdgeTts]:
    """The fake, listening, with edge-tts pointed at it."""
    fake = FakeEdgeTts(mode, seconds, announcing)
    app = web.Application()
    app.router.add_get("/speech", fake.connect)
    async with AttentiveServer(app) as server:
        monkeypatch.setattr(edge_tts.communicate, "WSS_URL", f"ws://127.0.0.1:{server.port}/speech?token=1")
        try:
            yield fake
        finally:
            fake.release()
