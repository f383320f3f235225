"""What is to be said: the language model's answer, or a line as it is, becomes sentences."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence

import structlog

from gpuserver.domain import LanguageModel, Message, Token
from gpuserver.errors import LanguageModelFailed
from gpuserver.pipeline.language import language_of
from gpuserver.pipeline.report import Report
from gpuserver.pipeline.sentences import sentences, whole
from gpuserver.pipeline.streams import Channel, closing

log = structlog.get_logger(__name__)

TOKENS_AHEAD = 64
SENTENCES_AHEAD = 2
SILENCE_SECONDS = 2.5  # how long a student waits without a word; a large model may take a minute to be loaded

APOLOGIES = {
    "en": "Sorry, I cannot reach the language model right now.",
    "zh": "抱歉，我现在连不上语言模型。",
}

BREAK_OFFS = {
    "en": "Sorry, the answer broke off.",
    "zh": "抱歉，回答中断了。",
}
BREAK_OFF_MARK = "…"  # ends the sentence that was being said
SENTENCE_ENDS = tuple(".?!…。？！")

FILLERS = {
    "en": "One moment please, I am thinking.",
    "zh": "请稍等，我想一想。",
}


class Recital:
    """A line that is said as it is."""

    def __init__(self, text: str, report: Report):
        self.written = text
        self.filler = self.apology = ""
        self.sentences: Channel[str] = Channel(SENTENCES_AHEAD)
        self._report = report

    def stages(self) -> list[Coroutine[None, None, None]]:
        """To be run as tasks, side by side."""
        return [self._recite()]

    async def _recite(self) -> None:
        self._report.text(self.written)
        self._report.text_complete(self.written)
        async with closing(sentences(whole(self.written))) as pieces:
            async for sentence in pieces:
                self._report.mark("first_sentence")
                await self.sentences.put(sentence)
        await self.sentences.end()


class Thought:
    """The language model's answer to `messages`, the last of which is the question.

    written: what the model wrote. If its first sentence takes long, `filler` is spoken once, a word that it will come. If the model
    fails, what it wrote stays and a spoken `apology` follows. What is spoken beside the answer is told as a notice.
    """

    def __init__(self, messages: Sequence[Message], model: str | None, kb_id: str | None, language_model: LanguageModel, report: Report):
        self.written = ""
        self.filler = self.apology = ""
        self.sentences: Channel[str] = Channel(SENTENCES_AHEAD)
        self._messages = messages
        self._model = model
        self._kb_id = kb_id
        self._language_model = language_model
        self._report = report
        self._tokens: Channel[str] = Channel(TOKENS_AHEAD)
        self._has_spoken = asyncio.Event()  # the first sentence is there, or none will be

    def stages(self) -> list[Coroutine[None, None, None]]:
        """To be run as tasks, side by side."""
        return [self._think(), self._split(), self._fill_silence()]

    async def _think(self) -> None:
        try:
            async with closing(self._language_model.reply(self._messages, model=self._model, kb_id=self._kb_id)) as tokens:
                async for token in tokens:
                    await self._take(token)
            if not self.written.strip():
                raise LanguageModelFailed("The language model gave an empty answer.")
        except LanguageModelFailed as error:
            log.warning("language_model_failed", problem=error.slug, cause=type(error.__cause__ or error).__name__)
            self._report.error(error)
            await self._break_off()
        self._report.text_complete(self.written)
        await self._tokens.end()

    async def _take(self, token: Token) -> None:
        self._report.mark("first_token")
        self._report.model = token.model
        self._report.notice("model_fallback", token.fallback)
        await self._write(token.text)

    async def _write(self, text: str) -> None:
        self._report.text(text)
        self.written += text
        await self._tokens.put(text)

    async def _break_off(self) -> None:
        """Nothing more comes from the model: what it began to say is not left hanging before the apology."""
        begun = self.written.rstrip()
        if begun and not begun.endswith(SENTENCE_ENDS):
            await self._write(BREAK_OFF_MARK)
        self.apology = self._in_the_students_language(BREAK_OFFS if begun else APOLOGIES)

    async def _split(self) -> None:
        async with closing(sentences(self._tokens)) as spoken:
            async for sentence in spoken:
                self._has_spoken.set()
                self._report.mark("first_sentence")
                await self.sentences.put(sentence)
        self._has_spoken.set()
        if self.apology:
            self._report.notice("apology", self.apology)
            await self.sentences.put(self.apology)
        await self.sentences.end()

    async def _fill_silence(self) -> None:
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                await self._has_spoken.wait()
        except TimeoutError:
            if not self._has_spoken.is_set():
                self.filler = self._in_the_students_language(FILLERS)
                self._report.notice("thinking", self.filler)
                await self.sentences.put(self.filler)

    def _in_the_students_language(self, lines: Mapping[str, str]) -> str:
        return lines.get(language_of(self._messages[-1].content), lines["en"])
