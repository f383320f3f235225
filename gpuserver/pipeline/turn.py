"""One answer: think -> split -> speak -> draw -> perform, five tasks with bounded channels between them.

A full stage holds back the drawing, that the voice, that the language model. A cancelled generation ends all five.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import structlog

from gpuserver.domain import Avatar, AvatarFrame, FaceCrop, Generation, Message, MouthJob, Played, Speech, Stage, TalkingFrame, Token, Trace
from gpuserver.errors import GpuserverError, LanguageModelFailed, VoiceFailed
from gpuserver.pipeline.language import language_of
from gpuserver.pipeline.sentences import sentences, split
from gpuserver.pipeline.streams import Channel, closing
from gpuserver.pipeline.studio import Studio
from gpuserver.pipeline.utterance import SpokenFrame, Utterance, cut_at_word
from gpuserver.wire import ErrorEvent, Interrupted, Notice, ServerMessage, SpeechEnded, SpeechStarted, TextComplete, TextStream, TraceEvent

log = structlog.get_logger(__name__)

TOKENS_AHEAD = 64
SENTENCES_AHEAD = 2
SOUNDS_AHEAD = 4  # pieces: bridges the time a voice needs to begin its next sentence
MOUTHS_AHEAD = 12  # frames with the renderer, about half a second

APOLOGIES = {
    "en": "Sorry, I cannot reach the language model right now.",
    "zh": "抱歉，我现在连不上语言模型。",
}


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """What a session is to answer, or to say as it is. asked_at: the event loop's time."""

    text: str
    verbatim: bool
    generation: Generation
    asked_at: float


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
    """A frame whose mouth is being drawn."""

    position: int
    frame: AvatarFrame
    spoken: SpokenFrame
    heard: int
    crop: Future[FaceCrop]


