"""Chooses what draws the mouths: MuseTalk on every GPU where the settings, the weights and the GPUs allow it, else the warp engine."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import structlog

from gpuserver.config import Settings
from gpuserver.domain import Floats, LipSyncEngine, Listener
from gpuserver.errors import GpuserverError
from gpuserver.musetalk.renderer import Device, Renderer
from gpuserver.musetalk.rendering.paired_engines import Pair, SpareOfPair, network_of_pair
from gpuserver.musetalk.warp.warp_engine import WarpEngine

log = structlog.get_logger(__name__)

LOADING = "MuseTalk is being loaded; until it is ready, the warp engine draws the lips."

LoadDevices = Callable[[], Sequence[Device]]  # blocks for seconds; raises GpuserverError, ImportError, RuntimeError, OSError


class Engines:
    """Implements domain.Hearing with what draws at the moment. load_devices: None where the warp engine is what is wanted.

    The warp engine draws from the first moment; load() adds devices to it, and if they are lost it is left alone again.
    """

    def __init__(self, load_devices: LoadDevices | None = None, spare: LipSyncEngine | None = None):
        spare = spare or WarpEngine()
        self.spare: LipSyncEngine = SpareOfPair(spare) if load_devices else spare
        self.wanted = "musetalk" if load_devices else self.spare.name
        self.fallback = LOADING if load_devices else None
        self._load_devices = load_devices
        self._pairs: tuple[Pair, ...] = ()
        self._turns = itertools.count()

    # ------------------------------------------------------------ hearing

    def listener(self) -> Listener:
        """Sentences are heard on all devices in turn."""
        hearing = [pair for pair in self._pairs if not pair.deaf]
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

    def load(self, renderer: Renderer) -> None:
        """Blocks until the wanted engine draws, or it is known why it cannot; `fallback` says so then."""
        if self._load_devices is None:
            return
        try:
            devices = self._load_devices()
            pairs = tuple(Pair(device.engine, self.spare) for device in devices)
        except GpuserverError as error:
            self.fall_back(f"{error.detail} {error.advice}")
        except (ImportError, RuntimeError, OSError) as error:  # no torch; too little memory; a file that cannot be read
            self.fall_back(f"MuseTalk cannot be loaded: {error}")
        else:
            paired = [Device(network_of_pair(each.engine, pair), each.speed) for each, pair in zip(devices, pairs, strict=True)]
            renderer.add_devices(paired, pairs[0].suits_network)
            self._pairs, self.fallback = pairs, None
            log.info("engine_ready", engine=self.wanted, devices=len(devices), frames_per_second=renderer.capacity())

    def fall_back(self, reason: str) -> None:
        """From now on the warp engine draws everything."""
        self._pairs, self.fallback = (), f"{reason} The warp engine draws the lips."
        log.warning("engine_fallback", wanted=self.wanted, engine=self.spare.name, reason=reason)


def make_engines(settings: Settings) -> Engines:
    """Nothing is loaded yet: load() does that."""
    if not settings.enable_musetalk:
        return Engines()

    def load_devices() -> Sequence[Device]:
        from gpuserver.musetalk.musetalk_devices import load_musetalk  # torch takes seconds to import

        return load_musetalk(settings)

    return Engines(load_devices)
