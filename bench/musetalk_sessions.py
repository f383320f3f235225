"""Sessions that all speak at once, through the real Renderer, with their hearing: how late are their mouths?"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from bench.musetalk_rig import Rig, speech
from gpuserver.domain import FRAME_SECONDS, FaceCrop, Generation, MouthJob
from gpuserver.musetalk.neural.musetalk_engine import MuseTalkEngine
from gpuserver.musetalk.renderer import Renderer

LEAD_SECONDS = 0.2  # between a sentence's sound and the moment its first frame is due
AHEAD_SECONDS = 1.0  # what a Turn has with the renderer
SENTENCE_SECONDS = 3.2
OPENING_FRAMES = 3


@dataclass(slots=True)
class Lateness:
    """Of all frames, seconds after they were due (negative: before), and how long the first one of each sentence took from its sound."""

    frames: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    failed: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, due: float, asked: float | None, future: Future[FaceCrop | None]) -> None:
        now = time.monotonic()
        drawn = not future.cancelled() and future.exception() is None and future.result() is not None
        with self.lock:
            self.frames.append(now - due)
            self.failed += not drawn
            if asked is not None:
                self.first.append(now - asked)

    def percentile(self, share: float) -> float:
        if not self.frames:
            raise RuntimeError("no frame was drawn")
        return float(np.percentile(self.frames, share))


def talk(rig: Rig, engine: MuseTalkEngine, sessions: int, seconds: float) -> Lateness:
    """So many students are answered for so long, sentence after sentence, all of them out of step."""
    renderer, lateness = Renderer(engine), Lateness()
    renderer.start()
    begin = time.monotonic()
    threads = [
        threading.Thread(target=_answer, args=(rig, engine, renderer, lateness, index * SENTENCE_SECONDS / sessions, begin + seconds))
        for index in range(sessions)
    ]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        renderer.close()
    return lateness


def _answer(rig: Rig, engine: MuseTalkEngine, renderer: Renderer, lateness: Lateness, phase: float, end: float) -> None:
    time.sleep(min(phase, max(end - time.monotonic(), 0)))
    sound, generation = speech(SENTENCE_SECONDS), Generation(1)
    waiting: list[Future[FaceCrop | None]] = []
    due = 0.0
    while not waiting or time.monotonic() < end:
        asked = time.monotonic()
        listener = engine.listener()
        rows = np.concatenate([listener.hear(sound), listener.finish()])
        due = max(due, asked + LEAD_SECONDS)  # sentences follow one another without a pause
        for index, row in enumerate(rows):
            time.sleep(max(due - AHEAD_SECONDS - time.monotonic(), 0))
            job = MouthJob(rig.frames[index % len(rig.frames)], row, due, generation, index < OPENING_FRAMES)
            future = renderer.submit(job)
            first = asked if index == 0 else None
            future.add_done_callback(partial(lateness.note, due, first))
            waiting.append(future)
            due += FRAME_SECONDS
            if due > end + LEAD_SECONDS:
                break
    for future in waiting:
        future.exception()
