"""gpuserver doctor: what it finds, what it advises, and how the page and the command line get it."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import pytest
from api_pair import Pair
from conftest import MakeSettings
from running_server import free_ports
from turn_server import PASSWORD, USERNAME, free_port, turn_server

from gpuserver import cli
from gpuserver.config import Settings
from gpuserver.media.doctor.checks import Check, diagnose, ok
from gpuserver.media.doctor.doctor import SharedDiagnosis, examine
from gpuserver.wire import Diagnosis, Finding


@pytest.fixture
def quiet(make_settings: MakeSettings) -> MakeSettings:
    """Settings of a server whose voice and model need nothing, on free ports."""
    management, media = free_ports(2)
    return lambda **more: make_settings(tts="espeak", llm="echo", management_api_port=management, media_port=media, **more)


def named(found: Diagnosis, name: str) -> list[Finding]:
    return [finding for finding in found.findings if finding.name == name]


async def test_a_machine_that_can_do_everything_is_healthy(quiet: MakeSettings) -> None:
    port = free_port()
    found = await examine(quiet(webrtc_udp_port=port))
    assert found.healthy, found
    assert all(finding.advice for finding in found.findings if finding.status in {"warning", "fail"})
    assert {finding.status for finding in named(found, "WebRTC directly")} == {"ok"}
    assert all(f"UDP {port}." in finding.detail for finding in named(found, "WebRTC directly"))
    (advised,) = named(found, "UDP port")
    assert f"docker run -p {port}:{port}/udp" in (advised.advice or "")
    assert [finding.status for finding in named(found, "Voice")] == ["ok"]
    assert [finding.status for finding in named(found, "Language model")] == ["off"]


async def test_a_public_address_that_leads_elsewhere_is_a_warning_that_says_what_to_map(quiet: MakeSettings) -> None:
    found = await examine(quiet(webrtc_udp_port=free_port(), webrtc_public_ip="203.0.113.7"))
    first, *others = named(found, "WebRTC directly")
    assert (first.status, {other.status for other in others}) == ("warning", {"ok"})
    assert "203.0.113.7" in first.detail
    assert "Map this UDP port" in (first.advice or "")
    assert found.healthy


async def test_a_relay_that_works_and_one_whose_user_is_wrong(quiet: MakeSettings, tmp_path: Path) -> None:
    async with turn_server(tmp_path) as server:
        works = await examine(quiet(webrtc_turn_server=server.address, webrtc_turn_username=USERNAME, webrtc_turn_password=PASSWORD))
        wrong = await examine(quiet(webrtc_turn_server=server.address, webrtc_turn_username=USERNAME, webrtc_turn_password="guessed"))
    for name in ("WebRTC through TURN", "TURN as browsers see it"):
        assert [finding.status for finding in named(works, name)] == ["ok"]
        (finding,) = named(wrong, name)
        assert (finding.status, "refuses WEBRTC_TURN_USERNAME" in finding.detail) == ("warning", True)
    assert works.healthy
    assert wrong.healthy, "without the relay browsers still get through directly"


async def test_relay_only_without_a_relay_is_a_failure(quiet: MakeSettings) -> None:
    found = await examine(quiet(webrtc_ice_policy="relay"))
    (finding,) = named(found, "WebRTC through TURN")
    assert (finding.status, finding.advice, found.healthy) == ("fail", "Set WEBRTC_TURN_SERVER.", False)


async def test_a_port_in_use_is_the_only_finding_that_counts(quiet: MakeSettings) -> None:
    port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", port))
        found = await examine(quiet(webrtc_udp_port=port))
    assert not found.healthy
    assert [finding.detail for finding in found.findings] == [f"UDP port {port} on 127.0.0.1 is in use."]


async def test_the_port_of_every_worker_is_looked_at(quiet: MakeSettings) -> None:
    port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", port + 1))
        found = await examine(quiet(webrtc_udp_port=port, media_workers=2))
    assert [finding.detail for finding in found.findings] == [f"UDP port {port + 1} on 127.0.0.1 is in use."]


async def test_no_finding_shows_a_secret(quiet: MakeSettings, tmp_path: Path) -> None:
    secrets = {
        name: f"hidden-{name}" for name in ("api_keys", "internal_secret", "openai_api_key", "webrtc_turn_password", "webrtc_turn_username")
    }
    async with turn_server(tmp_path) as server:
        found = await examine(quiet(webrtc_turn_server=server.address, webrtc_ice_policy="relay", **secrets))
    assert not found.healthy
    assert "hidden" not in found.model_dump_json()


async def test_many_who_ask_at_once_cost_one_examination_and_the_next_one_another() -> None:
    begun, may_end = 0, asyncio.Event()

    async def examine_slowly() -> Diagnosis:
        nonlocal begun
        begun += 1
        await may_end.wait()
        return Diagnosis(healthy=True, findings=[])

    shared = SharedDiagnosis(examine_slowly)
    asking = [asyncio.create_task(shared.get()) for _ in range(100)]
    await asyncio.wait(asking[:1], timeout=0.01)
    asking[0].cancel()  # who gives up spoils it for nobody
    may_end.set()
    assert all(isinstance(found, Diagnosis) for found in await asyncio.gather(*asking[1:]))
    assert begun == 1
    await shared.get()
    assert begun == 2
    may_end.clear()
    last = asyncio.create_task(shared.get())
    await asyncio.wait([last], timeout=0.01)
    await shared.aclose()
    assert last.cancelled()


async def test_what_musetalk_lacks_and_where_folders_are_missing(
    quiet: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpuserver.media.doctor.machine_checks._TORCH", "print('2.13.0+cpu')")  # torch itself takes 5 s
    settings: Settings = quiet(enable_musetalk=True, musetalk_base=tmp_path, musetalk_conda_env=tmp_path, public_url="http://127.0.0.1:9")
    found = await examine(settings)
    for name in ("GPU", "MUSETALK_CONDA_ENV", "Weights", "PUBLIC_URL"):
        (finding,) = named(found, name)
        assert (finding.status, bool(finding.advice)) == ("warning", True), finding
    assert "there is no bin/python in it" in named(found, "MUSETALK_CONDA_ENV")[0].detail
    assert named(found, "Video folders")[0].status == "off"
    assert found.healthy, "lips are drawn on the CPU then"


async def test_a_check_that_breaks_or_hangs_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    async def breaks() -> list[Finding]:
        raise RuntimeError("no such thing")

    async def hangs() -> list[Finding]:
        await asyncio.Event().wait()
        return []

    async def works() -> list[Finding]:
        return [ok("c", "It works.")]

    monkeypatch.setattr("gpuserver.media.doctor.checks.CHECK_SECONDS", 0.05)
    found = await diagnose([Check("a", breaks, needed=True), Check("b", hangs), Check("c", works)])
    assert [(finding.name, finding.status) for finding in found.findings] == [("a", "fail"), ("b", "warning"), ("c", "ok")]
    assert "no such thing" in found.findings[0].detail
    assert not found.healthy


def test_the_command_lists_what_it_finds_and_fails_where_something_is_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    management, media = free_ports(2)
    for name, value in {"TTS": "espeak", "LLM": "echo", "MANAGEMENT_API_PORT": str(management), "MEDIA_PORT": str(media)}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor"])
    said = capsys.readouterr().out
    assert ended.value.code == 0, said
    assert said.rstrip().endswith("Everything that is needed works.")
    with socket.create_server(("127.0.0.1", management)), pytest.raises(SystemExit) as ended:
        cli.main(["doctor", "--json"])
    assert ended.value.code == 1
    found = Diagnosis.model_validate(json.loads(capsys.readouterr().out))
    assert [finding.detail for finding in found.findings if finding.status == "fail"] == [f"Port {management} on 127.0.0.1 is in use."]


async def test_the_page_gets_the_list_through_the_management_api(pair: Pair) -> None:
    answer = await pair.client.get("/v1/diagnosis")
    assert answer.status == 200
    assert Diagnosis.model_validate(await answer.json()).healthy
