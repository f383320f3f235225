"""Chooses the language model that answers, by the setting LLM and by what is reachable."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from gpuserver.config import Settings
from gpuserver.domain import LanguageModel, Message, Token
from gpuserver.errors import CannotStart, LanguageModelFailed, UnknownModel
from gpuserver.pipeline.llm_echo import EchoModel
from gpuserver.pipeline.llm_ollama import OllamaModel
from gpuserver.pipeline.llm_openai import OpenAiModel
from gpuserver.pipeline.outlook import Outlook
from gpuserver.pipeline.reasoning import ReasoningFilter
from gpuserver.pipeline.whole_characters import WholeCharacters
from gpuserver.wire import ModelInfo

PROBE_SECONDS = 1.0  # how long a server may take to list its models
STALL_SECONDS = 15.0  # without a token in the middle of an answer
LONGEST_ANSWER = 20_000  # characters, over twenty minutes of speech; a model that repeats itself does not end by itself
FRESH_SECONDS = 30.0  # how long such a list is believed
ABSENCE_SECONDS = 10.0  # and that there is none: at its start a busy machine may overlook a server

log = structlog.get_logger(__name__)


class ReportingModel(LanguageModel, Protocol):
    """A LanguageModel that is started with the process and says for /health how it is."""

    def start(self) -> None: ...

    def status(self) -> dict[str, object]: ...

    async def choices(self) -> list[ModelInfo]:
        """What a session may name as its model, at most FRESH_SECONDS old; empty while no server lists any."""
        ...

    async def look(self) -> Outlook:
        """Who would answer a question that names no model, as known for at most FRESH_SECONDS."""
        ...


class Server(Protocol):
    """A server of language models. model: the one that answers by default, "" where the server chooses."""

    kind: str
    base_url: str
    model: str

    async def models(self) -> list[str]: ...

    def reply(self, messages: Sequence[Message], *, model: str | None = None, kb_id: str | None = None) -> AsyncGenerator[Token, None]: ...

    async def aclose(self) -> None: ...


def make_language_model(settings: Settings) -> ReportingModel:
    """The model that LLM names. start() it inside the event loop, aclose() it when the process ends. Raises CannotStart."""
    match settings.llm:
        case "echo":
            return EchoModel()
        case "ollama":
            return ModelRouter([_ollama(settings)], strict=True)
        case "openai":
            if settings.openai_base_url is None:
                raise CannotStart("LLM=openai needs OPENAI_BASE_URL.", advice="Set OPENAI_BASE_URL, for example http://localhost:8000/v1.")
            return ModelRouter([_openai(settings, settings.openai_base_url)], strict=True)
        case "auto":
            second = [_openai(settings, settings.openai_base_url)] if settings.openai_base_url else []
            return ModelRouter([_ollama(settings), *second], strict=False)


def _ollama(settings: Settings) -> OllamaModel:
    return OllamaModel(settings.ollama_base_url, settings.llm_default_model, settings.llm_temperature)


def _openai(settings: Settings, base_url: str) -> OpenAiModel:
    # The default of LLM_DEFAULT_MODEL is a name of Ollama's; another server would not know it.
    model = settings.llm_default_model if "llm_default_model" in settings.model_fields_set else ""
    key = settings.openai_api_key.get_secret_value() if settings.openai_api_key else None
    return OpenAiModel(base_url, model, settings.llm_temperature, key)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which model answers. fallback: why it is not the wanted one."""

    server: Server | EchoModel
    model: str
    fallback: str | None = None


