"""Chooses the voice for every sentence, by the setting TTS, the script of the text and what is reachable."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from gpuserver.config import Settings
from gpuserver.domain import Speech, Voice
from gpuserver.errors import CannotStart, VoiceFailed, VoiceUnreachable
from gpuserver.pipeline import voice_edge, voice_hibari
from gpuserver.pipeline.language import has_words, language_name
from gpuserver.pipeline.reachability import Reachability
from gpuserver.pipeline.voice_edge import EdgeVoice
from gpuserver.pipeline.voice_hibari import HibariVoice

RETRY_SECONDS = 60.0  # how long a lost network voice is left alone while the local voice can speak
RETRY_ALONE_SECONDS = 5.0  # and while nothing else can

log = structlog.get_logger(__name__)


class ReportingVoice(Voice, Protocol):
    """A Voice that is started with the process, so that nobody's first sentence waits, and says for /health how it is."""

    def start(self) -> None: ...

    def speak(self, text: str, *, voice: str | None = None, rate: float = 1.0) -> AsyncGenerator[Speech, None]: ...

    def status(self) -> dict[str, object]: ...


class LocalVoice(Voice, Protocol):
    """A voice on this machine, which is loaded."""

    def start(self) -> None: ...

    def speak(self, text: str, *, voice: str | None = None, rate: float = 1.0) -> AsyncGenerator[Speech, None]: ...


class NetworkVoice(Voice, Protocol):
    """A voice that can be out of reach."""

    def speak(self, text: str, *, voice: str | None = None, rate: float = 1.0) -> AsyncGenerator[Speech, None]: ...

    async def probe(self) -> None: ...


def make_voice(settings: Settings) -> ReportingVoice:
    """The voice that TTS names. start() it inside the event loop, aclose() it when the process ends. Raises CannotStart."""
    voice = None if settings.tts_voice == "auto" else settings.tts_voice
    if voice not in {None, voice_edge.NAME, voice_hibari.NAME} and not voice_edge.VOICE_NAME.fullmatch(settings.tts_voice):
        advice = "Use auto, hibari, or a name of an edge-tts voice like zh-CN-YunxiNeural."
        raise CannotStart(f"TTS_VOICE={settings.tts_voice} is no voice.", advice=advice)
    match settings.tts:
        case "hibari":
            return VoiceRouter(None, HibariVoice(), voice=voice)
        case "edge-tts":
            return VoiceRouter(EdgeVoice(), None, voice=voice)
        case "auto":
            return VoiceRouter(EdgeVoice(), HibariVoice(), voice=voice)
        case "espeak" | "http":
            raise CannotStart(f"TTS={settings.tts} is not available in this version.", advice="Set TTS to auto, edge-tts or hibari.")


@dataclass(frozen=True, slots=True)
class Choice:
    """Who may speak a sentence: the network voice first, the local one if that does not begin. fallback: why not the wanted one."""

    network: NetworkVoice | None
    local: LocalVoice | None
    fallback: str | None = None


