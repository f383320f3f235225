"""The nouns of the system and the protocols between its parts. numpy and the standard library only.

A Turn turns one question into TalkingFrames:

    LanguageModel --tokens--> sentences --text--> Voice --Speech--> Listener --feature rows--> MouthJob
        --> Renderer (LipSyncEngine) --FaceCrop--> TalkingFrame --> Stage (the playout, or a file)

Time: 25 pictures per second, 40 ms each; every picture carries its own 1920 samples of 48 kHz sound, so sound and
picture are in sync by construction.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gpuserver.errors import DeviceLost

FPS = 25
FRAME_SECONDS = 1 / FPS  # 0.040 s
SAMPLE_RATE = 48_000
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS  # 1920

Bytes2D = NDArray[np.uint8]
Floats = NDArray[np.float32]
Pcm = NDArray[np.int16]


# ---------------------------------------------------------------- faces


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels: left and top are inside, right and bottom are just outside."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class AvatarFrame:
    """One picture of an avatar with all that is known about it; never changed, shared by all sessions.

    picture: uint8 [height * 3 / 2, width], planar I420 (BT.601, limited range), read-only.
    landmarks: float32 [468, 2], face mesh points in pixels of the picture (x, y).
    mouth_opening: gap between the inner lips in this picture, in units of the mouth's width; 0 is closed.
    """

    index: int
    picture: Bytes2D
    landmarks: Floats
    face: Box
    mouth_opening: float
    generated: LatentFace | None = None  # where the avatar was prepared for MuseTalk


@dataclass(frozen=True, slots=True, eq=False)
class LatentFace:
    """What MuseTalk needs to draw a mouth into one frame; made once, at preparation.

    latent: float16 [8, 32, 32], the face box as the VAE sees it, scaled by 0.18215: channels 0-3 with the lower half
    hidden, 4-7 whole. box: the face box that was encoded, in pixels of the picture. mask: uint8 [h, w], how opaque the
    drawn face is, over mask_box: the part of the picture where it shows at all (even coordinates, inside the picture).
    """

    latent: NDArray[np.float16]
    box: Box
    mask: Bytes2D
    mask_box: Box


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Avatar:
    """A face that can talk: a loop of frames at 25 fps that plays forth and back."""

    avatar_id: str
    width: int  # even
    height: int  # even
    frames: Sequence[AvatarFrame]  # at least one

    def frame_at(self, position: int) -> AvatarFrame:
        """The frame that the loop shows at `position` (any integer >= 0, counted in frames since the loop began)."""
        return self.frames[loop_index(position, len(self.frames))]


def loop_index(position: int, count: int) -> int:
    """Forth and back without showing either end twice: for count = 4 it is 0 1 2 3 2 1 0 1 …"""
    if count == 1:
        return 0
    phase = position % (2 * count - 2)
    return phase if phase < count else 2 * count - 2 - phase


@dataclass(frozen=True, slots=True, eq=False)
class FaceCrop:
    """A rendered mouth region, ready to be pasted into a copy of the frame it was rendered for.

    box has even coordinates. y is uint8 [h, w]; u and v are uint8 [h / 2, w / 2]. At the box's rim the
    pixels equal those of the source frame, so that pasting leaves no seam.
    engine: who drew it; where that changes, the mouth cross-fades. drawn_on: the frame it was rendered for, where it is
    lent to another one (the Renderer fills in both).
    """

    box: Box
    y: Bytes2D
    u: Bytes2D
    v: Bytes2D
    engine: str = ""
    drawn_on: AvatarFrame | None = None


# ---------------------------------------------------------------- speech


class Viseme(StrEnum):
    """The 15 visemes of MPEG-4 in the usual names."""

    SIL = "sil"  # silence, lips at rest
    PP = "PP"  # p b m
    FF = "FF"  # f v
    TH = "TH"  # th
    DD = "DD"  # t d
    KK = "kk"  # k g ng h
    CH = "CH"  # ch j sh zh
    SS = "SS"  # s z
    NN = "nn"  # n l
    RR = "RR"  # r
    AA = "aa"  # father, cut
    E = "E"  # bed
    IH = "ih"  # bit, see
    OH = "oh"  # thought, go
    OU = "ou"  # put, too, w


@dataclass(frozen=True, slots=True)
class TimedViseme:
    """A viseme from `start` to `end`, in seconds from the beginning of the Speech that carries it."""

    viseme: Viseme
    start: float
    end: float


@dataclass(frozen=True, slots=True, eq=False)
class Speech:
    """A piece of the sound of one sentence, as the voice made it.

    pcm: int16 mono at `sample_rate` (Hz), the voice's own rate. visemes: in order, touching, covering the sound; None
    where the voice does not know them (the lips then follow the sound itself). voice: who speaks.
    fallback: set where another voice than the preferred one speaks: one plain sentence that says which and why.
    """

    pcm: Pcm
    sample_rate: int
    text: str
    visemes: tuple[TimedViseme, ...] | None = None
    voice: str = ""
    fallback: str | None = None

    @property
    def seconds(self) -> float:
        return len(self.pcm) / self.sample_rate


@dataclass(frozen=True, slots=True)
class Message:
    """One line of a conversation. role: "system", "user" or "assistant"."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of an answer's text. fallback: set where another model than the wanted one answers; says which and why."""

    text: str
    model: str
    fallback: str | None = None


