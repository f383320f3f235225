"""Chooses the voice for every sentence, by the setting TTS, the script of the text and what is reachable."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol

from gpuserver.config import Settings
from gpuserver.domain import Speech, Voice
from gpuserver.errors import CannotStart, Unspeakable, VoiceFailed, VoiceUnreachable
from gpuserver.pipeline import voice_edge, voice_espeak, voice_hibari, voice_http
from gpuserver.pipeline.english_g2p import EnglishG2p
from gpuserver.pipeline.language import has_words, language_name
from gpuserver.pipeline.pronunciation import Pronunciation
from gpuserver.pipeline.voice_edge import EdgeVoice
from gpuserver.pipeline.voice_espeak import EspeakVoice
from gpuserver.pipeline.voice_hibari import HibariVoice
from gpuserver.pipeline.voice_http import HttpVoice
from gpuserver.pipeline.voice_watch import WatchedVoice
from gpuserver.wire import VoiceInfo

NAMES = (voice_http.NAME, voice_edge.NAME, voice_hibari.NAME, voice_espeak.NAME)


class StartedVoice(Voice, Protocol):
    """A voice that is started with the process, so that nobody's first sentence waits."""

    def start(self) -> None: ...

    def speak(self, text: str, *, voice: str | None = None, rate: float = 1.0) -> AsyncGenerator[Speech, None]: ...

    def choices(self) -> list[VoiceInfo]:
        """What a session may name as its voice."""
        ...


class ReportingVoice(StartedVoice, Protocol):
    """It also says for /health how it is."""

    def status(self) -> dict[str, object]: ...


def make_voice(settings: Settings) -> ReportingVoice:
    """The voice that TTS names. start() it inside the event loop, aclose() it when the process ends. Raises CannotStart."""
    wanted = None if settings.tts_voice == "auto" else settings.tts_voice
    known = wanted is None or wanted in NAMES or voice_edge.VOICE_NAME.fullmatch(wanted) is not None
    if not known and (settings.tts_service_url is None or settings.tts not in {"auto", "http"}):
        advice = "Use auto, hibari, espeak, or a name of an edge-tts voice like zh-CN-YunxiNeural."
        raise CannotStart(f"TTS_VOICE={settings.tts_voice} is no voice.", advice=advice)
    return VoiceRouter(_voices(settings), voice=wanted)


def own_voices(voice: ReportingVoice) -> ReportingVoice | None:
    """The voice without the speech service of another machine, None if nothing is left: who serves others must not pass on to others,
    else two servers that name each other, or one that names itself, would never come to an end. Not to be started or closed."""
    return voice.without(voice_http.NAME) if isinstance(voice, VoiceRouter) else voice


def _voices(settings: Settings) -> list[StartedVoice]:
    """The voices that may speak, the preferred one first."""
    key = settings.tts_service_key.get_secret_value() if settings.tts_service_key else None
    service = [WatchedVoice(HttpVoice(settings.tts_service_url, key))] if settings.tts_service_url else []
    match settings.tts:
        case "hibari":
            return [HibariVoice()]
        case "edge-tts":
            return [WatchedVoice(EdgeVoice())]
        case "espeak":
            if not voice_espeak.is_installed():
                raise CannotStart("TTS=espeak needs the package espeakng-loader.", advice=voice_espeak.INSTALL)
            return [EspeakVoice()]
        case "http":
            if not service:
                raise CannotStart("TTS=http needs TTS_SERVICE_URL.", advice="Set TTS_SERVICE_URL, for example http://localhost:8604.")
            return [*service]
        case "auto":
            last = [EspeakVoice()] if voice_espeak.is_installed() else []
            g2p = EnglishG2p()
            return [*service, WatchedVoice(EdgeVoice(Pronunciation(g2p))), HibariVoice(g2p), *last]


