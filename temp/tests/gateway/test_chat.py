"""/api/chat: whole answers, streams, models and health, in front of a fake Ollama."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import httpx
import pytest
from conftest import MakeSettings
from fake_ollama import FakeOllama, fake_ollama
from gateway_rig import NOWHERE, gateway_rig

from gpuserver.gateway import chat
from gpuserver.gateway.wire import HISTORY_BYTES, HISTORY_ITEMS

QUESTION = {"message": "What is one and one?"}
PATIENCE = 30.0

Talking = Callable[..., AbstractAsyncContextManager[tuple[httpx.AsyncClient, FakeOllama]]]


@pytest.fixture
def talking(make_settings: MakeSettings, tmp_path: Path) -> Talking:
    @asynccontextmanager
    async def start(mode: str = "ok", model: str = "tiny:latest") -> AsyncIterator[tuple[httpx.AsyncClient, FakeOllama]]:
        async with (
            fake_ollama(mode, models=("tiny:latest", "other:1b")) as (ollama, url),
            gateway_rig(make_settings, tmp_path, llm="auto", ollama_base_url=url, llm_default_model=model) as rig,
        ):
            yield rig.client, ollama

    return start


def events(text: str) -> list[tuple[str, str]]:
    """(event, data) of every server-sent event."""
    found = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        if fields:
            found.append((fields.get("event", "message"), fields["data"]))
    return found


async def test_a_question_is_answered_with_what_was_said_before(talking: Talking) -> None:
    history = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    async with talking() as (client, ollama):
        answer = await client.post("/api/chat/completion", json={**QUESTION, "conversation_history": history})
    assert (answer.status_code, answer.json()) == (
        200,
        {"response": "Two and two.", "model": "tiny:latest", "fallback": False, "notice": None},
    )
    assert ollama.requests[0]["messages"] == [*history, {"role": "user", "content": QUESTION["message"]}]


async def test_a_question_may_name_its_model(talking: Talking) -> None:
    async with talking() as (client, ollama):
        answer = await client.post("/api/chat/completion", json={**QUESTION, "model": "other:1b"})
    assert (answer.json()["model"], ollama.requests[0]["model"]) == ("other:1b", "other:1b")


async def test_a_model_that_stands_in_is_said_aloud(talking: Talking) -> None:
    async with talking(model="big:70b") as (client, _):
        whole = (await client.post("/api/chat/completion", json=QUESTION)).json()
        stream = await client.post("/api/chat/stream", json=QUESTION)
        health = await client.get("/api/chat/health")
    notice = "The model big:70b is not there, tiny:latest answers."
    assert (whole["model"], whole["fallback"], whole["notice"]) == ("tiny:latest", True, notice)
    first = json.loads(events(stream.text)[0][1])
    assert first == {"content": "Two ", "model": "tiny:latest", "fallback": True, "notice": notice}
    assert (health.status_code, health.json()["fallback"], health.json()["ollama"]) == (200, True, "connected")


async def test_the_echo_says_that_it_is_one(make_settings: MakeSettings, tmp_path: Path) -> None:
    async with gateway_rig(make_settings, tmp_path, llm="auto", ollama_base_url=NOWHERE) as rig:
        answer = (await rig.client.post("/api/chat/completion", json=QUESTION)).json()
        models = await rig.client.get("/api/chat/models")
        health = await rig.client.get("/api/chat/health")
    assert (answer["model"], answer["fallback"]) == ("echo", True)
    assert QUESTION["message"] in answer["response"]
    assert "No language model is reachable" in answer["notice"]
    assert (models.status_code, models.headers["Content-Type"]) == (503, "application/problem+json; charset=utf-8")
    assert models.json()["type"] == "urn:gpuserver:problem:no-language-model"
    assert (health.status_code, health.json()["status"], health.json()["ollama"]) == (503, "unhealthy", "disconnected")


async def test_models_and_health_name_what_answers(talking: Talking) -> None:
    async with talking() as (client, _):
        models = await client.get("/api/chat/models")
        health = await client.get("/api/chat/health")
    assert models.json() == {"models": ["tiny:latest", "other:1b"], "default": "tiny:latest"}
    assert (health.status_code, health.json()) == (
        200,
        {"status": "healthy", "model": "tiny:latest", "ollama": "connected", "fallback": False, "notice": None},
    )


async def test_a_stream_has_an_event_per_token_and_ends_with_done(talking: Talking) -> None:
    async with talking() as (client, _), client.stream("POST", "/api/chat/stream", json=QUESTION) as answer:
        lines = [line async for line in answer.aiter_lines() if line]
        assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert lines == ['data: {"content":"Two "}', 'data: {"content":"and "}', 'data: {"content":"two."}', "data: [DONE]"]


@pytest.mark.parametrize("mode", ["failing", "cut", "error_in_stream"])
async def test_a_model_that_fails_ends_the_stream_with_an_error_event(talking: Talking, mode: str) -> None:
    async with talking(mode) as (client, _):
        answer = await client.post("/api/chat/stream", json=QUESTION)
    *_, (kind, data), last = events(answer.text)
    assert (kind, last) == ("error", ("message", "[DONE]"))
    assert {"type": "urn:gpuserver:problem:language-model-failed", "status": 502}.items() <= json.loads(data).items()


async def test_a_model_that_fails_is_a_502_of_a_completion(talking: Talking) -> None:
    async with talking("failing") as (client, _):
        answer = await client.post("/api/chat/completion", json=QUESTION)
    assert (answer.status_code, answer.json()["type"]) == (502, "urn:gpuserver:problem:language-model-failed")


async def test_a_silent_model_is_bridged_by_comments(talking: Talking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "HEARTBEAT_SECONDS", 0.01)
    async with talking("hang_before_token") as (client, ollama), client.stream("POST", "/api/chat/stream", json=QUESTION) as answer:
        lines = answer.aiter_lines()
        assert (await anext(lines)).startswith(":")
        ollama.release()
        assert 'data: {"content":"Two "}' in [line async for line in lines]


@pytest.mark.parametrize("mode", ["hang_before_token", "hang_after_token"])
@pytest.mark.parametrize("path", ["stream", "completion"])
async def test_a_client_that_goes_away_stops_the_model(talking: Talking, mode: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "HEARTBEAT_SECONDS", 0.02)
    monkeypatch.setattr("gpuserver.web.interim.INTERVAL_SECONDS", 0.02)
    async with talking(mode) as (client, ollama):
        port = client.base_url.port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = json.dumps(QUESTION).encode()
        head = f"POST /api/chat/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await reader.read(1)
        async with asyncio.timeout(PATIENCE):
            while not ollama.requests:  # noqa: ASYNC110 - the fake tells by its list
                await asyncio.sleep(0.01)
            writer.close()
            await writer.wait_closed()
            await ollama.answer_closed.wait()
        assert ollama.open_answers == 0


LONG = [{"role": "user", "content": "é" * 9000}] * 2  # 36,000 bytes
BAD: list[tuple[dict[str, object], str]] = [
    ({}, "message"),
    ({"message": ""}, "message"),
    ({"message": 7}, "message"),
    ({**QUESTION, "temperature": 1}, "temperature"),
    ({**QUESTION, "conversation_history": "hello"}, "conversation_history"),
    ({**QUESTION, "conversation_history": [{"role": "user", "content": "a"}, {"role": "robot", "content": "b"}]}, "history.1.role"),
    ({**QUESTION, "conversation_history": [{"role": "user"}]}, "conversation_history.0.content"),
    ({**QUESTION, "conversation_history": [{"role": "user", "content": None}]}, "conversation_history.0.content"),
    ({**QUESTION, "conversation_history": [{"role": "user", "content": "a"}] * (HISTORY_ITEMS + 1)}, "at most 50 items"),
    (
        {**QUESTION, "conversation_history": LONG},
        f"item 1 makes it more than {HISTORY_BYTES}",
    ),
]


@pytest.mark.parametrize("path", ["stream", "completion"])
async def test_what_is_wrong_with_a_question_is_named(make_settings: MakeSettings, tmp_path: Path, path: str) -> None:
    async with gateway_rig(make_settings, tmp_path) as rig:
        for body, named in BAD:
            answer = await rig.client.post(f"/api/chat/{path}", json=body)
            assert answer.status_code == 400
            assert named in answer.json()["detail"]


async def test_a_history_up_to_its_limits_is_taken(make_settings: MakeSettings, tmp_path: Path) -> None:
    history = [{"role": "user", "content": "x" * (HISTORY_BYTES // HISTORY_ITEMS)}] * HISTORY_ITEMS
    async with gateway_rig(make_settings, tmp_path) as rig:
        answer = await rig.client.post("/api/chat/completion", json={**QUESTION, "conversation_history": history})
    assert answer.status_code == 200
