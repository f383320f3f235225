"""The whole product is stopped while an answer hangs: every client learns it, and nothing has to be killed."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import WSMsgType
from fake_ollama import fake_ollama
from running_server import RunningServer, running_server

PATIENCE = 30.0


@asynccontextmanager
async def _running(folder: Path, ollama: str) -> AsyncIterator[RunningServer]:
    product = running_server(folder, LLM="ollama", OLLAMA_BASE_URL=ollama, LLM_DEFAULT_MODEL="tiny:latest")
    server = await asyncio.to_thread(product.__enter__)
    try:
        yield server
    finally:
        await asyncio.to_thread(product.__exit__, None, None, None)  # asserts that it ends with 0


@asynccontextmanager
async def _asked(url: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A session's WebSocket; a question has been asked."""
    async with aiohttp.ClientSession() as http:
        made = await http.post(f"{url}/v1/sessions", json={"tutor_id": 1, "student_id": 2, "avatar_id": "demo"})
        session = await made.json()
        async with http.ws_connect(f"{url}/ws/{session['session_id']}", params={"token": session["engine_token"]}) as socket:
            await socket.send_json({"type": "ask", "text": "How are you?"})
            yield socket


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_while_the_language_model_hangs_is_clean_and_tells_every_client(tmp_path: Path, number: signal.Signals) -> None:
    async with (
        fake_ollama("hang_after_token", words=("I am well. And ", "you?")) as (_, ollama),
        _running(tmp_path, ollama) as server,
        _asked(server.url) as socket,
    ):
        async with asyncio.timeout(PATIENCE):
            while (await socket.receive_json())["type"] != "text_stream":
                pass
            server.process.send_signal(number)
            events = []
            while (message := await socket.receive()).type is WSMsgType.TEXT:
                events.append(message.json()["type"])
        assert (message.type, message.data) == (WSMsgType.CLOSE, 1012)
        assert events[-1] == "session_lost"
        assert await asyncio.to_thread(server.process.wait, PATIENCE) == 0
        assert "killing_what_does_not_stop" not in server.log.read_text()
