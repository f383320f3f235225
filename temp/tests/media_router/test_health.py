"""/health and /metrics of the router: all workers as one, and each by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, generate_latest

from gpuserver.media_router.health import merged
from gpuserver.media_router.metrics import Labelled

if TYPE_CHECKING:
    from router_rig import Rig

pytest_plugins = ("router_rig",)


async def _health(rig: Rig) -> tuple[int, dict[str, Any]]:
    answer = await rig.client.get("/health")
    return answer.status, await answer.json()


async def test_sessions_and_peers_are_counted_over_all_workers(rig: Rig) -> None:
    for _ in range(3):
        await rig.create()
    status, health = await _health(rig)
    assert (status, health["status"], health["active_sessions"], health["max_sessions"]) == (200, "healthy", 3, 10)
    assert health["components"]["peers"] == {"count": 2}
    workers = health["components"]["media_workers"]
    assert workers["status"] == "ok"
    assert [(each["worker"], each["status"], each["active_sessions"], each["restarts"]) for each in workers["workers"]] == [
        (1, "ok", 2, 0),
        (2, "ok", 1, 0),
    ]


async def test_a_worker_that_is_being_started_again_is_said_aloud(rig: Rig) -> None:
    await rig.workers[1].die()
    status, health = await _health(rig)
    assert (status, health["status"]) == (200, "degraded")
    workers = health["components"]["media_workers"]
    assert workers["message"] == "Of 2 media workers, 1 do not serve (number 2); each is started again by itself."
    assert [each["status"] for each in workers["workers"]] == ["ok", "restarting"]
    await rig.workers[0].die(noticed=False)
    status, health = await _health(rig)
    assert (status, health["status"]) == (503, "unhealthy")
    assert health["components"]["media_workers"]["workers"][0]["status"] == "silent"


def test_a_fallback_in_any_worker_is_shown() -> None:
    fine, fallen = {"voice": {"voice": "edge-tts", "fallback": None}}, {"voice": {"voice": "hibari", "fallback": "no network"}}
    assert merged([fine, fallen]) == fallen
    assert merged([fallen, fine]) == fallen
    assert merged([fine, fine]) == fine


async def test_metrics_are_told_apart_by_worker(rig: Rig) -> None:
    text = await (await rig.client.get("/metrics")).text()
    assert 'worker="router"' in next(line for line in text.splitlines() if line.startswith("gpuserver_info{"))
    assert [line for line in text.splitlines() if "sessions" in line and "gpuserver" not in line] == [
        "# HELP sessions Sessions.",
        "# TYPE sessions gauge",
        'sessions{worker="1"} 1.0',
        'sessions{worker="2"} 2.0',
    ]


def test_samples_of_one_family_stand_together() -> None:
    labelled = Labelled()
    for worker in ("1", "2"):
        registry = CollectorRegistry()
        Counter("calls", "Calls.", ["route"], registry=registry).labels("/").inc(int(worker))
        labelled.add(worker, registry.collect())
    lines = generate_latest(labelled).decode().splitlines()
    assert [line for line in lines if "calls_total" in line] == [
        "# HELP calls_total Calls.",
        "# TYPE calls_total counter",
        'calls_total{route="/",worker="1"} 1.0',
        'calls_total{route="/",worker="2"} 2.0',
    ]
