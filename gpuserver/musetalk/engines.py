"""Chooses what draws the mouths: MuseTalk on every GPU where the settings, the weights and the GPUs allow it, else the warp engine."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import structlog

from gpuserver.config import Settings
from gpuserver.domain import Floats, LipSyncEngine, Listener
from gpuserver.errors import GpuserverError
from gpuserver.musetalk.render_service.remote_device import RemoteDevice
from gpuserver.musetalk.renderer import Device, Renderer
from gpuserver.musetalk.rendering.paired_engines import Pair, SpareOfPair, network_of_pair
from gpuserver.musetalk.warp.warp_engine import WarpEngine

log = structlog.get_logger(__name__)

LOADING = "MuseTalk is being loaded; until it is ready, the warp engine draws the lips."

LoadDevices = Callable[[], Sequence[Device]]  # blocks for seconds; raises GpuserverError, ImportError, RuntimeError, OSError


@runtime_checkable
class Returning(Protocol):
    """Loads the device of another process, which is started again when it ends: then it can be loaded again."""

    def __call__(self) -> Sequence[Device]: ...

    @property
    def lost(self) -> bool:
        """Whether what was loaded last has ended."""
        ...

    def close(self) -> None:
        """End what was loaded, and the wait for it."""
        ...


class Engines:
    """Implements domain.Hearing with what draws at the moment. sources: none where the warp engine is what is wanted.

    The warp engine draws from the first moment; load() adds the devices of a source to it, and if all are lost it is left alone again.
    """

    def __init__(self, sources: Sequence[LoadDevices] = (), spare: LipSyncEngine | None = None):
        spare = spare or WarpEngine()
        self.sources = tuple(sources)
        self.spare: LipSyncEngine = SpareOfPair(spare) if sources else spare
        self.wanted = "musetalk" if sources else self.spare.name
        self.fallback = LOADING if sources else None
        self._pairs: dict[LoadDevices, tuple[Pair, ...]] = {}  # never changed, but replaced: it is read without the lock
        self._lock = threading.Lock()
        self._turns = itertools.count()
        self._closed = False

    # ------------------------------------------------------------ hearing

    def listener(self) -> Listener:
        """Sentences are heard on all devices in turn."""
        hearing = [pair for pairs in self._pairs.values() for pair in pairs if not pair.deaf]
        return hearing[next(self._turns) % len(hearing)].listener() if hearing else self.spare.listener()

    def rest(self) -> Floats:
        return self.spare.rest()

    # ------------------------------------------------------------ what draws

    @property
    def name(self) -> str:
        """Of the best engine that draws now."""
        return self.wanted if self._pairs else self.spare.name

    @property
    def loading(self) -> bool:
        return self.fallback is LOADING

    def load(self, source: LoadDevices, renderer: Renderer) -> None:
        """Blocks until the source's devices draw, or it is known why they cannot; `fallback` says so then, unless others draw."""
        try:
            devices = source()
            pairs = tuple(Pair(device.engine, self.spare) for device in devices)
        except GpuserverError as error:
            self._go_without(f"{error.detail} {error.advice}".strip())
        except (ImportError, RuntimeError, OSError) as error:  # no torch; too little memory; a file that cannot be read
            self._go_without(f"MuseTalk cannot be loaded: {error}")
        else:
            paired = [Device(network_of_pair(each.engine, pair), each.speed) for each, pair in zip(devices, pairs, strict=True)]
            renderer.add_devices(paired, pairs[0].suits_network)
            with self._lock:
                self._pairs, self.fallback = {**self._pairs, source: pairs}, None
            log.info("engine_ready", engine=self.wanted, devices=len(devices), frames_per_second=renderer.capacity())

    def fall_back(self, reason: str) -> None:
        """From now on the warp engine draws everything."""
        with self._lock:
            self._pairs, self.fallback = {}, f"{reason} The warp engine draws the lips."
        log.warning("engine_fallback", wanted=self.wanted, engine=self.spare.name, reason=reason)

    @property
    def lost(self) -> list[LoadDevices]:
        """The sources whose devices have ended and come back: to be loaded again."""
        return [source for source in self.sources if isinstance(source, Returning) and source.lost]

    def close(self) -> None:
        """Let go of other processes, also of those that a load() waits for."""
        self._closed = True
        for source in self.sources:
            if isinstance(source, Returning):
                source.close()

    def _go_without(self, reason: str) -> None:
        if self._closed:
            return
        if self._pairs:
            log.warning("device_left_out", reason=reason)
        else:
            self.fall_back(reason)


def make_engines(settings: Settings, renderers: Sequence[Path] = ()) -> Engines:
    """Nothing is loaded yet: load() does that. renderers: sockets of renderer processes, which then draw in place of this process."""
    if not settings.enable_musetalk:
        return Engines()
    if renderers:
        return Engines([RemoteDevice(path) for path in renderers])

    def load_devices() -> Sequence[Device]:
        from gpuserver.musetalk.musetalk_devices import load_musetalk  # torch takes seconds to import

        return load_musetalk(settings)

    return Engines([load_devices])
