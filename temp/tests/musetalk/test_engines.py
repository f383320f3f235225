from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
from pathlib import Path

import numpy as np
import pytest
from fake_network import FakeNetwork, prepared_avatar
from fakes import FakeEngine, fake_avatar, loud

from gpuserver.config import Settings
from gpuserver.domain import Avatar, FaceCrop, Generation, MouthJob, Speech
from gpuserver.errors import NoDevice, WeightsMissing
from gpuserver.musetalk.engines import LOADING, Engines, make_engines
from gpuserver.musetalk.render_service.remote_device import RemoteDevice
from gpuserver.musetalk.renderer import Device, Renderer

RATE = 24_000


class Room:
    """Engines with their renderer; the network can be lost."""

    def __init__(self, *networks: FakeNetwork, error: Exception | None = None):
        self.engines = Engines([lambda: self._devices(networks, error)], FakeEngine())
        self.renderer = Renderer(self.engines.spare, on_change=lambda change: None)
        self.renderer.start()

    def _devices(self, networks: Sequence[FakeNetwork], error: Exception | None) -> list[Device]:
        if error is not None:
            raise error
        return [Device(network, 450.0) for network in networks]

    def load(self) -> None:
        self.engines.load(self.engines.sources[0], self.renderer)

    def who_draws(self, avatar: Avatar, *, frames: int = 8) -> set[str]:
        """The engines that draw a loud sentence."""
        listener = self.engines.listener()
        rows = [*listener.hear(Speech(loud(9000, frames * RATE // 25), RATE, "")), *listener.finish()]
        futures = [self.renderer.submit(MouthJob(avatar.frame_at(index), row, 0.0, Generation(1))) for index, row in enumerate(rows)]
        wait(futures, 10)
        return {_crop(future).engine for future in futures}


def _crop(future: Future[FaceCrop | None]) -> FaceCrop:
    crop = future.result(0)
    assert crop is not None
    return crop


@pytest.fixture
def rooms() -> Iterator[list[Room]]:
    made: list[Room] = []
    yield made
    for room in made:
        room.renderer.close()


def test_without_musetalk_the_warp_engine_is_what_is_wanted() -> None:
    engines = make_engines(Settings(enable_musetalk=False))
    assert (engines.name, engines.wanted, engines.fallback, engines.loading) == ("warp", "warp", None, False)
    assert len(engines.rest()) == 8


def test_while_musetalk_is_being_loaded_the_warp_engine_draws_and_it_is_said() -> None:
    engines = make_engines(Settings(enable_musetalk=True))
    assert (engines.name, engines.wanted, engines.fallback) == ("warp", "musetalk", LOADING)


def test_without_weights_or_a_gpu_the_warp_engine_goes_on_and_says_why(rooms: list[Room]) -> None:
    engines = make_engines(Settings(enable_musetalk=True))
    renderer = Renderer(engines.spare)
    engines.load(engines.sources[0], renderer)
    assert engines.name == "warp" and not engines.loading
    assert engines.fallback is not None and "MUSETALK_BASE" in engines.fallback


def test_renderer_processes_draw_in_place_of_this_one_where_there_are_any() -> None:
    paths = [Path("/run/renderer-1.sock"), Path("/run/renderer-2.sock")]
    assert [type(source) for source in make_engines(Settings(enable_musetalk=True), paths).sources] == [RemoteDevice, RemoteDevice]
    assert make_engines(Settings(enable_musetalk=False), paths).sources == ()


class OneProcess:
    """Implements engines.Returning; its device is lost and returns as the test wants."""

    def __init__(self, *, error: Exception | None = None):
        self.network = FakeNetwork()
        self.lost = self.closed = False
        self._error = error

    def __call__(self) -> list[Device]:
        if self._error is not None:
            raise self._error
        self.network, self.lost = FakeNetwork(), False
        return [Device(self.network, 100.0)]

    def close(self) -> None:
        self.closed = True


def test_of_several_processes_one_that_cannot_draw_is_left_out_and_a_lost_one_comes_back() -> None:
    first, second, broken = OneProcess(), OneProcess(), OneProcess(error=NoDevice("This GPU is full."))
    engines = Engines([first, second, broken], FakeEngine())
    renderer = Renderer(engines.spare)
    for source in engines.sources:
        engines.load(source, renderer)
    assert (engines.name, engines.fallback, renderer.capacity()) == ("musetalk", None, 200.0)
    first.lost = True
    assert engines.lost == [first]
    engines.load(first, renderer)
    for _ in range(4):
        engines.listener()
    assert (engines.lost, first.network.listeners, second.network.listeners) == ([], 2, 2)
    engines.close()
    renderer.close()
    assert [each.closed for each in (first, second, broken)] == [True] * 3


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NoDevice("torch sees no GPU."), "torch sees no GPU."),
        (WeightsMissing("unet.pth is missing."), "unet.pth is missing."),
        (ModuleNotFoundError("No module named 'torch'"), "No module named 'torch'"),
        (RuntimeError("CUDA error: out of memory"), "out of memory"),
    ],
)
def test_whatever_fails_the_sessions_are_drawn_by_the_spare_engine(rooms: list[Room], error: Exception, said: str) -> None:
    room = Room(error=error)
    rooms.append(room)
    room.load()
    assert room.engines.fallback is not None and said in room.engines.fallback
    assert room.who_draws(prepared_avatar()) == {"fake"}


def test_once_loaded_devices_draw_prepared_avatars_and_the_spare_engine_the_others(rooms: list[Room]) -> None:
    room = Room(FakeNetwork())
    rooms.append(room)
    assert room.who_draws(prepared_avatar()) == {"fake"}
    room.load()
    assert (room.engines.name, room.engines.fallback) == ("musetalk", None)
    assert room.who_draws(prepared_avatar()) == {"network"}
    assert room.who_draws(fake_avatar()) == {"fake"}


def test_the_devices_speed_counts_from_the_start(rooms: list[Room]) -> None:
    room = Room(FakeNetwork(), FakeNetwork())
    rooms.append(room)
    assert room.renderer.capacity() is None
    room.load()
    assert room.renderer.capacity() == 900


def test_sentences_are_heard_on_all_devices_in_turn_and_not_on_a_lost_one(rooms: list[Room]) -> None:
    first, second = FakeNetwork(), FakeNetwork()
    room = Room(first, second)
    rooms.append(room)
    room.load()
    for _ in range(4):
        room.engines.listener()
    assert (first.listeners, second.listeners) == (2, 2)
    first.lost = True
    for _ in range(6):
        room.engines.listener().hear(Speech(np.zeros(RATE, np.int16), RATE, ""))
    assert (first.listeners, second.listeners) == (3, 7)


def test_after_the_last_device_was_lost_sentences_are_heard_for_the_spare_engine_only(rooms: list[Room]) -> None:
    room = Room(FakeNetwork())
    rooms.append(room)
    room.load()
    room.engines.fall_back("The GPU does not answer.")
    assert room.engines.name == "fake"
    assert room.engines.fallback == "The GPU does not answer. The warp engine draws the lips."
    listener = room.engines.listener()
    assert [row.shape for row in listener.hear(Speech(loud(1, RATE), RATE, ""))] == [(1,)] * 24