class LanguageModel(Protocol):
    """Answers a conversation, token by token."""

    @property
    def name(self) -> str: ...

    def reply(self, messages: Sequence[Message], *, model: str | None = None, kb_id: str | None = None) -> AsyncIterator[Token]:
        """Stream the answer's text. kb_id: the knowledge base that the session names, for models that know any.

        Raises LanguageModelFailed, also in mid-stream when the stream is cut.
        """
        ...

    async def aclose(self) -> None: ...


class Voice(Protocol):
    """Speaks one sentence, piece by piece."""

    @property
    def name(self) -> str: ...

    def can_speak(self, text: str) -> bool:
        """Whether this voice knows the script of the text; False means it would drop words."""
        ...

    def speak(self, text: str, *, voice: str | None = None, rate: float = 1.0) -> AsyncIterator[Speech]:
        """Stream the sound of one sentence. rate: 1.0 is normal speed. Raises VoiceFailed."""
        ...

    async def aclose(self) -> None: ...


# ---------------------------------------------------------------- lips


class Generation:
    """The number of a Turn and whether it still counts. Shared between the event loop and render threads.

    A cancelled generation never comes back to life; everything that belongs to it may be dropped anywhere.
    """

    __slots__ = ("__weakref__", "_cancelled", "number")

    def __init__(self, number: int):
        self.number = number
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    def cancel(self) -> None:
        self._cancelled = True


@dataclass(frozen=True, slots=True, eq=False)
class MouthJob:
    """The unit of rendering: one frame of one avatar, to be shown at `due` (time.monotonic seconds).

    features: one row as the engine's own Listener made it. opening: one of the Turn's first frames, for which a student
    is waiting.
    """

    frame: AvatarFrame
    features: Floats
    due: float
    generation: Generation
    opening: bool = False


class Listener(Protocol):
    """Hears the sound of one sentence and says, per 25 fps frame, what the mouth does.

    A sentence of n samples has ceil(n * 25 / sample_rate) frames; the last one may be partly silent.
    """

    @property
    def blocking(self) -> bool:
        """Whether hearing waits for a device or a network, so that it does not belong on an event loop."""
        ...

    def hear(self, speech: Speech) -> Floats:
        """Feature rows (float32 [n, …], n may be 0) of the frames that became computable with this piece."""
        ...

    def finish(self) -> Floats:
        """The rows of all remaining frames; silence follows the last sample."""
        ...


class Hearing(Protocol):
    """Hears for whoever draws."""

    def listener(self) -> Listener:
        """A new Listener, for one sentence."""
        ...

    def rest(self) -> Floats:
        """The feature row of closed lips, for pauses inside a Turn."""
        ...


class LipSyncEngine(Hearing, Protocol):
    """Draws mouths. Stateless between jobs, so that one engine serves all sessions."""

    @property
    def name(self) -> str: ...

    @property
    def max_batch(self) -> int: ...

    def render(self, jobs: Sequence[MouthJob]) -> Sequence[FaceCrop | None]:
        """One crop per job, in order; None where none could be drawn and the source's own mouth stands in.

        Called from the Renderer's threads only. Raises DeviceLost when the device is gone for good.
        """
        ...


