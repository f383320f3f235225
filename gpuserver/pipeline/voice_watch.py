"""A voice over the network, and what is known of whether it answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Protocol

import structlog

from gpuserver.domain import Speech, Voice
from gpuserver.errors import VoiceFailed, VoiceUnreachable
from gpuserver.pipeline.reachability import Reachability
from gpuserver.wire import VoiceInfo

RETRY_SECONDS = 60.0  # how long a lost voice is left alone while another one can speak
RETRY_ALONE_SECONDS = 5.0  # and while nothing else can

log = structlog.get_logger(__name__)


class NetworkVoice(Voice, Protocol):
    """A voice that can be out of reach."""

    def speak(self, text: str, *, voice: str | None = None, rate: float = 1.0) -> AsyncGenerator[Speech, None]: ...

    def start(self) -> None: ...

    async def probe(self) -> None: ...

    def choices(self) -> list[VoiceInfo]: ...


class WatchedVoice:
    """Speaks with a NetworkVoice and remembers whether that worked. A lost voice is looked for in the background."""

    def __init__(self, voice: NetworkVoice, monotonic: Callable[[], float] = time.monotonic):
        self._voice = voice
        self._reach = Reachability(monotonic)
        self._probing: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        return self._voice.name

    @property
    def state(self) -> str:
        """One of "untried", "ok", "unreachable"."""
        return self._reach.state

    @property
    def trouble(self) -> str | None:
        """Why it is out of reach, one plain sentence; None while it is not."""
        return self._reach.reason

    @property
    def may_be_tried(self) -> bool:
        """Whether a sentence that nothing else can speak may wait for it."""
        return not self._reach.lost or self._reach.lost_for() >= RETRY_ALONE_SECONDS

    def start(self) -> None:
        """Let it load what it needs and look for it, in the background."""
        self._voice.start()
        self._look()

    def look_again(self) -> None:
        """Look for a lost voice in the background, if it has been left alone for long enough."""
        if self._reach.lost and self._reach.lost_for() >= RETRY_SECONDS:
            self._look()

    def can_speak(self, text: str) -> bool:
        return self._voice.can_speak(text)

    async def speak(self, text: str, *, voice: str | None = None, rate: float = 1.0) -> AsyncGenerator[Speech, None]:
        """As the voice itself. Raises VoiceFailed."""
        try:
            async with aclosing(self._voice.speak(text, voice=voice, rate=rate)) as pieces:
                async for piece in pieces:
                    self._note_found()
                    yield piece
        except VoiceFailed as failure:
            self._note_failure(failure)
            raise

    def choices(self) -> list[VoiceInfo]:
        return [choice.model_copy(update={"available": not self._reach.lost}) for choice in self._voice.choices()]

    async def aclose(self) -> None:
        """Stop looking for the voice, then close it."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)
        await self._voice.aclose()

    def _look(self) -> None:
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(self._probe(), name=f"look for {self.name}")

    async def _probe(self) -> None:
        try:
            await self._voice.probe()
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
            log.warning("voice unreachable", voice=self.name, cause=type(failure.__cause__ or failure).__name__)  # /health has the sentence