class Turn:
    """Answers one line. run() it as a task; interrupt() ends it early. Without a scene the answer is text only.

    messages: the conversation with the question last; not needed for a verbatim line. model, voice: as the session wants them.
    """

    def __init__(
        self,
        line: Line,
        studio: Studio,
        scene: Scene | None,
        publish: Callable[[ServerMessage], None],
        *,
        messages: Sequence[Message] = (),
        model: str | None = None,
        voice: str | None = None,
    ):
        self.line = line
        self.generation = line.generation
        self.number = line.generation.number
        self.trace = Trace(self.number, line.asked_at)
        self.written = ""  # by the language model, or the verbatim line
        self.spoken = ""  # the sentences that were given a voice
        self.played: Played | None = None
        self.render_failures = 0
        self._studio = studio
        self._scene = scene
        self._publish = publish
        self._messages = messages
        self._wanted_model = model
        self._wanted_voice = voice
        self._model: str | None = None
        self._voice: str | None = None
        self._apology: str | None = None
        self._interrupted_at: float | None = None
        self._stages: list[asyncio.Task[None]] = []
        self._tokens: Channel[str] = Channel(TOKENS_AHEAD)
        self._sentences: Channel[str] = Channel(SENTENCES_AHEAD)
        self._pieces: Channel[_Piece] = Channel(SOUNDS_AHEAD)
        self._drawings: Channel[_Drawing] = Channel(MOUTHS_AHEAD)

    async def run(self) -> None:
        """Returns when the answer has been played, or was interrupted. Every failure ends as an event, none as an exception."""
        try:
            try:
                async with asyncio.TaskGroup() as group:
                    self._begin(group)
            except* GpuserverError as failures:
                self._break_down(failures)
            except* Exception as failures:  # the session outlives a broken Turn
                log.exception("turn_failed", turn=self.number)
                self._break_down(failures)
            self.played = await self._played()
        finally:
            if self.played is None:
                self._cancel()  # run() itself was cancelled
        self._conclude(self.played)

    def interrupt(self) -> None:
        """Silence now: cancels the generation, what is on the stage, the language model and the voice. run() then returns soon."""
        if self._interrupted_at is None and self.played is None:
            self._interrupted_at = self._now()
            self._cancel()

    @property
    def heard_text(self) -> str:
        """The spoken text as far as it was heard."""
        return cut_at_word(self.spoken, self.played.heard) if self.played else ""

    @property
    def remembered(self) -> str:
        """What the conversation is to remember of the answer."""
        if self._interrupted_at is not None and self._scene is not None:
            return self.heard_text
        return self.written

    # ------------------------------------------------------------ the stages

    def _begin(self, group: asyncio.TaskGroup) -> None:
        if self.generation.cancelled:
            return
        first = [self._recite()] if self.line.verbatim else [self._think(), self._split()]
        rest = [self._speak(), self._draw(), self._perform(group)] if self._scene else [self._discard()]
        self._stages = [group.create_task(stage) for stage in (*first, *rest)]

    async def _recite(self) -> None:
        """A verbatim line needs no thinking."""
        self.written = self.line.text
        self._publish(TextStream(turn=self.number, delta=self.written))
        self._publish(TextComplete(turn=self.number, text=self.written))
        for sentence in split(self.written):
            await self._put_sentence(sentence)
        await self._sentences.end()

    async def _think(self) -> None:
        """Language model -> tokens. If it fails, what it said stays and an apology follows."""
        try:
            async with closing(self._studio.language_model.reply(self._messages, model=self._wanted_model)) as tokens:
                async for token in tokens:
                    await self._take(token)
            if not self.written.strip():
                raise LanguageModelFailed("The language model gave an empty answer.")
        except LanguageModelFailed as error:
            log.warning("language_model_failed", turn=self.number, detail=error.detail)
            self._publish(ErrorEvent(turn=self.number, error=error.problem()))
            self._apology = APOLOGIES.get(language_of(self.line.text), APOLOGIES["en"])
        self._publish(TextComplete(turn=self.number, text=self.written))
        await self._tokens.end()

    async def _take(self, token: Token) -> None:
        self._mark("first_token")
        self._model = token.model
        self._notice("model_fallback", token.fallback)
        self.written += token.text
        self._publish(TextStream(turn=self.number, delta=token.text))
        await self._tokens.put(token.text)

    async def _split(self) -> None:
        """Tokens -> sentences."""
        async with closing(sentences(aiter(self._tokens))) as spoken:
            async for sentence in spoken:
                await self._put_sentence(sentence)
        if self._apology:
            await self._put_sentence(self._apology)
        await self._sentences.end()

    async def _put_sentence(self, sentence: str) -> None:
        self._mark("first_sentence")
        await self._sentences.put(sentence)

    async def _discard(self) -> None:
        """Text only: nobody is there to be spoken to."""
        async for _ in self._sentences:
            pass

    async def _speak(self) -> None:
        """Sentences -> sound. A sentence that no voice can speak is said so and left out."""
        async for sentence in self._sentences:
            try:
                await self._speak_sentence(sentence)
            except VoiceFailed as error:
                log.warning("sentence_not_spoken", turn=self.number, detail=error.detail)
                self._notice("unspoken", f"This could not be spoken: “{sentence}” {error.detail}")
        await self._pieces.end()

    async def _speak_sentence(self, sentence: str) -> None:
        utterance = Utterance(sentence, self._studio.engine)
        start: int | None = None
        try:
            async with closing(self._studio.voice.speak(sentence, voice=self._wanted_voice)) as sound:
                async for speech in sound:
                    if not len(speech.pcm):
                        continue
                    start = self._add_to_spoken(sentence) if start is None else start
                    self._mark("first_sound")
                    self._voice = speech.voice
                    self._notice("voice_fallback", speech.fallback)
                    await self._pieces.put(_Piece(utterance, start, speech))
            if start is None:
                raise VoiceFailed("The voice gave no sound.")
        finally:
            if start is not None and not self.generation.cancelled:
                await self._pieces.put(_Piece(utterance, start, None))

    def _add_to_spoken(self, sentence: str) -> int:
        """Where the sentence begins in the spoken text."""
        if self.spoken and self.spoken[-1].isascii():
            self.spoken += " "
        self.spoken += sentence
        return len(self.spoken) - len(sentence)

    async def _draw(self) -> None:
        """Sound -> mouths in the renderer's hands, each with a booked place in the loop."""
        async for piece in self._pieces:
            frames = piece.utterance.finish() if piece.speech is None else piece.utterance.hear(piece.speech)
            for spoken in frames:
                await self._drawings.put(self._order(spoken, piece.start))
        await self._drawings.end()

    def _order(self, spoken: SpokenFrame, start: int) -> _Drawing:
        assert self._scene is not None
        position = self._scene.stage.book(self.generation)
        frame = self._scene.avatar.frame_at(position)
        job = MouthJob(frame, spoken.features, self._scene.stage.due(position), self.generation)
        return _Drawing(position, frame, spoken, start + spoken.heard, self._studio.renderer.submit(job))

    async def _perform(self, group: asyncio.TaskGroup) -> None:
        """Mouths -> the stage."""
        assert self._scene is not None
        announced = False
        async for drawing in self._drawings:
            crop = await self._crop_of(drawing)
            frame = TalkingFrame(self.generation, drawing.position, drawing.frame, crop, drawing.spoken.sound, drawing.heard)
            await self._scene.stage.put(frame)
            if not announced:
                announced = True
                self._stages.append(group.create_task(self._announce(self._scene.stage)))

    async def _crop_of(self, drawing: _Drawing) -> FaceCrop | None:
        """The drawn mouth; None, the source's own, if it could not be drawn."""
        crop = asyncio.wrap_future(drawing.crop)
        await asyncio.wait([crop])
        if crop.cancelled():
            return None
        if error := crop.exception():
            self.render_failures += 1
            if self.render_failures == 1:
                log.error("mouth_not_drawn", turn=self.number, exc_info=error)
                self._notice("still_mouth", "The lips could not be drawn; the sound goes on.")
            return None
        self._mark("first_mouth_frame")
        return crop.result()

    async def _announce(self, stage: Stage) -> None:
        started_at = await stage.started(self.generation)
        if started_at is not None:
            self.trace.mark("first_packet", started_at)
            self._publish(SpeechStarted(turn=self.number, at_ms=self.trace.marks["first_packet"]))

    # ------------------------------------------------------------ the end

    def _cancel(self) -> None:
        self.generation.cancel()
        if self._scene is not None:
            self._scene.stage.cancel(self.generation)
        for stage in self._stages:
            stage.cancel()

    def _break_down(self, failures: BaseExceptionGroup[Exception]) -> None:
        """Something that is nobody's expected failure: what was played stays, the rest is dropped, the client is told."""
        self._cancel()
        error = failures.exceptions[0]
        problem = error if isinstance(error, GpuserverError) else GpuserverError("The answer broke off because of a fault in the server.")
        self._publish(ErrorEvent(turn=self.number, error=problem.problem()))

    async def _played(self) -> Played:
        return Played(0, None) if self._scene is None else await self._scene.stage.drained(self.generation)

    def _conclude(self, played: Played) -> None:
        if "first_packet" in self.trace.marks:
            self._publish(SpeechEnded(turn=self.number, heard=played.heard, text=self.heard_text))
        if self._interrupted_at is not None:
            silent_at = max(played.last_audible_at or 0.0, self._interrupted_at)
            self.trace.mark("interrupted", self._interrupted_at)
            self._publish(Interrupted(turn=self.number, ms=round((silent_at - self._interrupted_at) * 1000, 1)))
        self._mark("done")
        self._publish(TraceEvent(turn=self.number, marks=self.trace.marks, model=self._model, voice=self._voice))

    def _mark(self, stage: str) -> None:
        self.trace.mark(stage, self._now())

    def _notice(self, code: str, text: str | None) -> None:
        if text:
            self._publish(Notice(turn=self.number, code=code, text=text))

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
