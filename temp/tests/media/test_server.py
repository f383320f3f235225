"""The media server as a whole: as a process with the real voice, and what holds its parts together."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import pytest
from aioice import TransportPolicy
from conftest import MakeSettings
from receiver import Receiver
from structlog.testing import capture_logs

from gpuserver.errors import CannotStart
from gpuserver.media.ice import ice_network
from gpuserver.media.server import create_app, log_failure
from gpuserver.media.turn_relay import TurnServer

if TYPE_CHECKING:
    from media_server_rig import MediaServer

pytest_plugins = ("media_fixtures",)

MakeMedia = Callable[..., "Awaitable[MediaServer]"]
REPOSITORY = Path(__file__).parents[3]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class MediaProcess:
    """`python -m gpuserver media` with a demo avatar, hibari and the echo model."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, http: aiohttp.ClientSession):
        self.process = process
        self.url = url
        self.http = http

    async def stop(self, number: signal.Signals) -> int:
        """Send the signal; the exit status."""
        self.process.send_signal(number)
        async with asyncio.timeout(10):
            return await self.process.wait()


async def last_message(socket: aiohttp.ClientWebSocketResponse) -> str:
    """The text that came last before the socket was closed."""
    text = ""
    async for message in socket:
        text = message.data
    return text


@pytest.fixture
async def process(demo_avatars: Path, tmp_path: Path) -> AsyncIterator[MediaProcess]:
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(REPOSITORY),
        "AVATARS_DIR": str(demo_avatars),
        "MEDIA_PORT": str(port),
        "INTERNAL_SECRET": "s",
        "TTS": "hibari",
        "LLM": "echo",
        "LOG_FORMAT": "json",
    }
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gpuserver", "media", cwd=tmp_path, env=environment, stderr=asyncio.subprocess.PIPE
    )
    assert started.stderr is not None
    lines: list[bytes] = []
    async with asyncio.timeout(60):
        while b'"ready"' not in (line := await started.stderr.readline()):
            assert line, b"".join(lines).decode()
            lines.append(line)
    drained = asyncio.create_task(started.stderr.read())
    async with aiohttp.ClientSession(headers={"X-Internal-Secret": "s"}) as http:
        yield MediaProcess(started, f"http://127.0.0.1:{port}", http)
    if started.returncode is None:
        started.kill()
        await started.wait()
    await drained


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_student_hears_and_sees_the_avatar_speak_and_the_process_ends_in_order(
    process: MediaProcess, number: signal.Signals
) -> None:
    created = await process.http.post(f"{process.url}/v1/sessions", json={"tutor_id": 1, "student_id": 2, "avatar_id": "demo"})
    session = await created.json()
    query = f"?token={session['engine_token']}"

    async def negotiate(sdp: str) -> str:
        path = f"{process.url}/v1/sessions/{session['session_id']}/offer{query}"
        answer = await process.http.post(path, json={"sdp": sdp, "type": "offer"})
        return str((await answer.json())["sdp"])

    async with Receiver() as receiver, process.http.ws_connect(session["engine_url"] + query) as socket:
        await receiver.connect(negotiate)
        await receiver.until(lambda: len(receiver.pictures) > 5)
        idle = len(receiver.pictures)
        await socket.send_json({"type": "say", "text": "Hello, my dear student."})
        await receiver.until(lambda: sum(sound.audible for sound in receiver.sounds) > 25, within=20)
        shapes = {picture.luma.shape for picture in receiver.pictures}
        assert len(shapes) == 1
        before, after = receiver.pictures[idle - 1].luma, [picture.luma for picture in receiver.pictures[idle:]]
        assert max(float((abs(luma.astype(int) - before)).max()) for luma in after) > 40, "the picture stands still"

        listening = asyncio.create_task(last_message(socket))
        assert await process.stop(number) == 0
        assert '"session_lost"' in await listening
        assert socket.close_code == 1012


async def test_health_says_what_the_server_depends_on(media: MediaServer) -> None:
    await media.create()
    answer = await media.client.get("/health")
    health = await answer.json()
    assert answer.status == 200
    assert (health["status"], health["active_sessions"], health["max_sessions"]) == ("healthy", 1, 10)
    assert health["components"]["voice"] == {"voice": "fake"}
    assert health["components"]["language_model"] == {"model": "fake-llm"}
    assert health["components"]["renderer"].items() >= {"engine": "warp", "step": "full", "drawn": 0, "late": 0}.items()
    assert health["components"]["engine"].items() >= {"name": "warp", "wanted": "warp", "state": "ready", "fallback": None}.items()


async def test_an_avatar_that_a_session_shows_is_deleted_only_by_force(media: MediaServer) -> None:
    session = await media.create()
    refused = await media.client.delete("/v1/avatars/demo")
    assert refused.status == 409
    assert (await refused.json())["sessions"] == [session["session_id"]]
    assert (await media.client.delete("/v1/avatars/demo?force=true")).status == 204
    assert (await media.client.get(f"/v1/sessions/{session['session_id']}", headers=media.internal)).status == 404
    assert (await (await media.client.get("/v1/avatars")).json())["avatars"] == []


async def test_what_is_not_there_is_a_problem(media: MediaServer) -> None:
    answer = await media.client.get("/nothing")
    assert (answer.status, answer.content_type) == (404, "application/problem+json")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("webrtc_stun_server", "http://example.org"),
        ("webrtc_turn_server", "turn:host:port:more"),
        ("webrtc_turn_server_local", "turn:"),
    ],
)
def test_an_address_that_is_none_stops_the_start(make_settings: MakeSettings, name: str, value: str) -> None:
    with pytest.raises(CannotStart, match=name.upper()):
        create_app(make_settings(tts="hibari", llm="echo", **{name: value}))


async def test_what_fails_in_a_task_that_nobody_awaits_is_logged() -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(log_failure)
    with capture_logs() as logs:
        loop.call_exception_handler({"message": "Task exception was never retrieved", "exception": KeyError("x")})
        loop.call_exception_handler({"message": "no exception here"})
    assert [(line["log_level"], line["message"]) for line in logs] == [
        ("error", "Task exception was never retrieved"),
        ("error", "no exception here"),
    ]
    assert isinstance(logs[0]["exc_info"], KeyError)


def test_no_stun_server_is_asked_unless_one_is_named(make_settings: MakeSettings) -> None:
    network = ice_network(make_settings())
    assert (network.stun_server, network.relay, network.gathering_seconds) == (None, None, 0.0)


def test_we_use_our_own_address_of_the_turn_server(make_settings: MakeSettings) -> None:
    settings = make_settings(
        webrtc_stun_server="stun.example:3478",
        webrtc_turn_server="turn:public.example:3478?transport=tcp",
        webrtc_turn_server_local="10.0.0.1:3478",
        webrtc_turn_username="u",
        webrtc_turn_password="p",
        webrtc_ice_policy="relay",
    )
    network = ice_network(settings)
    assert network.stun_server == ("stun.example", 3478)
    assert network.relay is not None
    assert network.relay.server == TurnServer("10.0.0.1", 3478, "u", "p", ssl=False, transport="udp")
    assert network.policy is TransportPolicy.RELAY
