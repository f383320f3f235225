"""How it is said: sentences become sound, sound becomes mouths, both go onto the stage frame by frame."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial

import structlog

from gpuserver.domain import FRAME_SECONDS, Avatar, AvatarFrame, FaceCrop, Generation, MouthJob, Speech, Stage, TalkingFrame
from gpuserver.errors import VoiceFailed
from gpuserver.pipeline.report import Report
from gpuserver.pipeline.streams import Channel, closing
from gpuserver.pipeline.studio import Studio
from gpuserver.pipeline.utterance import SpokenFrame, Utterance, slices

log = structlog.get_logger(__name__)

SOUNDS_AHEAD = 8  # pieces of mostly 0.24 s: bridges the time a voice needs to begin its next sentence
MOUTHS_AHEAD = 25  # frames with the renderer, 1 s: as much as it draws ahead
MOUTH_SECONDS = FRAME_SECONDS  # a mouth is waited for so long even where the frame is due: a voice may be just in time
OPENING_FRAMES = 3  # of an answer, for which a student waits; with them there is time for the rest


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """Whose mouth moves, and where it is shown."""

    avatar: Avatar
    stage: Stage


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """A piece of a sentence's sound; None ends the sentence. start: where the sentence begins in the spoken text."""

    utterance: Utterance
    start: int
    speech: Speech | None


@dataclass(frozen=True, slots=True, eq=False)
class _Drawing:
    """A frame whose mouth is being drawn. opens: whether a sentence begins with it."""

    position: int
    frame: AvatarFrame
    sound: SpokenFrame
    heard: int
    opens: bool
    crop: Future[FaceCrop | None]


