"""A worker's connection to a renderer process: it fills slots, says so, gets faces and sounds back in them, and pastes the faces."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field

from gpuserver.domain import FaceCrop, Floats, LatentFace, MouthJob
from gpuserver.errors import DeviceFull, DeviceLost
from gpuserver.musetalk.neural.face_paste import paste
from gpuserver.musetalk.render_service.channel import Channel
from gpuserver.musetalk.render_service.messages import Hear, Heard, Outcome, Paint, Painted, Share
from gpuserver.musetalk.render_service.slots import Layout, Slots

ENDED = "The renderer process has ended; it is started again."


@dataclass(frozen=True, slots=True, eq=False)
class _Order:
    """A face on its way."""

    job: MouthJob
    face: LatentFace
    crop: Future[FaceCrop | None] = field(default_factory=Future)


class RendererClient:
    """Implements Ear, and what RemoteEngine needs besides. From any thread; once the process is lost, all raise DeviceLost, for good."""

    def __init__(self, channel: Channel, layout: Layout, slots: Slots):
        self.width = layout.width
        self._channel = channel
        self._slots = slots
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._free = list(range(layout.paint_slots))  # the last one used is the next one: few are ever written
        self._free_ears = list(range(layout.hear_slots))
        self._orders: dict[int, _Order] = {}
        self._questions: dict[int, Future[str]] = {}
        self._share: float | None = None
        self._lost = False
        self._on_lost: Callable[[DeviceLost], None] | None = None
        self._thread = threading.Thread(target=self._receive, name="faces", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def when_lost(self, tell: Callable[[DeviceLost], None]) -> None:
        """Call this once the process is lost, after what was on its way has failed; at once if it is lost already."""
        with self._lock:
            if not self._lost:
                self._on_lost = tell
                return
        tell(DeviceLost(ENDED))

    @property
    def frames_per_second(self) -> float | None:
        """What this worker may count on; None before it was told."""
        return self._share

    @property
    def lost(self) -> bool:
        return self._lost

    def close(self) -> None:
        """What is on its way fails with DeviceLost."""
        self._channel.end()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()

    # ------------------------------------------------------------ faces

    @property
    def room(self) -> int:
        """How many faces may be ordered now."""
        return len(self._free)

    def wait_for_room(self) -> bool:
        """False: the process is lost."""
        with self._lock:
            while not self._lost and not self._free:
                self._changed.wait()
            return not self._lost

    def submit(self, job: MouthJob) -> Future[FaceCrop | None]:
        """The crop to come, where there is room; cancelled if the job's generation is. Raises DeviceLost."""
        if job.frame.generated is None:
            raise ValueError("the frame is not prepared for MuseTalk")
        order = _Order(job, job.frame.generated)
        with self._lock:
            if self._lost:
                raise DeviceLost(ENDED)
            slot = self._free.pop()
            self._slots.stale[slot] = 0
            self._orders[slot] = order
            self._mark_stale()
        self._slots.latents[slot] = order.face.latent
        self._slots.rows[slot] = job.features
        self._send(Paint(slot, float(job.due), job.opening))
        return order.crop

    # ------------------------------------------------------------ sound

    def steps(self, mel: Floats, begin: int, end: int) -> Floats:
        """As Ear.steps. Raises DeviceLost, DeviceFull."""
        answer: Future[str] = Future()
        with self._lock:
            while not self._lost and not self._free_ears:
                self._changed.wait()
            if self._lost:
                raise DeviceLost(ENDED)
            slot = self._free_ears.pop()
            self._questions[slot] = answer
        try:
            self._slots.mels[slot] = mel
            self._send(Hear(slot, begin, end))
            outcome = answer.result()
            steps: Floats = self._slots.states[slot, : end - begin].copy()
        finally:
            with self._lock:
                self._free_ears.append(slot)
                self._changed.notify_all()
        if outcome == Outcome.NOTHING:
            raise DeviceFull("The renderer process has too little GPU memory to hear this sentence.")
        if outcome != Outcome.DONE:
            raise RuntimeError("the renderer process has not heard this sentence; its log says why")
        return steps

    # ------------------------------------------------------------ inside

    def _send(self, message: Paint | Hear) -> None:
        with suppress(OSError):
            self._channel.send(message)
            return
        self._channel.end()  # the receiving thread then fails everything that is on its way

    def _mark_stale(self) -> None:
        """Whoever was interrupted meanwhile wants the faces on their way no more. Seen when a face is ordered, and when one comes."""
        for slot, order in self._orders.items():
            if order.job.generation.cancelled:
                self._slots.stale[slot] = 1

    def _receive(self) -> None:
        try:
            while (message := self._channel.receive()) is not None:
                match message:
                    case Painted():
                        self._painted(message)
                    case Heard():
                        self._take_question(message.slot).set_result(message.outcome)
                    case Share():
                        self._share = message.frames_per_second
                    case _:
                        raise ValueError(f"{type(message).__name__} from a renderer process")
            error = DeviceLost(ENDED)
        except (ValueError, OSError) as failure:
            error = DeviceLost(f"The renderer process is not understood: {failure}.")
        self._lose(error)

    def _painted(self, message: Painted) -> None:
        with self._lock:
            self._mark_stale()
            order = self._orders.pop(message.slot, None)
        if order is None:
            raise ValueError(f"slot {message.slot} was not ordered")
        crop, error = None, None
        try:
            crop = self._pasted(message, order)
        except Exception as failure:  # noqa: BLE001 - it belongs to whoever waits for the crop
            error = failure
        with self._lock:
            self._free.append(message.slot)
            self._changed.notify_all()
        if error is not None:
            order.crop.set_exception(error)
        elif message.outcome == Outcome.STALE:
            order.crop.cancel()
            order.crop.set_running_or_notify_cancel()
        else:
            order.crop.set_result(crop)

    def _pasted(self, message: Painted, order: _Order) -> FaceCrop | None:
        if message.outcome == Outcome.FAILED:
            raise RuntimeError("the renderer process has not painted this face; its log says why")
        picture = self._slots.pictures[message.slot]
        return paste(picture, order.job.frame, order.face) if message.outcome == Outcome.DONE else None

    def _take_question(self, slot: int) -> Future[str]:
        with self._lock:
            question = self._questions.pop(slot, None)
        if question is None:
            raise ValueError(f"nothing was asked in slot {slot}")
        return question

    def _lose(self, error: DeviceLost) -> None:
        with self._lock:
            self._lost = True
            waiting: list[Future[FaceCrop | None] | Future[str]] = [*(order.crop for order in self._orders.values())]
            waiting += self._questions.values()
            self._orders.clear()
            self._questions.clear()
            tell, self._on_lost = self._on_lost, None
            self._changed.notify_all()
        self._channel.close()
        for future in waiting:
            future.set_exception(error)
        if tell is not None:
            tell(error)