class ModelRouter:
    """Takes the first server that lists its models within PROBE_SECONDS. One that has listed them before may take longer.

    strict: only the wanted model answers, and an unreachable server is an error. Otherwise the server's first model stands in for a
    missing one, and the echo model for a missing server. A server that fails is asked again for its list by the next question.
    """

    def __init__(self, servers: Sequence[Server], *, strict: bool, monotonic: Callable[[], float] = time.monotonic):
        self._servers = servers
        self._strict = strict
        self._monotonic = monotonic
        self._lists: dict[str, _ModelList] = {}
        self._asking = asyncio.Lock()
        self._first_look: asyncio.Task[Outlook] | None = None
        self._last: Choice | None = None
        self._failure: str | None = None

    @property
    def name(self) -> str:
        return self._last.model if self._last else self._servers[0].model

    def start(self) -> None:
        """Look in the background for what is reachable, so that the first question does not."""
        self._first_look = asyncio.create_task(self.look(), name="look for language models")

    async def reply(
        self, messages: Sequence[Message], *, model: str | None = None, kb_id: str | None = None
    ) -> AsyncGenerator[Token, None]:
        """What the model says, without its reasoning and at most LONGEST_ANSWER characters.

        Raises LanguageModelFailed; nothing is repeated by another model once a server was chosen.
        """
        choice = await self._choose(model)
        try:
            async with aclosing(_spoken(choice.server.reply(messages, model=choice.model, kb_id=kb_id))) as tokens:
                async for token in tokens:
                    yield token if token.fallback or not choice.fallback else replace(token, fallback=choice.fallback)
        except LanguageModelFailed as error:
            self._failure = error.detail
            self._lists.clear()
            raise
        self._failure = None

    def status(self) -> dict[str, object]:
        """For /health: model (None before the first look), fallback and message (plain sentences or None)."""
        last = self._last
        return {"model": last.model if last else None, "fallback": last.fallback if last else None, "message": self._failure}

    async def choices(self) -> list[ModelInfo]:
        """The models of the server that answers; a server that says nothing is waited for PROBE_SECONDS."""
        for server in self._servers:
            try:
                models = await self._models(server)
            except LanguageModelFailed:
                continue
            if models:
                default = self._default(server, models)
                return [ModelInfo(id=model, default=model in {default, f"{default}:latest"}) for model in models]
        return []

    async def look(self) -> Outlook:
        """Who would answer; a server that says nothing is waited for PROBE_SECONDS."""
        try:
            choice = await self._choose(None)
        except LanguageModelFailed as error:
            log.warning("no language model", reason=error.detail)
            return Outlook(self.name, fallback=error.detail)
        server = None if isinstance(choice.server, EchoModel) else choice.server.kind
        return Outlook(choice.model, server, choice.fallback)

    async def aclose(self) -> None:
        """Stop looking, close the clients."""
        if self._first_look is not None:
            self._first_look.cancel()
            await asyncio.gather(self._first_look, return_exceptions=True)
        for server in reversed(self._servers):
            await server.aclose()

    async def _choose(self, model: str | None) -> Choice:
        try:
            choice = await self._first_reachable(model)
        except UnknownModel:  # not a failure of the server
            raise
        except LanguageModelFailed as error:
            self._failure = error.detail
            raise
        if model is None:
            if self._last is None or (choice.model, choice.fallback) != (self._last.model, self._last.fallback):
                log.info("language model chosen", model=choice.model, fallback=choice.fallback)
            self._last = choice
        return choice

    async def _first_reachable(self, model: str | None) -> Choice:
        failures = []
        for server in self._servers:
            try:
                return self._pick(server, model or server.model, await self._models(server))
            except LanguageModelFailed as error:
                if self._strict:
                    raise
                failures.append(error.detail)
        fallback = f"No language model is reachable, the echo model repeats the question. {' '.join(failures)}"
        return Choice(EchoModel(fallback), "echo", fallback)

    def _pick(self, server: Server, wanted: str, models: list[str]) -> Choice:
        """The wanted model if the server has it or keeps no list; else, unless strict, its first one."""
        if not wanted and models:
            return Choice(server, models[0])
        if not models and server.kind != OllamaModel.kind:
            return Choice(server, wanted)
        if wanted in models or f"{wanted}:latest" in models:
            return Choice(server, wanted)
        if self._strict or not models:
            advice = f"Pull it with: ollama pull {wanted}" if server.kind == OllamaModel.kind else f"It has: {', '.join(models[:10])}."
            kind = LanguageModelFailed if wanted == server.model else UnknownModel
            raise kind(f"The {server.kind} at {server.base_url} has no model {wanted}.", advice=advice)
        return Choice(server, models[0], f"The model {wanted} is not there, {models[0]} answers.")

    def _default(self, server: Server, models: list[str]) -> str:
        """Which of the models answers a question that names none; "" where none would."""
        try:
            return self._pick(server, server.model, models).model
        except LanguageModelFailed:
            return ""

    async def _models(self, server: Server) -> list[str]:
        """The server's list, at most FRESH_SECONDS old. Raises LanguageModelFailed, also from memory."""
        async with self._asking:
            known = self._lists.get(server.base_url)
            if known is None or self._monotonic() - known.at > known.believed_for:
                known = self._lists[server.base_url] = await self._ask(server, known)
        if known.failure:
            raise LanguageModelFailed(known.failure)
        return known.models

    async def _ask(self, server: Server, known: _ModelList | None) -> _ModelList:
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                return _ModelList(self._monotonic(), await server.models())
        except TimeoutError:
            if known is not None and not known.failure:
                return replace(known, at=self._monotonic())  # it, or this machine, is busy; whether it has died, the answer shows
            return _ModelList(self._monotonic(), [], f"The {server.kind} at {server.base_url} does not answer.")
        except LanguageModelFailed as error:
            return _ModelList(self._monotonic(), [], error.detail)


async def _spoken(raw: AsyncGenerator[Token, None]) -> AsyncGenerator[Token, None]:
    """The tokens that are to be shown and spoken. Raises LanguageModelFailed where the model stalls in mid-answer."""
    characters, reasoning = WholeCharacters(), ReasoningFilter()
    last: Token | None = None
    length = 0
    async with aclosing(raw) as tokens:
        while (token := await _next(tokens, in_mid_answer=last is not None)) is not None:
            last = token
            text = reasoning.push(characters.push(token.text))[: LONGEST_ANSWER - length]
            length += len(text)
            if text:
                yield replace(token, text=text)
            if length >= LONGEST_ANSWER:
                log.warning("answer cut", model=token.model, characters=length)
                return
    if last is not None and (rest := reasoning.push(characters.finish()) + reasoning.finish()):
        yield replace(last, text=rest)


async def _next(tokens: AsyncGenerator[Token, None], *, in_mid_answer: bool) -> Token | None:
    """The next token; None at the end. Before the first one, the server's client knows how long loading a model may take."""
    try:
        async with asyncio.timeout(STALL_SECONDS if in_mid_answer else None):
            return await anext(tokens, None)
    except TimeoutError as error:
        raise LanguageModelFailed("The language model stopped in the middle of its answer.") from error


@dataclass(frozen=True, slots=True)
class _ModelList:
    """What a server said at `at` (monotonic seconds) when asked for its models; failure: why it said nothing."""

    at: float
    models: list[str]
    failure: str | None = None

    @property
    def believed_for(self) -> float:
        """Seconds."""
        return ABSENCE_SECONDS if self.failure else FRESH_SECONDS