class VoiceRouter:
    """Speaks with the first of its voices that can say the sentence and answers.

    A sentence moves to the next voice only before its first sound: what was half said is not said again, it ends with VoiceFailed.
    While a network voice is out of reach, sentences that another voice can say do not wait for it; it is tried again in the
    background. voice: what speaks unless a session names another; None chooses by the language.
    """

    def __init__(self, voices: Sequence[StartedVoice], *, voice: str | None = None):
        self._voices = voices
        self._voice = voice

    @property
    def name(self) -> str:
        return self._voices[0].name

    def start(self) -> None:
        """Load the local voices and look for those on the network, all in the background."""
        for voice in self._voices:
            voice.start()

    def can_speak(self, text: str) -> bool:
        return any(voice.can_speak(text) for voice in self._voices)

    async def speak(self, text: str, *, voice: str | None = None, rate: float = 1.0) -> AsyncGenerator[Speech, None]:
        """Stream one sentence; text without words is silent.

        voice: one of NAMES, the name of an edge-tts voice or of one that the speech service knows, or None for the default.
        Raises VoiceFailed, after some pieces where the connection was cut.
        """
        if not has_words(text):
            return
        wanted = voice or self._voice
        meant = self._meant(wanted)
        given = None if wanted in NAMES else wanted  # the name of a voice within the one that is meant
        candidates, reasons = self._candidates(text, wanted, meant)
        for candidate in candidates:
            begun = False
            fallback = f"{' '.join(reasons)} {_instead(candidate)}" if reasons else None
            try:
                name = given if candidate.name == meant else None
                async with aclosing(candidate.speak(text, voice=name, rate=rate)) as pieces:
                    async for piece in pieces:
                        begun = True
                        yield replace(piece, fallback=fallback)
                return
            except VoiceFailed as failure:
                if begun or candidate is candidates[-1]:
                    raise
                reasons.append(failure.detail)

    def without(self, name: str) -> VoiceRouter | None:
        """The same voices but one; None if it was the only one."""
        others = [voice for voice in self._voices if voice.name != name]
        return VoiceRouter(others, voice=self._voice) if others else None

    def choices(self) -> list[VoiceInfo]:
        """What a session may name as its voice, the preferred ones first."""
        return [choice for voice in self._voices for choice in voice.choices()]

    def status(self) -> dict[str, object]:
        """For /health: the preferred voice, the states of the network voices, and the fallback in a plain sentence or None."""
        watched = {voice.name: voice.state for voice in self._voices if isinstance(voice, WatchedVoice)}
        trouble = _trouble(self._voices[0])
        there = [voice for voice in self._voices if _trouble(voice) is None]
        fallback = f"{trouble} {_instead(there[0]) if there else 'Nothing is spoken.'}" if trouble else None
        return {"voice": self._voice or self.name, **watched, "fallback": fallback}

    async def aclose(self) -> None:
        """Close the voices."""
        for voice in self._voices:
            await voice.aclose()

    def _meant(self, wanted: str | None) -> str | None:
        """Which of the voices a wish means, by name; None where there is no wish or no such voice."""
        names = {voice.name for voice in self._voices}
        if wanted is None or wanted in NAMES:
            return wanted if wanted in names else None
        if voice_edge.NAME in names and voice_edge.VOICE_NAME.fullmatch(wanted):
            return voice_edge.NAME
        return voice_http.NAME if voice_http.NAME in names else None  # the speech service may know the name

    def _candidates(self, text: str, wanted: str | None, meant: str | None) -> tuple[list[StartedVoice], list[str]]:
        """Who may speak the text, in order, and why those that come before them do not: plain sentences.

        Raises Unspeakable where no voice can speak the text, VoiceUnreachable where those that can were just lost.
        """
        ordered = sorted(self._voices, key=lambda voice: voice.name != meant)
        able = [voice for voice in ordered if voice.can_speak(text)]
        if not able:
            raise Unspeakable(f"No voice here speaks {language_name(text)}.")
        reasons = []
        if wanted is not None and meant is None:
            reasons.append(f"The voice {wanted[:80]} is not available.")
        elif meant is not None and able[0].name != meant:
            reasons.append(f"{meant} cannot say this sentence.")
        there = [voice for voice in able if _trouble(voice) is None] or self._last_resorts(text, able)
        reasons += [trouble for voice in able[: able.index(there[0])] if (trouble := _trouble(voice))]
        for voice in able:
            if isinstance(voice, WatchedVoice) and voice not in there:
                voice.look_again()
        return there, reasons

    @staticmethod
    def _last_resorts(text: str, lost: Sequence[StartedVoice]) -> list[StartedVoice]:
        """Which of the lost voices a sentence that nothing else can speak may wait for."""
        worth_a_try = [voice for voice in lost if isinstance(voice, WatchedVoice) and voice.may_be_tried]
        if not worth_a_try:
            raise VoiceUnreachable(f"No voice here speaks {language_name(text)} now. {_trouble(lost[0])}")
        return [*worth_a_try]


def _trouble(voice: StartedVoice) -> str | None:
    return voice.trouble if isinstance(voice, WatchedVoice) else None


def _instead(voice: StartedVoice) -> str:
    robotic = ", a robotic voice," if voice.name == voice_espeak.NAME else ""
    return f"{voice.name}{robotic} speaks instead."
