"""What the media server counts, after a conversation that really took place; and that docs/operations.md names all of it."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import MakeSettings
from prometheus_client.parser import text_string_to_metric_families
from receiver import Receiver

from gpuserver.musetalk.avatar_manager import AvatarManager

if TYPE_CHECKING:
    from media_server_rig import MediaServer
    from prometheus_client import Metric

pytest_plugins = ("media_fixtures",)

ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs" / "operations.md"
DASHBOARD = ROOT / "deploy" / "grafana" / "gpuserver.json"
MakeMedia = Callable[..., "Awaitable[MediaServer]"]


async def _families(client: Any) -> dict[str, Metric]:
    text = await (await client.get("/metrics")).text()
    return {family.name: family for family in text_string_to_metric_families(text) if not family.name.endswith("_created")}


def _value(families: dict[str, Metric], sample: str, **labels: str) -> float:
    found = [
        each.value
        for family in families.values()
        for each in family.samples
        if each.name == sample and labels.items() <= each.labels.items()
    ]
    return sum(found)


async def _until(socket: Any, kind: str) -> None:
    async for message in socket:
        if json.loads(message.data)["type"] == kind:
            return


async def test_a_conversation_is_counted(media: MediaServer) -> None:
    session = await media.create()
    async with Receiver() as receiver, await media.socket(session) as socket:
        await receiver.connect(media.negotiation(session))
        await receiver.until(lambda: len(receiver.pictures) > 0)
        await socket.send_json({"type": "ask", "text": "Why?"})
        await _until(socket, "trace")
        await socket.send_json({"type": "say", "text": "One two three four five six seven eight."})
        await _until(socket, "speech_started")
        await socket.send_json({"type": "interrupt"})
        await _until(socket, "trace")
        during = await _families(media.client)
    await media.client.delete(f"/v1/sessions/{session['session_id']}", headers=media.internal)
    after = await _families(media.client)

    assert (_value(during, "gpuserver_sessions"), _value(during, "gpuserver_sessions_connected")) == (1, 1)
    assert (_value(after, "gpuserver_sessions"), _value(after, "gpuserver_sessions_begun_total")) == (0, 1)
    assert _value(after, "gpuserver_sessions_ended_total", reason="deleted") == 1
    assert _value(after, "gpuserver_turns_total", outcome="completed", aloud="yes") == 1
    assert _value(after, "gpuserver_turns_total", outcome="interrupted") == 1
    for stage in ("first_token", "first_sentence", "first_sound", "first_mouth_frame", "first_packet"):
        assert _value(after, "gpuserver_turn_stage_seconds_count", stage=stage) >= 1, stage
    assert _value(after, "gpuserver_interrupt_silence_seconds_count") == 1
    drawn = _value(after, "gpuserver_mouths_drawn_total")
    assert drawn > 0
    assert _value(after, "gpuserver_batch_size_sum") >= drawn
    for kind in ("video", "audio"):
        assert _value(after, "gpuserver_frame_lateness_seconds_count", kind=kind) > 10
    assert _value(after, "gpuserver_renderer_step") == 1
    assert _value(after, "gpuserver_problems_total") == 0


async def test_a_failed_answer_is_counted_with_its_problem(make_media: MakeMedia) -> None:
    from media_server_rig import StartedFakeModel

    media = await make_media(model=StartedFakeModel(fails_after=1))
    session = await media.create()
    async with await media.socket(session) as socket:
        await socket.send_json({"type": "ask", "text": "Why?"})
        await _until(socket, "trace")
    families = await _families(media.client)
    assert _value(families, "gpuserver_turns_total", outcome="failed", aloud="no") == 1
    assert _value(families, "gpuserver_problems_total", type="language-model-failed") == 1


@pytest.fixture
async def all_families(media: MediaServer, aiohttp_client: Any, make_settings: MakeSettings) -> dict[str, Metric]:
    """The metrics of all processes."""
    from gpuserver import management_api
    from gpuserver.gateway import server as gateway
    from gpuserver.media_router.metrics import renderer_metrics

    settings = make_settings()
    management = await aiohttp_client(management_api.create_app(settings, AvatarManager(settings)))
    alone = await aiohttp_client(gateway.create_app(make_settings(llm="echo")))
    renderers = {family.name: family for family in renderer_metrics([{"renderer": 1, "state": "ready"}])}
    return {**await _families(media.client), **await _families(management), **await _families(alone), **renderers}


async def test_every_metric_is_documented_and_every_documented_one_exists(all_families: dict[str, Metric]) -> None:
    rows = re.findall(r"^\| `((?:gpuserver|process)_\w+)`", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(all_families)


async def test_the_dashboard_asks_for_metrics_that_exist(all_families: dict[str, Metric]) -> None:
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "info": ("_info",)}
    known = {name + suffix for name, family in all_families.items() for suffix in suffixes.get(family.type, ("",))}
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert len(expressions) > 10
    for expression in expressions:
        named = set(re.findall(r"\b(?:gpuserver|process)_\w+", expression))
        assert named, expression
        assert named <= known, expression
