"""Films an answer: the same pipeline and playout as in a call, without the clock, into an MP4."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from gpuserver.domain import (
    FPS,
    FRAME_SECONDS,
    SAMPLE_RATE,
    SAMPLES_PER_FRAME,
    Avatar,
    Bytes2D,
    Generation,
    LipSyncEngine,
    Pcm,
    Played,
    Speech,
    TalkingFrame,
    TimedViseme,
    Voice,
)
from gpuserver.errors import InvalidInput, VoiceFailed
from gpuserver.media.playout import Playout
from gpuserver.messages import ErrorEvent, Notice, ServerMessage
from gpuserver.musetalk.renderer import Renderer
from gpuserver.pipeline.delivery import Scene
from gpuserver.pipeline.language import has_words
from gpuserver.pipeline.llm_echo import EchoModel
from gpuserver.pipeline.streams import closing
from gpuserver.pipeline.studio import Studio
from gpuserver.pipeline.turn import Line, Turn

if TYPE_CHECKING:
    from av.packet import Packet

PART = ".part"  # ends the name of a film that is being written
IDLE_SECONDS = 0.5  # of the avatar's own picture before and after the speech


@dataclass(frozen=True, slots=True)
class FilmReport:
    """What was filmed. visemes: what drove the lips, in seconds of the film; empty where the voice knows none.

    speech_from, speech_to: seconds of the film. notices: what could not be done, in plain sentences, each once.
    """

    path: Path
    frames: int
    seconds: float
    speech_from: float
    speech_to: float
    text: str
    visemes: tuple[TimedViseme, ...]
    notices: tuple[str, ...]


async def render_film(
    avatar: Avatar,
    engine: LipSyncEngine,
    voice: Voice,
    text: str,
    out: Path,
    *,
    voice_name: str | None = None,
    lead_in: float = IDLE_SECONDS,
    lead_out: float = IDLE_SECONDS,
    filmed: Callable[[float], None] | None = None,
) -> FilmReport:
    """Film the avatar saying `text`. `out` appears when it is complete, or not at all.

    filmed: is told how many seconds there are, frame by frame.
    Raises InvalidInput for a text without words, VoiceFailed if nothing of it could be spoken.
    """
    if not has_words(text):
        raise InvalidInput("The text has no word that could be said.", advice="Give a text with at least one word.")
    idle_frames = round(lead_in * FPS)
    recording = _RecordingVoice(voice, idle_frames)
    events: list[ServerMessage] = []
    renderer = Renderer(engine)
    renderer.start()
    try:
        with FilmWriter(out, avatar.width, avatar.height) as writer:
            stage = FilmStage(avatar, writer.add, filmed)
            stage.idle(idle_frames)
            line = Line(text, True, Generation(1), asyncio.get_running_loop().time())
            turn = Turn(line, Studio(EchoModel(), recording, engine, renderer), Scene(avatar, stage), events.append, voice=voice_name)
            await turn.run()
            notices = tuple(dict.fromkeys(_plain(event) for event in events if isinstance(event, Notice | ErrorEvent)))
            speech_to = stage.frames
            if speech_to == idle_frames:
                raise VoiceFailed(" ".join(notices) or "Nothing of the text could be spoken.")
            stage.idle(round(lead_out * FPS))
    finally:
        await asyncio.to_thread(renderer.close)
    return FilmReport(
        path=out,
        frames=stage.frames,
        seconds=stage.frames * FRAME_SECONDS,
        speech_from=idle_frames * FRAME_SECONDS,
        speech_to=speech_to * FRAME_SECONDS,
        text=turn.heard_text,
        visemes=tuple(recording.visemes),
        notices=notices,
    )


class FilmStage:
    """Implements domain.Stage: a playout whose clock ticks whenever a frame has been put."""

    def __init__(self, avatar: Avatar, shoot: Callable[[Bytes2D, Pcm], None], filmed: Callable[[float], None] | None = None):
        self.frames = 0  # shot so far
        self._shoot = shoot
        self._filmed = filmed
        self._playout = Playout(avatar, lambda: self.frames * FRAME_SECONDS)

    def idle(self, count: int) -> None:
        """Let `count` ticks pass without speech; after speech the mouth fades back first."""
        for _ in range(count):
            played = self._playout.tick(self.frames)
            self.frames += 1
            self._shoot(played.picture, played.sound)
            if self._filmed is not None:
                self._filmed(self.frames * FRAME_SECONDS)

    def book(self, generation: Generation) -> int:
        return self._playout.book(generation)

    def due(self, position: int) -> float:
        return self._playout.due(position)

    def patience(self, position: int) -> float | None:
        """A film waits for every mouth."""
        return None

    async def put(self, frame: TalkingFrame) -> None:
        await self._playout.put(frame)
        if not frame.generation.cancelled:
            self.idle(1)

    def cancel(self, generation: Generation) -> None:
        self._playout.cancel(generation)

    async def started(self, generation: Generation) -> float | None:
        """When the first sample was filmed: by the clock on the wall, as everywhere, not the film's own."""
        return None if await self._playout.started(generation) is None else time.monotonic()

    async def drained(self, generation: Generation) -> Played:
        return await self._playout.drained(generation)


