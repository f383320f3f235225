import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
from fake_network import FakeNetwork, prepared_avatar
from fakes import FakeEngine, fake_avatar, loud
from render_service_rig import ServiceRig
from structlog.testing import capture_logs

from gpuserver.domain import Generation, MouthJob, Speech
from gpuserver.errors import NoDevice
from gpuserver.media.mouths import NOT_PREPARED, Mouths
from gpuserver.musetalk.engines import LOADING, Engines
from gpuserver.musetalk.render_service.remote_device import RemoteDevice
from gpuserver.musetalk.renderer import Device, RenderChange
from gpuserver.musetalk.rendering.ladder import Step
from gpuserver.pipeline.standing import StandingNotices, Told


class Room:
    """Mouths whose network loads when it is let. told: the codes that a session's client is told at each change."""

    def __init__(self) -> None:
        self.standing = StandingNotices()
        self.told: list[str] = []
        self.network = FakeNetwork("musetalk")
        self.error: Exception | None = None
        client = Told()
        self.changed = asyncio.Event()
        self.standing.listen(lambda: self._tell(client))
        self.mouths = Mouths(Engines([self._load], FakeEngine()), self.standing)

    def _tell(self, client: Told) -> None:
        self.told += [notice.code for notice in client.news(self.standing)]
        self.changed.set()

    def _load(self) -> Sequence[Device]:
        if self.error is not None:
            raise self.error
        return [Device(self.network, 450.0)]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def loaded(self) -> None:
        self.mouths.start()
        await self.until(lambda: len(self.told) == 2)


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    room = Room()
    yield room
    await room.mouths.aclose()


async def test_while_it_is_loading_the_spare_engine_draws_and_everybody_is_told(room: Room) -> None:
    assert room.mouths.engine_for(prepared_avatar()) == ("fake", LOADING)
    assert room.mouths.status()["state"] == "loading"
    await room.loaded()
    assert room.told == ["engine_loading", "engine_ready"]
    assert room.mouths.engine_for(prepared_avatar()) == ("musetalk", None)
    assert room.mouths.status().items() >= {"name": "musetalk", "state": "ready", "fallback": None, "frames_per_second": 450.0}.items()


async def test_what_cannot_be_loaded_is_a_fallback_that_is_said_everywhere(room: Room) -> None:
    room.error = NoDevice("torch sees no GPU.")
    with capture_logs() as logs:
        await room.loaded()
    assert [line["event"] for line in logs] == ["engine_fallback"]
    assert room.told == ["engine_loading", "engine_fallback"]
    engine, fallback = room.mouths.engine_for(prepared_avatar())
    assert engine == "fake" and fallback is not None and "torch sees no GPU." in fallback
    assert room.mouths.status().items() >= {"name": "fake", "wanted": "musetalk", "state": "fallback", "fallback": fallback}.items()


async def test_a_fault_in_loading_leaves_the_server_with_the_spare_engine(room: Room) -> None:
    room.error = ZeroDivisionError("a bug")
    with capture_logs() as logs:
        await room.loaded()
    assert [line["event"] for line in logs] == ["engine_failed", "engine_fallback"]
    assert room.mouths.status()["state"] == "fallback"


async def test_an_avatar_that_is_not_prepared_is_named_in_the_log_once(room: Room) -> None:
    await room.loaded()
    with capture_logs() as logs:
        assert room.mouths.engine_for(fake_avatar()) == ("fake", NOT_PREPARED)
        assert room.mouths.engine_for(fake_avatar()) == ("fake", NOT_PREPARED)
    assert [(line["event"], line["avatar_id"]) for line in logs] == [("avatar_not_prepared", "fake")]


async def test_the_loss_of_the_last_device_is_a_fallback(room: Room) -> None:
    await room.loaded()
    listener = room.mouths.engines.listener()
    [row, *_] = listener.hear(Speech(loud(9000, 24_000), 24_000, ""))
    room.network.lost = True
    crop = await asyncio.wrap_future(room.mouths.renderer.submit(MouthJob(prepared_avatar().frame_at(0), row, 0.0, Generation(1))))
    assert crop is not None and crop.engine == "fake"
    await room.until(lambda: "engine_fallback" in room.told)
    assert room.mouths.status().items() >= {"name": "fake", "state": "fallback", "devices": []}.items()


async def test_what_is_lost_is_not_said_to_be_restored(room: Room) -> None:
    """The ladder ends with the last device: who was told of the overload is told of its end, but not of lips in full."""
    await room.loaded()
    room.mouths._tell(RenderChange(Step.SPARE, "fake"))
    room.mouths.engines.fall_back("The fake device fell off the bus.")
    room.mouths._tell(RenderChange(Step.FULL, "fake"))
    assert room.told[-2:] == ["mouths_spare", "mouths_full"]
    texts = [standing.notice.text for standing in room.standing if standing.topic == "mouths"]
    assert texts == ["Lips move 25 times a second, drawn by the simpler engine."]


@pytest.mark.parametrize(("step", "code"), [(Step.HALF, "mouths_half"), (Step.SPARE, "mouths_spare")])
async def test_every_step_of_the_ladder_is_told_and_its_end_too(room: Room, step: Step, code: str) -> None:
    await room.loaded()
    room.told.clear()
    with capture_logs() as logs:
        for each in (step, Step.FULL):
            room.mouths._tell(RenderChange(each, "musetalk"))
    assert room.told == [code, "mouths_full"]
    lines = [(line["event"], line["step"], line["log_level"]) for line in logs]
    assert lines == [("mouths", step, "warning"), ("mouths", Step.FULL, "info")]


async def test_without_a_wish_for_more_the_engine_is_ready_at_once() -> None:
    mouths = Mouths(Engines(spare=FakeEngine()), StandingNotices())
    mouths.start()
    assert mouths.status().items() >= {"name": "fake", "wanted": "fake", "state": "ready", "fallback": None}.items()
    await mouths.aclose()


class ProcessRoom(Room):
    """Mouths whose network is a renderer process, which can be ended and started again."""

    def __init__(self) -> None:
        super().__init__()
        self.process = ServiceRig()
        self.mouths = Mouths(Engines([RemoteDevice(self.process.path)], FakeEngine()), self.standing)


async def test_mouths_return_to_a_renderer_process_that_was_started_again() -> None:
    room = ProcessRoom()
    await room.loaded()
    assert room.mouths.status().items() >= {"name": "musetalk", "state": "ready", "frames_per_second": 450.0}.items()
    with capture_logs() as logs:
        room.process.end()
        await room.until(lambda: "engine_fallback" in room.told)
    assert [line["event"] for line in logs] == ["device_lost", "engine_fallback", "mouths"]
    status = room.mouths.status()
    assert status["state"] == "fallback" and status["devices"] == []
    assert status["fallback"] == "The renderer process has ended; it is started again. The warp engine draws the lips."
    room.process.start_again()
    await room.until(lambda: room.told.count("engine_ready") == 2)
    assert room.told == ["engine_loading", "engine_ready", "engine_fallback", "engine_ready"]
    assert room.mouths.status().items() >= {"name": "musetalk", "state": "ready", "fallback": None}.items()
    await room.mouths.aclose()
    room.process.close()


async def test_the_wait_for_a_renderer_process_ends_with_the_server() -> None:
    room = ProcessRoom()
    room.process.end()
    room.mouths.start()
    with capture_logs() as logs:
        await room.mouths.aclose()
    assert logs == []
    for thread in threading.enumerate():
        if thread.name == "engines":
            thread.join(10)
            assert not thread.is_alive()
    room.process.close()
