"""The renderer of a process of its own: paints and hears for all workers that join, the most urgent face first, whoever wants it."""

from __future__ import annotations

import itertools
import logging
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from gpuserver.domain import PipelinedEngine
from gpuserver.errors import GpuserverError
from gpuserver.musetalk.neural.musetalk_listener import Ear
from gpuserver.musetalk.render_service.channel import Channel
from gpuserver.musetalk.render_service.guest import Guest, Workshop
from gpuserver.musetalk.render_service.messages import AskStatus, Join, Status, Unusable
from gpuserver.musetalk.render_service.slots import Layout
from gpuserver.musetalk.render_service.spare import NothingToSpare
from gpuserver.musetalk.render_service.standstill import Standstill
from gpuserver.musetalk.renderer import Device, RenderChange, Renderer

PAINT_SLOTS = 24  # per worker, three batches of 8: on the device, begun, and waiting for its turn among those of all workers
HEAR_SLOTS = 4  # per worker: sentences that it has listened to at the same moment
HEARING_THREADS = 8  # as many as Whisper hears at a time
MOST_OF_A_REASON = 2000  # characters: torch can say more than a message holds

_log = logging.getLogger(__name__)


class HearingEngine(PipelinedEngine, Protocol):
    """An engine whose ear can be lent to others."""

    @property
    def ear(self) -> Ear: ...


@dataclass(frozen=True, slots=True)
class Painter:
    """A warm engine that gives faces as they are painted (faces.unpasted). speed: faces per second."""

    engine: HearingEngine
    speed: float | None = None


Load = Callable[[], Sequence[Painter]]  # blocks for seconds; raises GpuserverError, ImportError, RuntimeError, OSError


class RenderService:
    """serve() until the listening socket is closed. on_lost: told once, by any thread, that the last device is gone."""

    def __init__(self, load: Load, on_lost: Callable[[str], None], standstill: Standstill | None = None):
        self._load = load
        self._on_lost = on_lost
        self._standstill = standstill or Standstill()
        self._lock = threading.Lock()
        self._guests: set[Guest] = set()
        self._connections: dict[threading.Thread, Channel] = {}
        self._loaded = threading.Event()
        self._unusable: Unusable | None = None
        self._painters: Sequence[Painter] = ()
        self._renderer = Renderer(NothingToSpare(), on_change=self._on_change)
        self._hearing = ThreadPoolExecutor(HEARING_THREADS, thread_name_prefix="hearing")

    def serve(self, listening: socket.socket) -> None:
        """Load in the background, and let in whoever connects."""
        self._renderer.start()
        threading.Thread(target=self._load_painters, name="painters", daemon=True).start()
        while True:
            try:
                connected, _ = listening.accept()
            except OSError:
                return
            channel = Channel(connected)
            thread = threading.Thread(target=self._receive, args=(channel,), name="guest", daemon=True)
            with self._lock:
                self._connections[thread] = channel
            thread.start()

    def close(self) -> None:
        """End every connection and what is painted for it. The listening socket is the caller's, and closed before; all is loaded."""
        with self._lock:
            connections = dict(self._connections)
        for thread, channel in connections.items():
            channel.end()
            thread.join()
        self._hearing.shutdown()
        self._renderer.close()

    # ------------------------------------------------------------ inside

    def _load_painters(self) -> None:
        try:
            painters = self._load()
        except GpuserverError as error:
            self._unusable = Unusable(error.detail, error.advice)
        except (ImportError, RuntimeError, OSError) as error:
            self._unusable = Unusable(f"MuseTalk cannot be loaded: {str(error)[:MOST_OF_A_REASON]}", "")
        except Exception:  # noqa: BLE001 - whatever it is, the workers are told so and draw with what they have
            _log.exception("a fault in loading MuseTalk")
            self._unusable = Unusable("MuseTalk cannot be loaded because of a fault in the server.", "")
        else:
            self._painters = painters
            self._renderer.add_devices([Device(painter.engine, painter.speed) for painter in painters], lambda job: True)
        if self._unusable is not None:
            _log.warning("no faces are painted here: %s", self._unusable.reason)
        self._loaded.set()

    def _receive(self, channel: Channel) -> None:
        """One connection, to its end."""
        try:
            match channel.receive():
                case AskStatus():
                    channel.send(self.status())
                case Join():
                    self._loaded.wait()
                    self._entertain(channel)
                case None:
                    pass
                case unexpected:
                    raise ValueError(f"{type(unexpected).__name__} as the first message")
        except ValueError as error:
            _log.warning("a connection is ended, for it does not keep to the protocol: %s", error)
        except OSError:
            pass  # the other side has gone
        finally:
            channel.close()
            with self._lock:
                del self._connections[threading.current_thread()]

    def _entertain(self, channel: Channel) -> None:
        if self._unusable is not None:
            channel.send(self._unusable)
            return
        ears = [painter.engine.ear for painter in self._painters]
        workshop = Workshop(self._renderer, self._hearing, itertools.cycle(ears), self._share_out, self._on_lost, self._standstill)
        try:
            guest = Guest(channel, Layout(ears[0].width, PAINT_SLOTS, HEAR_SLOTS), workshop)
        except OSError as error:
            _log.exception("a worker is not let in")
            channel.send(Unusable(f"There is no memory to share with this worker: {error}.", ""))
            return
        with self._lock:
            self._guests.add(guest)
        try:
            guest.welcome()
            self._share_out()
            guest.serve()
        finally:
            with self._lock:
                self._guests.discard(guest)
            guest.leave()
            self._share_out()

    def _share_out(self) -> None:
        """Tell each worker its part of what the devices can do: equal ones, for sessions are dealt out equally."""
        capacity = self._renderer.capacity()
        with self._lock:
            guests = list(self._guests)
        if capacity is not None:
            for guest in guests:
                guest.may_count_on(capacity / len(guests))

    def status(self) -> Status:
        stats = self._renderer.stats()
        with self._lock:
            workers = len(self._guests)
        state = "loading" if not self._loaded.is_set() else "fallback" if self._unusable is not None else "ready"
        return Status(
            {
                "state": state,
                "fallback": None if self._unusable is None else f"{self._unusable.reason} {self._unusable.advice}".strip(),
                "workers": workers,
                "frames_per_second": self._renderer.capacity(),
                "queued": stats.queued,
                "batches": stats.batches,
                "painted": stats.drawn,
                "stale": stats.stale,
                "not_drawn": stats.not_drawn,
                "failed": stats.failed,
                "out_of_memory": sum(engine.out_of_memory for engine in stats.engines),
            }
        )

    def _on_change(self, change: RenderChange) -> None:
        if change.device_lost is not None:
            _log.error("a device is lost: %s", change.device_lost)
            if not self._renderer.stats().engines[:-1]:
                self._on_lost(change.device_lost)