class FilmWriter:
    """An MP4 with H.264 (BT.601, limited range) and AAC. The file takes its name when everything is written.

    threads: of the encoder; 0 takes what the machine has.
    """

    def __init__(self, path: Path, width: int, height: int, *, threads: int = 0):
        import av

        self._path = path
        self._partial = path.with_name(f".{path.name}{PART}")
        self.frames = 0
        self.bytes = 0  # of picture and sound, encoded
        self._container = av.open(str(self._partial), "w", format="mp4")
        self._video = self._container.add_stream("libx264", rate=FPS, options={"crf": "18", "preset": "veryfast"})
        self._video.width, self._video.height, self._video.pix_fmt = width, height, "yuv420p"
        self._video.codec_context.thread_count = threads
        self._video.codec_context.colorspace = av.video.reformatter.Colorspace.ITU601
        self._video.codec_context.color_range = av.video.reformatter.ColorRange.MPEG
        self._audio = self._container.add_stream("aac", rate=SAMPLE_RATE, layout="mono", options={"b": "128k"})

    def add(self, picture: Bytes2D, sound: Pcm) -> None:
        """One frame: uint8 [h * 3 / 2, w] and int16 [1920]."""
        import av

        video = av.VideoFrame.from_ndarray(picture, format="yuv420p")
        video.pts, video.time_base = self.frames, Fraction(1, FPS)
        audio = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound).reshape(1, -1), format="s16", layout="mono")
        audio.sample_rate, audio.pts, audio.time_base = SAMPLE_RATE, self.frames * SAMPLES_PER_FRAME, Fraction(1, SAMPLE_RATE)
        self.frames += 1
        self._mux(self._video.encode(video))
        self._mux(self._audio.encode(audio))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        complete = error is None and self.frames > 0
        if complete:
            self._mux(self._video.encode(None))
            self._mux(self._audio.encode(None))
        self._container.close()
        if complete:
            self._partial.replace(self._path)
        else:
            self._partial.unlink(missing_ok=True)

    def _mux(self, packets: Sequence[Packet[Any]]) -> None:
        self.bytes += sum(packet.size for packet in packets)
        self._container.mux(packets)


class _RecordingVoice:
    """Passes a voice on and notes when each of its visemes is in the film: sentences follow each other frame by frame."""

    def __init__(self, voice: Voice, first_frame: int):
        self.visemes: list[TimedViseme] = []
        self._voice = voice
        self._next_frame = first_frame

    @property
    def name(self) -> str:
        return self._voice.name

    def can_speak(self, text: str) -> bool:
        return self._voice.can_speak(text)

    async def speak(self, text: str, *, voice: str | None = None, rate: float = 1.0) -> AsyncIterator[Speech]:
        begin = self._next_frame * FRAME_SECONDS
        seconds = 0.0
        try:
            async with closing(self._voice.speak(text, voice=voice, rate=rate)) as sound:
                async for speech in sound:
                    at = begin + seconds
                    self.visemes += [TimedViseme(each.viseme, at + each.start, at + each.end) for each in speech.visemes or ()]
                    seconds += speech.seconds
                    yield speech
        finally:
            self._next_frame += math.ceil(round(seconds * FPS, 6))

    async def aclose(self) -> None:
        await self._voice.aclose()


def _plain(event: Notice | ErrorEvent) -> str:
    return event.text if isinstance(event, Notice) else str(event.error["detail"])
