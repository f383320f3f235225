"""Two engines that can take over from each other at any frame: a network and the spare engine, fed from the same rows.

A row of a pair is float32 [1 + s + n]: 1 where the network is to draw and 0 in pauses, the spare engine's row, the network's row.
Without the last part it is for the spare engine alone. Nothing outside this module knows that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace

import numpy as np

from gpuserver.domain import Drawing, FaceCrop, Floats, LipSyncEngine, Listener, MouthJob, PipelinedEngine, QueueingEngine, Speech
from gpuserver.errors import DeviceFull, DeviceLost
from gpuserver.musetalk.rendering.quiet_frames import QuietFrames


class Pair:
    """What a network and a spare engine hear, and which part of it is whose."""

    def __init__(self, network: LipSyncEngine, spare: LipSyncEngine):
        self._network = network
        self._spare = spare
        self._shape = network.rest().shape
        self.deaf = False  # the network cannot hear any more: its device is gone
        self._spare_size = len(spare.rest())

    def listener(self) -> PairedListener:
        return PairedListener(self._network.listener(), self._spare.listener(), self)

    def rest(self) -> Floats:
        """Closed lips are the spare engine's: a pause costs the network nothing."""
        return np.concatenate([np.zeros(1, np.float32), self._spare.rest()])

    def rows(self, spare: Sequence[Floats], network: Sequence[Floats] | None, speaks: Sequence[bool]) -> Floats:
        """Join rows, as many of each. network None: it cannot hear any more."""
        rows = np.zeros((len(spare), 1 + self._spare_size + math.prod(self._shape)), np.float32)
        for index, row in enumerate(rows):
            row[1 : 1 + self._spare_size] = spare[index]
            if network is not None:
                row[0] = speaks[index]
                row[1 + self._spare_size :].reshape(self._shape)[...] = network[index]
        return rows

    def suits_network(self, job: MouthJob) -> bool:
        """Whether the network can draw it and is to: the avatar was prepared for it, and there is speech."""
        return job.frame.generated is not None and len(job.features) > 1 + self._spare_size and bool(job.features[0])

    def for_network(self, job: MouthJob) -> MouthJob:
        return replace(job, features=job.features[1 + self._spare_size :].reshape(self._shape))


class SpareOfPair:
    """Implements LipSyncEngine: the spare engine, for rows of a pair and for its own."""

    def __init__(self, engine: LipSyncEngine):
        self.name = engine.name
        self.max_batch = engine.max_batch
        self._engine = engine
        self._size = len(engine.rest())

    def listener(self) -> Listener:
        return self._engine.listener()

    def rest(self) -> Floats:
        return self._engine.rest()

    def render(self, jobs: Sequence[MouthJob]) -> Sequence[FaceCrop | None]:
        return self._engine.render([self._own(job) for job in jobs])

    def _own(self, job: MouthJob) -> MouthJob:
        return job if len(job.features) == self._size else replace(job, features=job.features[1 : 1 + self._size])


class NetworkOfPair:
    """Implements LipSyncEngine: a network, for rows of a pair."""

    def __init__(self, engine: LipSyncEngine, pair: Pair):
        self.name = engine.name
        self._engine = engine
        self._pair = pair

    @property
    def max_batch(self) -> int:
        """It falls where the device has too little memory."""
        return self._engine.max_batch

    @property
    def out_of_memory(self) -> int:
        return int(getattr(self._engine, "out_of_memory", 0))

    def listener(self) -> Listener:
        return self._pair.listener()

    def rest(self) -> Floats:
        return self._pair.rest()

    def render(self, jobs: Sequence[MouthJob]) -> Sequence[FaceCrop | None]:
        return self._engine.render([self._pair.for_network(job) for job in jobs])


class PipelinedNetworkOfPair(NetworkOfPair):
    """Implements PipelinedEngine."""

    def __init__(self, engine: PipelinedEngine, pair: Pair):
        super().__init__(engine, pair)
        self._pipelined = engine

    def begin(self, jobs: Sequence[MouthJob]) -> Drawing:
        return self._pipelined.begin([self._pair.for_network(job) for job in jobs])


class QueueingNetworkOfPair(NetworkOfPair):
    """Implements QueueingEngine."""

    def __init__(self, engine: QueueingEngine, pair: Pair):
        super().__init__(engine, pair)
        self._queueing = engine
        self.wait_for_room = engine.wait_for_room
        self.when_lost = engine.when_lost
        self.close = engine.close

    @property
    def frames_per_second(self) -> float | None:
        return self._queueing.frames_per_second

    def submit(self, job: MouthJob) -> Future[FaceCrop | None]:
        return self._queueing.submit(self._pair.for_network(job))


def network_of_pair(engine: LipSyncEngine, pair: Pair) -> NetworkOfPair:
    if isinstance(engine, QueueingEngine):
        return QueueingNetworkOfPair(engine, pair)
    return PipelinedNetworkOfPair(engine, pair) if isinstance(engine, PipelinedEngine) else NetworkOfPair(engine, pair)


class PairedListener:
    """Implements domain.Listener: a row is given when both engines know theirs, and whether there is a pause.

    If the network's device is lost in the middle of a sentence, or has no memory to hear it, the rest of it is the spare engine's.
    """

    def __init__(self, network: Listener, spare: Listener, pair: Pair):
        self.blocking = network.blocking
        self._network: Listener | None = network
        self._spare = spare
        self._pair = pair
        self._pauses: QuietFrames | None = None
        self._spare_rows: list[Floats] = []
        self._network_rows: list[Floats] = []
        self._given = 0

    def hear(self, speech: Speech) -> Floats:
        """Raises ValueError when the rate changes within the sentence."""
        self._pauses = self._pauses or QuietFrames(speech.sample_rate)
        self._pauses.hear(speech.pcm)
        self._listen(lambda listener: listener.hear(speech))
        return self._rows(self._pauses.known)

    def finish(self) -> Floats:
        if self._pauses is None:
            return self._rows(0)
        self._pauses.finish()
        self._listen(lambda listener: listener.finish())
        return self._rows(self._pauses.known)

    def _listen(self, listen: Callable[[Listener], Floats]) -> None:
        self._spare_rows.extend(listen(self._spare))
        if self._network is not None:
            try:
                self._network_rows.extend(listen(self._network))
            except DeviceFull:
                self._network = None  # the next sentence is tried again
            except DeviceLost:
                self._network, self._pair.deaf = None, True

    def _rows(self, end: int) -> Floats:
        """The rows of the frames up to `end` that both engines know and that were not given yet."""
        known = [self._spare_rows] if self._network is None else [self._spare_rows, self._network_rows]
        count = min(max(end - self._given, 0), *(len(rows) for rows in known))
        speaks = [self._pauses is not None and not self._pauses.is_quiet(self._given + index) for index in range(count)]
        rows = self._pair.rows(self._spare_rows[:count], None if self._network is None else self._network_rows[:count], speaks)
        del self._spare_rows[:count], self._network_rows[:count]
        self._given += count
        return rows
