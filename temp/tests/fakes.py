"""Named stand-ins for the parts of the pipeline: small, exact, with faults on request."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from gpuserver.domain import (
    FPS,
    Avatar,
    AvatarFrame,
    Box,
    FaceCrop,
    Floats,
    Generation,
    Message,
    MouthJob,
    Pcm,
    Played,
    Speech,
    TalkingFrame,
    TimedViseme,
    Token,
    Viseme,
)
from gpuserver.errors import AvatarNotFound, LanguageModelFailed, VoiceFailed
from gpuserver.musetalk.rendering.compositor import planes

WIDTH, HEIGHT = 32, 24
MOUTH = Box(8, 12, 24, 20)
CROP_LUMA = 200  # what FakeEngine paints the mouth with; no FakeAvatar picture has it


def fake_frame(index: int, width: int = WIDTH, height: int = HEIGHT) -> AvatarFrame:
    """A grey picture whose brightness is its index (mod 100), so that a wrong index shows."""
    picture = np.full((height * 3 // 2, width), 128, np.uint8)
    picture[:height] = 16 + index % 100
    picture.flags.writeable = False
    return AvatarFrame(index, picture, np.zeros((468, 2), np.float32), Box(4, 4, 28, 22), 0.0)


def fake_avatar(count: int = 10, avatar_id: str = "fake") -> Avatar:
    return Avatar(avatar_id, WIDTH, HEIGHT, [fake_frame(index) for index in range(count)])


def fake_crop(frame: AvatarFrame, luma: int = CROP_LUMA) -> FaceCrop:
    """A bright mouth whose rim is the source's own."""
    y, u, v = planes(frame.picture)
    rows, columns = slice(MOUTH.top, MOUTH.bottom), slice(MOUTH.left, MOUTH.right)
    half = slice(MOUTH.top // 2, MOUTH.bottom // 2), slice(MOUTH.left // 2, MOUTH.right // 2)
    bright = y[rows, columns].copy()
    bright[1:-1, 1:-1] = luma
    return FaceCrop(MOUTH, bright, u[half].copy(), v[half].copy())


def mouth_luma(picture: np.ndarray) -> int:
    """The brightness in the middle of the mouth."""
    return int(picture[(MOUTH.top + MOUTH.bottom) // 2, (MOUTH.left + MOUTH.right) // 2])


def loud(value: int, samples: int = 1920) -> Pcm:
    """Sound that can be told apart from every other one."""
    return np.full(samples, value, np.int16)


class FakeListener:
    """One row per frame: the loudest sample of its sound. Looks one frame ahead, as real ones do."""

    blocking = False

    def __init__(self) -> None:
        self._sound = np.zeros(0, np.int16)
        self._rate = FPS
        self._given = 0

    def hear(self, speech: Speech) -> Floats:
        self._sound = np.concatenate([self._sound, speech.pcm])
        self._rate = speech.sample_rate
        return self._rows(len(self._sound) * FPS // self._rate - 1)

    def finish(self) -> Floats:
        return self._rows(math.ceil(len(self._sound) * FPS / self._rate))

    def _rows(self, end: int) -> Floats:
        size = self._rate // FPS
        rows = [[float(np.abs(self._sound[at * size : (at + 1) * size]).max())] for at in range(self._given, end)]
        self._given += len(rows)
        return np.array(rows, np.float32).reshape(-1, 1)


class FakeEngine:
    """Paints every mouth bright. Fails where `fails(job)` says so. Counts its batches."""

    def __init__(self, max_batch: int = 4, fails: Callable[[MouthJob], bool] = lambda job: False):
        self.name = "fake"
        self.max_batch = max_batch
        self.batches: list[list[MouthJob]] = []
        self._fails = fails

    def listener(self) -> FakeListener:
        return FakeListener()

    def rest(self) -> Floats:
        return np.zeros(1, np.float32)

    def render(self, jobs: Sequence[MouthJob]) -> list[FaceCrop]:
        self.batches.append(list(jobs))
        if any(self._fails(job) for job in jobs):
            raise RuntimeError("the fake engine fails")
        return [fake_crop(job.frame) for job in jobs]


class FakeRenderer:
    """Draws on the event loop after `seconds` of its time, instead of on a thread."""

    def __init__(self, engine: FakeEngine, seconds: float = 0.0):
        self.jobs: list[MouthJob] = []
        self._engine = engine
        self._seconds = seconds

    def submit(self, job: MouthJob) -> Future[FaceCrop | None]:
        self.jobs.append(job)
        future: Future[FaceCrop | None] = Future()
        asyncio.get_running_loop().call_later(self._seconds, self._draw, job, future)
        return future

    def _draw(self, job: MouthJob, future: Future[FaceCrop | None]) -> None:
        if job.generation.cancelled:
            future.cancel()
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(self._engine.render([job])[0])
        except RuntimeError as error:
            future.set_exception(error)


class FakeVoice:
    """Speaks every word as 0.2 s of a constant, louder word by word, in pieces of 0.1 s; then 20 ms of silence.

    seconds_per_piece: how long each piece takes to come. unspeakable: sentences with this in them fail.
    """

    RATE = 24_000

    def __init__(self, seconds_per_piece: float = 0.0, unspeakable: str = "\0", fallback: str | None = None):
        self.name = "fake"
        self.sentences: list[str] = []
        self.rates: list[float] = []
        self.open = 0  # streams that have been begun and not been closed
        self._seconds = seconds_per_piece
        self._unspeakable = unspeakable
        self._fallback = fallback

    def can_speak(self, text: str) -> bool:
        return self._unspeakable not in text

    async def speak(self, text: str, *, voice: str | None = None, rate: float = 1.0) -> AsyncIterator[Speech]:
        self.sentences.append(text)
        self.rates.append(rate)
        self.open += 1
        try:
            if not self.can_speak(text):
                raise VoiceFailed("The fake voice does not know this.")
            for number, word in enumerate(text.split()):
                for half in range(2):
                    await asyncio.sleep(self._seconds)
                    visemes = (TimedViseme(Viseme.AA if half else Viseme.PP, 0.0, 0.1),)
                    yield Speech(loud(1000 + 100 * number, self.RATE // 10), self.RATE, word, visemes, voice or "fake", self._fallback)
            yield Speech(loud(0, self.RATE // 50), self.RATE, "", (TimedViseme(Viseme.SIL, 0.0, 0.02),), voice or "fake", self._fallback)
        finally:
            self.open -= 1

    async def aclose(self) -> None:
        pass


class FakeLanguageModel:
    """Says its script word by word. fails_after: so many tokens come before the failure; None: it does not fail."""

    def __init__(
        self,
        script: str = "One two. Three four.",
        seconds_per_token: float = 0.0,
        fails_after: int | None = None,
        fallback: str | None = None,
    ):
        self.name = "fake-llm"
        self.script = script
        self.questions: list[list[Message]] = []
        self.models: list[str | None] = []
        self.kb_ids: list[str | None] = []
        self.tokens_given = 0
        self.open = 0
        self._seconds = seconds_per_token
        self._fails_after = fails_after
        self._fallback = fallback

    async def reply(self, messages: Sequence[Message], *, model: str | None = None, kb_id: str | None = None) -> AsyncIterator[Token]:
        self.questions.append(list(messages))
        self.models.append(model)
        self.kb_ids.append(kb_id)
        self.open += 1
        try:
            for number, word in enumerate(self.script.split(" ")):
                if number == self._fails_after:
                    raise LanguageModelFailed("The fake language model was cut off.")
                await asyncio.sleep(self._seconds)
                self.tokens_given += 1
                yield Token(word if number == 0 else " " + word, model or self.name, self._fallback)
            if self._fails_after is not None and self._fails_after >= len(self.script.split(" ")):
                raise LanguageModelFailed("The fake language model was cut off.")
        finally:
            self.open -= 1

    async def aclose(self) -> None:
        pass


class FakeStage:
    """Plays everything at once and remembers it. Refuses stale frames loudly. `gate` cleared: puts wait."""

    def __init__(self) -> None:
        self.frames: list[TalkingFrame] = []
        self.cancelled: list[Generation] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.waits: float | None = None  # the patience for a late mouth, seconds
        self._booked = 0
        self._change = asyncio.Event()

    def book(self, generation: Generation) -> int:
        assert not generation.cancelled, "a stale generation books"
        self._booked += 1
        return self._booked - 1

    def due(self, position: int) -> float:
        return position / FPS

    def patience(self, position: int) -> float | None:
        return self.waits

    async def put(self, frame: TalkingFrame) -> None:
        assert not frame.generation.cancelled, "a stale frame reaches the stage"
        await self.gate.wait()
        self.frames.append(frame)
        self._change.set()

    def cancel(self, generation: Generation) -> None:
        self.cancelled.append(generation)
        self._change.set()

    async def started(self, generation: Generation) -> float | None:
        while not self.frames and not generation.cancelled:
            await self._change.wait()
        return asyncio.get_running_loop().time() if self.frames else None

    async def drained(self, generation: Generation) -> Played:
        mine = [frame for frame in self.frames if frame.generation is generation]
        return Played(mine[-1].heard, asyncio.get_running_loop().time()) if mine else Played(0, None)

    @property
    def sound(self) -> Pcm:
        return np.concatenate([frame.sound for frame in self.frames]) if self.frames else np.zeros(0, np.int16)


@dataclass
class FakeAvatars:
    """Both the manager and the cache of avatars, as far as sessions need them."""

    ids: tuple[str, ...] = ("demo",)
    touched: int = 0

    def choose(self, avatar_id: str | None, tutor_id: str) -> str:
        wanted = avatar_id or self.ids[0]
        if wanted not in self.ids:
            raise AvatarNotFound(f"There is no avatar {wanted}; there are: {', '.join(self.ids)}.")
        return wanted

    def touch(self, avatar_id: str) -> None:
        self.touched += 1

    def get(self, avatar_id: str) -> Avatar:
        return fake_avatar(avatar_id=avatar_id)