class Delivery:
    """Speaks sentences with an avatar's mouth: speak -> draw -> perform, tasks with bounded channels between them.

    A frame goes on as soon as its sound and its feature row exist. A full stage holds back the drawing, that the voice.
    """

    def __init__(
        self, scene: Scene, studio: Studio, generation: Generation, report: Report, *, voice: str | None = None, rate: float = 1.0
    ):
        self.spoken = ""  # the sentences that were given a voice
        self.render_failures = 0
        self.mouths_late = 0  # frames that went out with the mouth of the frame before
        self._ordered = 0  # frames
        self._sentence: Utterance | None = None  # whose frame was ordered last
        self._mouth: FaceCrop | None = None  # the last one that was shown
        self._avatar = scene.avatar
        self._stage = scene.stage
        self._studio = studio
        self._generation = generation
        self._report = report
        self._voice = voice
        self._rate = rate
        self._pieces: Channel[_Piece] = Channel(SOUNDS_AHEAD)
        self._drawings: Channel[_Drawing] = Channel(MOUTHS_AHEAD)
        self._performing = asyncio.Event()  # a frame is on the stage, or none will be

    def stages(self, sentences: AsyncIterable[str]) -> list[Coroutine[None, None, None]]:
        """To be run as tasks, side by side. They end when the first sample has left and all frames are on the stage."""
        return [self._speak(sentences), self._draw(), self._perform(), self._announce()]

    # ------------------------------------------------------------ sentences -> sound

    async def _speak(self, sentences: AsyncIterable[str]) -> None:
        async for sentence in sentences:
            await self._speak_sentence(sentence)
        await self._pieces.end()

    async def _speak_sentence(self, sentence: str) -> None:
        """A sentence that no voice can speak is said so; what there is of its sound is played."""
        utterance = Utterance(sentence, self._studio.engine)
        start: int | None = None
        failure: VoiceFailed | None = None
        try:
            async with closing(self._studio.voice.speak(sentence, voice=self._voice, rate=self._rate)) as sound:
                async for speech in sound:
                    if not len(speech.pcm):
                        continue
                    start = self._add_to_spoken(sentence) if start is None else start
                    self._note(speech)
                    for piece in slices(speech, utterance.slice_seconds):
                        await self._pieces.put(_Piece(utterance, start, piece))
        except VoiceFailed as error:
            failure = error
        if start is not None:
            await self._pieces.put(_Piece(utterance, start, None))
        elif failure is None:
            failure = VoiceFailed("The voice gave no sound.")
        if failure is not None:
            log.warning("sentence_not_spoken", problem=failure.slug, voice=self._report.voice)
            self._report.problems.append(failure.slug)
            self._report.notice("unspoken", f"This could not be spoken: {sentence} ({failure.detail})")

    def _note(self, speech: Speech) -> None:
        self._report.mark("first_sound")
        self._report.voice = speech.voice
        self._report.notice("voice_fallback", speech.fallback)

    def _add_to_spoken(self, sentence: str) -> int:
        """Where the sentence begins in the spoken text."""
        if self.spoken and self.spoken[-1].isascii():
            self.spoken += " "
        self.spoken += sentence
        return len(self.spoken) - len(sentence)

    # ------------------------------------------------------------ sound -> mouths

    async def _draw(self) -> None:
        async for piece in self._pieces:
            for sound in await self._heard(piece):
                await self._drawings.put(self._order(sound, piece))
        await self._drawings.end()

    async def _heard(self, piece: _Piece) -> list[SpokenFrame]:
        """The frames that become complete with the piece."""
        hear = piece.utterance.finish if piece.speech is None else partial(piece.utterance.hear, piece.speech)
        if not piece.utterance.blocking:
            return hear()
        return await asyncio.get_running_loop().run_in_executor(self._studio.hearing, hear)

    def _order(self, sound: SpokenFrame, piece: _Piece) -> _Drawing:
        """Book the frame's place in the loop and have its mouth drawn."""
        position = self._stage.book(self._generation)
        frame = self._avatar.frame_at(position)
        self._ordered += 1
        opening = self._ordered <= OPENING_FRAMES
        job = MouthJob(frame, sound.features, self._stage.due(position), self._generation, opening)
        opens, self._sentence = piece.utterance is not self._sentence, piece.utterance
        return _Drawing(position, frame, sound, piece.start + sound.heard, opens, self._studio.renderer.submit(job))

    # ------------------------------------------------------------ mouths -> the stage

    async def _perform(self) -> None:
        async for drawing in self._drawings:
            crop = await self._crop_of(drawing)
            frame = TalkingFrame(self._generation, drawing.position, drawing.frame, crop, drawing.sound.sound, drawing.heard)
            await self._stage.put(frame)
            self._performing.set()
        self._performing.set()

    async def _crop_of(self, drawing: _Drawing) -> FaceCrop | None:
        """The drawn mouth; None, the source's own, if it could not be drawn.

        Sound does not wait for lips within a sentence: a mouth that comes too late is given up, and the one before holds still
        meanwhile. Where a sentence begins the sound waits, until the renderer has caught up.
        """
        crop: Future[FaceCrop | None] | asyncio.Future[FaceCrop | None] = drawing.crop
        if not crop.done():
            crop = asyncio.wrap_future(drawing.crop)
            patience = None if drawing.opens else self._stage.patience(drawing.position)
            await asyncio.wait([crop], timeout=None if patience is None else max(MOUTH_SECONDS, patience))
        if not crop.done():
            crop.cancel()
            self.mouths_late += 1
            return self._mouth
        if crop.cancelled():
            return None
        if error := crop.exception():
            self.render_failures += 1
            if self.render_failures == 1:
                log.error("mouth_not_drawn", exc_info=error)
                self._report.notice("still_mouth", "The lips could not be drawn; the sound goes on.")
            return None
        self._report.mark("first_mouth_frame")
        mouth = crop.result()
        self._mouth = mouth if mouth is None or mouth.drawn_on else replace(mouth, drawn_on=drawing.frame)
        return mouth

    async def _announce(self) -> None:
        await self._performing.wait()
        if self.spoken and (started_at := await self._stage.started(self._generation)) is not None:
            self._report.speech_started(started_at)
