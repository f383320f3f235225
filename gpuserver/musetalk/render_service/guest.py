"""One worker at the renderer process: what it asks for is scheduled with everybody's, and what comes of it is put into its slots."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from gpuserver.domain import FaceCrop, Generation, MouthJob
from gpuserver.errors import DeviceFull, DeviceLost
from gpuserver.musetalk.neural.musetalk_listener import Ear
from gpuserver.musetalk.render_service.channel import Channel
from gpuserver.musetalk.render_service.faces import frame_of
from gpuserver.musetalk.render_service.messages import Hear, Heard, Message, Outcome, Paint, Painted, Ready, Share
from gpuserver.musetalk.render_service.slots import Layout, create_slots
from gpuserver.musetalk.render_service.standstill import Standstill
from gpuserver.musetalk.renderer import Renderer

NEWS = 0.02  # a worker is told of changes of its share that are greater

_log = logging.getLogger(__name__)


class _Slot(Generation):
    """A job's own generation, on both sides of the border: the worker marks it in the memory, and it ends with the connection."""

    __slots__ = ("_marks", "_visit")

    def __init__(self, number: int, marks: NDArray[np.uint8], visit: Generation):
        super().__init__(number)
        self._marks = marks
        self._visit = visit

    @property
    def cancelled(self) -> bool:
        return bool(self._marks[self.number]) or self._visit.cancelled


@dataclass(frozen=True, slots=True)
class Workshop:
    """What all guests share.

    ears: in turn. share_out: tells all what they may count on. on_lost: to be told when a device is gone. standstill: is told of all work.
    """

    renderer: Renderer
    hearing: Executor
    ears: Iterator[Ear]
    share_out: Callable[[], None]
    on_lost: Callable[[str], None]
    standstill: Standstill


class Guest:
    """welcome(), serve() on the connection's thread, leave() from any."""

    def __init__(self, channel: Channel, layout: Layout, workshop: Workshop):
        self._channel = channel
        self._layout = layout
        self._workshop = workshop
        self._slots, self._descriptor = create_slots(layout)
        self._visit = Generation(0)  # cancelled when the worker has gone
        self._painting: set[int] = set()
        self._listening: set[int] = set()
        self._share = 0.0  # faces per second

    def welcome(self) -> None:
        """Hand out the memory. Raises OSError."""
        try:
            self._channel.send(Ready(self._layout.width, self._layout.paint_slots, self._layout.hear_slots), self._descriptor)
        finally:
            os.close(self._descriptor)

    def serve(self) -> None:
        """Until the worker has gone. Raises ValueError where it does not keep to the protocol."""
        while (message := self._channel.receive()) is not None:
            match message:
                case Paint():
                    self._paint(message)
                case Hear():
                    self._hear(message)
                case _:
                    raise ValueError(f"{type(message).__name__} from a worker that has joined")

    def leave(self) -> None:
        """What waits for this worker is dropped."""
        self._visit.cancel()
        self._channel.end()

    def may_count_on(self, frames_per_second: float) -> None:
        """Said where it is news."""
        if abs(frames_per_second - self._share) > NEWS * self._share:
            self._share = frames_per_second
            self._tell(Share(frames_per_second))

    # ------------------------------------------------------------ faces

    def _paint(self, order: Paint) -> None:
        _occupy(order.slot, self._painting, self._layout.paint_slots)
        slots, generation = self._slots, _Slot(order.slot, self._slots.stale, self._visit)
        job = MouthJob(frame_of(slots.latents[order.slot]), slots.rows[order.slot], order.due, generation, order.opening)
        self._workshop.standstill.begun()
        self._workshop.renderer.submit(job).add_done_callback(partial(self._painted, order.slot))

    def _painted(self, slot: int, face: Future[FaceCrop | None]) -> None:
        """On the renderer's thread. The slot is free before the worker is told so.

        Nothing is said of a device that is lost: the process ends with it, and the worker finds another way for all that was on its way.
        """
        self._workshop.standstill.finished()
        if not face.cancelled() and isinstance(face.exception(), DeviceLost):
            return
        outcome = Outcome.STALE if face.cancelled() else self._put(slot, face)
        self._painting.discard(slot)
        self._tell(Painted(slot, outcome))

    def _put(self, slot: int, face: Future[FaceCrop | None]) -> Outcome:
        if error := face.exception():
            _log.error("a face was not painted", exc_info=error)
            return Outcome.FAILED
        if (crop := face.result()) is None:
            return Outcome.NOTHING
        self._slots.pictures[slot] = crop.y
        return Outcome.DONE

    # ------------------------------------------------------------ sound

    def _hear(self, question: Hear) -> None:
        if not 0 <= question.begin <= question.end <= self._slots.states.shape[1]:
            raise ValueError(f"there are no steps {question.begin} to {question.end}")
        _occupy(question.slot, self._listening, self._layout.hear_slots)
        self._workshop.share_out()  # with every sentence: what the devices can do is measured while they work
        self._workshop.standstill.begun()
        self._workshop.hearing.submit(self._listen, question, next(self._workshop.ears))

    def _listen(self, question: Hear, ear: Ear) -> None:
        """On a hearing thread: the ear makes one batch of what several ask for."""
        slot, outcome = question.slot, Outcome.DONE
        try:
            steps = ear.steps(self._slots.mels[slot], question.begin, question.end)
            self._slots.states[slot, : len(steps)] = steps
        except DeviceFull:
            outcome = Outcome.NOTHING
        except DeviceLost as error:
            self._workshop.on_lost(error.detail)
            return
        except Exception:  # noqa: BLE001 - whatever it is, the worker is told so and goes on
            _log.exception("a sound was not heard")
            outcome = Outcome.FAILED
        self._workshop.standstill.finished()
        self._listening.discard(slot)
        self._tell(Heard(slot, outcome))

    def _tell(self, message: Message) -> None:
        with suppress(OSError):  # a worker that has gone needs no answer; one that reads nothing has failed
            self._channel.send(message)
            return
        self._channel.end()


def _occupy(slot: int, busy: set[int], count: int) -> None:
    """Raises ValueError where there is no such slot, or it is in use."""
    if not 0 <= slot < count or slot in busy:
        raise ValueError(f"slot {slot} is in use or does not exist")
    busy.add(slot)