class Drawing(Protocol):
    """Mouths that a device is drawing in the background."""

    def crops(self) -> Sequence[FaceCrop | None]:
        """Waits for the device, then as LipSyncEngine.render(). Raises DeviceLost."""
        ...


@runtime_checkable
class PipelinedEngine(LipSyncEngine, Protocol):
    """An engine on a device of its own: the next batch is begun while the one before is being finished."""

    def begin(self, jobs: Sequence[MouthJob]) -> Drawing:
        """Give the device a batch and return at once. Called from several threads; crops() may be called from another."""
        ...


@runtime_checkable
class QueueingEngine(LipSyncEngine, Protocol):
    """An engine in another process, where the jobs of several processes wait in one queue. max_batch: how many it takes now."""

    @property
    def frames_per_second(self) -> float | None:
        """How many this process may count on; None before that is known."""
        ...

    def wait_for_room(self) -> bool:
        """Until it takes a job. False: the other process is gone, or close() was called."""
        ...

    def submit(self, job: MouthJob) -> Future[FaceCrop | None]:
        """The crop to come; cancelled if the job's generation is, with DeviceLost if the process ends. Raises DeviceLost."""
        ...

    def when_lost(self, tell: Callable[[DeviceLost], None]) -> None:
        """Call this when the process is gone, after what was on its way has failed."""
        ...

    def close(self) -> None: ...


# ---------------------------------------------------------------- one answer


@dataclass(frozen=True, slots=True, eq=False)
class TalkingFrame:
    """A frame of the avatar with its mouth and its own 40 ms of sound.

    sound: int16 [1920], 48 kHz mono. position: the loop position of `frame`. crop None: the source's own mouth.
    heard: how many characters of the answer's spoken text have been said when this frame ends.
    """

    generation: Generation
    position: int
    frame: AvatarFrame
    crop: FaceCrop | None
    sound: Pcm
    heard: int = 0


@dataclass(frozen=True, slots=True)
class Played:
    """What became of a generation's frames. heard: characters of the spoken text that were played;
    last_audible_at: when its last audible sample left (time.monotonic seconds), None if none did."""

    heard: int
    last_audible_at: float | None


class Stage(Protocol):
    """Where the frames of a Turn go: a playout with a clock, or a file without one. All calls from one event loop."""

    def book(self, generation: Generation) -> int:
        """The loop position of the generation's next frame: right after the last booked one, or where the idle loop will be."""
        ...

    def due(self, position: int) -> float:
        """When the frame booked for `position` is to be shown, on time.monotonic's scale."""
        ...

    def patience(self, position: int) -> float | None:
        """For how many seconds the frame booked for `position` may still wait for its mouth without the sound having to pause.

        0 or less: the pause has begun. None: as long as it takes, nobody is watching the clock.
        """
        ...

    async def put(self, frame: TalkingFrame) -> None:
        """Hand over a booked frame, in booking order; waits while enough is ahead. A stale frame is dropped."""
        ...

    def cancel(self, generation: Generation) -> None:
        """Forget what was booked and put for this generation: silence at once, the source's mouth within 4 frames."""
        ...

    async def started(self, generation: Generation) -> float | None:
        """Waits for the generation's first sample to leave; time.monotonic seconds, None if it was cancelled before."""
        ...

    async def drained(self, generation: Generation) -> Played:
        """Returns when every frame put for this generation has been played or dropped. Await it after the last put, or after cancel."""
        ...


@dataclass(slots=True)
class Trace:
    """When the stages of one Turn were reached, in milliseconds since it was asked; None: not reached."""

    generation: int
    asked_at: float  # time.monotonic seconds
    marks: dict[str, float] = field(default_factory=dict)

    STAGES: ClassVar[tuple[str, ...]] = (
        "first_token",
        "first_sentence",
        "first_sound",
        "first_mouth_frame",
        "first_packet",
        "interrupted",
        "done",
    )

    def mark(self, stage: str, now: float) -> bool:
        """Note the first time `stage` is reached; False if it was noted before. Raises KeyError for an unknown stage."""
        if stage not in self.STAGES:
            raise KeyError(stage)
        if stage in self.marks:
            return False
        self.marks[stage] = round((now - self.asked_at) * 1000, 1)
        return True