class VoiceRouter:
    """Speaks with the network voice where it answers, else with the local one.

    A sentence moves to the local voice only before its first sound: what was half said is not said again, it ends with VoiceFailed.
    While the network voice is out of reach, sentences that the local voice can say do not wait for it; it is tried again in the
    background. voice: what speaks unless a session names another; None chooses by the language.
    """

    def __init__(
        self,
        network: NetworkVoice | None,
        local: LocalVoice | None,
        *,
        voice: str | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ):
        self._network = network
        self._local = local
        self._voice = voice
        self._reach = Reachability(monotonic)
        self._probing: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        preferred = self._network or self._local
        return preferred.name if preferred else "none"

    def start(self) -> None:
        """Load the local voice and look for the network voice, both in the background."""
        if self._local is not None:
            self._local.start()
        self._start_probe()

    def can_speak(self, text: str) -> bool:
        return any(voice is not None and voice.can_speak(text) for voice in (self._network, self._local))

    async def speak(self, text: str, *, voice: str | None = None, rate: float = 1.0) -> AsyncGenerator[Speech, None]:
        """Stream one sentence; text without words is silent.

        voice: "hibari", "edge-tts", the name of an edge-tts voice, or None for the default. Raises VoiceFailed, after some pieces
        where the connection was cut.
        """
        if not has_words(text):
            return
        wanted = voice or self._voice
        choice = self._choose(text, wanted)
        fallback, begun = choice.fallback, False
        if choice.network is not None:
            try:
                async with aclosing(choice.network.speak(text, voice=_edge_name(wanted), rate=rate)) as pieces:
                    async for piece in pieces:
                        begun = True
                        self._note_found()
                        yield replace(piece, fallback=fallback)
                return
            except VoiceFailed as failure:
                self._note_failure(failure)
                if begun or choice.local is None:
                    raise
                fallback = f"{failure.detail} {choice.local.name} speaks instead."
        if choice.local is not None:
            async with aclosing(choice.local.speak(text, rate=rate)) as pieces:
                async for piece in pieces:
                    yield replace(piece, fallback=fallback)

    def status(self) -> dict[str, object]:
        """For /health: the preferred voice, the state of the network voice, and the fallback in a plain sentence or None."""
        status: dict[str, object] = {"voice": self._voice or self.name}
        if self._network is not None:
            status[self._network.name] = self._reach.state
            stands_in = f"{self._local.name} speaks instead." if self._local else "Nothing is spoken."
            status["fallback"] = f"{self._reach.reason} {stands_in}" if self._reach.lost else None
        return status

    async def aclose(self) -> None:
        """Stop looking for the network voice, then close both voices."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)
        for voice in (self._network, self._local):
            if voice is not None:
                await voice.aclose()

    def _choose(self, text: str, wanted: str | None) -> Choice:
        """Raises VoiceFailed where no voice can speak the text, VoiceUnreachable where the only one that can was just lost."""
        local = self._local if self._local is not None and self._local.can_speak(text) else None
        network = self._network if self._network is not None and self._network.can_speak(text) else None
        if local is None and network is None:
            raise VoiceFailed(f"No voice here speaks {language_name(text)}: {text[:80]}")
        if local is None:
            if self._reach.lost and self._reach.lost_for() < RETRY_ALONE_SECONDS:
                raise VoiceUnreachable(f"No voice here speaks {language_name(text)} now. {self._reach.reason}")
            return Choice(network, None, "hibari cannot say this sentence, edge-tts does." if wanted == voice_hibari.NAME else None)
        if network is None:
            foreign = wanted not in {None, local.name}
            return Choice(None, local, f"The voice {wanted} is not available, {local.name} speaks instead." if foreign else None)
        if wanted == local.name:
            return Choice(None, local)
        if self._reach.lost:
            if self._reach.lost_for() >= RETRY_SECONDS:
                self._start_probe()
            return Choice(None, local, f"{self._reach.reason} {local.name} speaks instead.")
        return Choice(network, local)

    def _start_probe(self) -> None:
        if self._network is not None and (self._probing is None or self._probing.done()):
            self._probing = asyncio.create_task(self._probe(self._network), name="look for the network voice")

    async def _probe(self, network: NetworkVoice) -> None:
        try:
            await network.probe()
        except VoiceFailed as failure:
            self._note_failure(failure)
        else:
            self._note_found()

    def _note_found(self) -> None:
        if self._reach.note_found():
            log.info("voice reachable", voice=self.name)

    def _note_failure(self, failure: VoiceFailed) -> None:
        """A service that refuses one text or one voice's name is not lost for the others."""
        if isinstance(failure, VoiceUnreachable) and self._reach.note_lost(failure.detail):
            log.warning("voice unreachable", voice=self.name, reason=failure.detail, instead=self._local.name if self._local else None)


def _edge_name(wanted: str | None) -> str | None:
    """The name to give to edge-tts; None where it chooses by the language."""
    return None if wanted in {None, voice_edge.NAME, voice_hibari.NAME} else wanted
