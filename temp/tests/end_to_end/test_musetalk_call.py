"""A call in real mode but for the sizes: official weight formats, latents by the real VAE, faces by the real networks, on a CPU."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from aiohttp import WSMessage
from conftest import MakeSettings
from media_server_rig import SECRET, MediaServer, StartedFakeModel, StartedFakeVoice
from pytest_aiohttp.plugin import AiohttpClient
from receiver import Receiver
from render_service_rig import ServiceRig
from small_avatar import write_small_avatar
from weight_files import smallest_networks

from gpuserver.config import Settings
from gpuserver.media.server import Worker, create_app
from gpuserver.musetalk import avatar_manager, musetalk_devices
from gpuserver.musetalk.avatar_manager import AvatarManager
from gpuserver.musetalk.avatars.avatar_files import read_info
from gpuserver.musetalk.engines import Engines
from gpuserver.musetalk.neural.musetalk_engine import MuseTalkEngine
from gpuserver.musetalk.preparing import avatar_latents
from gpuserver.musetalk.preparing.latent_preparation import LatentRequest, load_networks, prepare_latents
from gpuserver.musetalk.preparing.preparation import PreparationRequest
from gpuserver.musetalk.weight_files.model_files import Version
from gpuserver.wire import AvatarInfo, MuseTalkPreparation


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def small_preparation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both steps run here instead of in child processes, and on the CPU: the first one copies a small avatar."""
    small = tmp_path / "small"
    small.mkdir()
    write_small_avatar(small, count=3)

    def copy(job: PreparationRequest, *_: object, **__: object) -> AvatarInfo:
        for file in small.iterdir():
            shutil.copy(file, job.folder)
        return read_info(job.folder)

    def prepare(request: LatentRequest, *_: object, **__: object) -> MuseTalkPreparation:
        on_cpu = request.model_copy(update={"device": "cpu"})
        encode, parse = load_networks(on_cpu)
        return prepare_latents(on_cpu, encode, parse, lambda _stage, _part: None)

    monkeypatch.setattr(avatar_manager, "run_preparation", copy)
    monkeypatch.setattr(avatar_latents, "run_latent_preparation", prepare)
    monkeypatch.setattr(musetalk_devices, "frames_per_second", lambda _engine: 100.0)


async def told(socket: Any, kind: str) -> dict[str, Any]:
    """The next message of that kind."""
    async with asyncio.timeout(60):
        async for message in socket:
            assert isinstance(message, WSMessage)
            if (said := message.json())["type"] == kind:
                return dict(said)
    raise AssertionError(f"no {kind}")


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("small_preparation")
async def test_an_avatar_is_prepared_and_its_mouth_drawn_by_musetalk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_settings: MakeSettings, aiohttp_client: AiohttpClient
) -> None:
    base = tmp_path / "musetalk"
    smallest_networks(base, monkeypatch)
    settings = make_settings(internal_secret=SECRET, enable_musetalk=True, musetalk_base=base)
    device = musetalk_devices.load_on("cpu", base, Version.V15)
    app = create_app(settings, voice=StartedFakeVoice(), language_model=StartedFakeModel(), engines=Engines([lambda: [device]]))
    await one_two_three(MediaServer(await aiohttp_client(app), StartedFakeModel()), settings)
    assert isinstance(device.engine, MuseTalkEngine)
    stats = device.engine.stats()
    assert stats.painted > 0
    assert (stats.not_finite, stats.without_latent, stats.out_of_memory) == (0, 0, 0)


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("small_preparation")
async def test_a_media_worker_has_its_mouths_drawn_by_the_renderer_process_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_settings: MakeSettings, aiohttp_client: AiohttpClient
) -> None:
    base = tmp_path / "musetalk"
    smallest_networks(base, monkeypatch)
    settings = make_settings(internal_secret=SECRET, enable_musetalk=True, musetalk_base=base)
    renderer = ServiceRig(load=lambda: [musetalk_devices.load_painter_on("cpu", base, Version.V15)])
    worker = Worker(1, tmp_path / "unused.sock", (renderer.path,))
    app = create_app(settings, voice=StartedFakeVoice(), language_model=StartedFakeModel(), worker=worker)
    media = MediaServer(await aiohttp_client(app), StartedFakeModel())
    await one_two_three(media, settings)
    assert (await components(media))["engine"]["frames_per_second"] is not None
    status = renderer.service.status().values
    assert (status["state"], status["workers"], status["not_drawn"], status["failed"], status["stale"]) == ("ready", 1, 0, 0, 0)
    assert status["painted"] != 0
    await media.client.close()
    renderer.close()


async def one_two_three(media: MediaServer, settings: Settings) -> None:
    """A session with the demo avatar, prepared for MuseTalk, says three words."""
    manager = AvatarManager(settings)
    manager.start()
    assert manager.create_demo().engine == "musetalk"
    async with asyncio.timeout(60):
        while (await components(media))["engine"]["state"] == "loading":
            pass
    session = await media.create()
    assert (session["engine"], session["engine_fallback"]) == ("musetalk", None)
    async with Receiver(keep_pictures=1) as receiver, await media.socket(session) as socket:
        await receiver.connect(media.negotiation(session))
        await socket.send_json({"type": "say", "text": "One two three."})
        await told(socket, "speech_ended")
    counted = (await components(media))["renderer"]
    assert (counted["engine"], counted["not_drawn"], counted["failed"]) == ("musetalk", 0, 0)


async def components(media: MediaServer) -> dict[str, Any]:
    """Of the media server's health."""
    return dict((await (await media.client.get("/health")).json())["components"])
