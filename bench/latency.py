"""How fast a session speaks and falls silent, measured on the packets that leave its tracks: the real pipeline and clock, no network."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import numpy as np
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from gpuserver.config import Settings
from gpuserver.domain import Avatar, LanguageModel, Pcm, Speech
from gpuserver.media.bitrate import Bitrate
from gpuserver.media.clock import LoopClock
from gpuserver.media.encoding import Encoding
from gpuserver.media.payloads import H264
from gpuserver.media.playout import Playout
from gpuserver.media.tracks import PictureTrack, SoundTrack
from gpuserver.musetalk.renderer import Renderer
from gpuserver.musetalk.warp.warp_engine import WarpEngine
from gpuserver.pipeline.session import Session, SessionSettings
from gpuserver.pipeline.studio import Studio
from gpuserver.pipeline.voice import ReportingVoice, make_voice
from gpuserver.wire import CreateSession

SENTENCES = (
    "Good morning, and welcome to the lesson.",
    "A prime number has exactly two divisors.",
    "The moon moves around the earth once a month.",
    "Please write down what you already know.",
    "Well done, that is the right answer.",
)
AUDIBLE = 100  # of 32767


@dataclass(slots=True)
class Ear:
    """Times of audible packets as they leave the sound track, time.monotonic seconds."""

    heard: list[float] = field(default_factory=list)
    packet: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, piece: Pcm) -> None:
        if np.abs(piece.astype(np.int32)).max() > AUDIBLE:
            self.heard.append(time.monotonic())
        self.packet.set()
        self.packet.clear()

    async def first_after(self, moment: float) -> float:
        while not (later := [t for t in self.heard if t >= moment]):
            await self.packet.wait()
        return later[0]

    async def quiet_for(self, seconds: float) -> float:
        """Waits until nothing was audible for `seconds`; the time of the last audible packet."""
        while not self.heard or time.monotonic() - self.heard[-1] < seconds:
            await self.packet.wait()
        return self.heard[-1]


class HeardPlayout(Playout):
    """A playout whose sound is listened to as its track takes it."""

    def __init__(self, avatar: Avatar, ear: Ear):
        super().__init__(avatar)
        self._ear = ear

    def sound(self, piece: int) -> Pcm:
        taken = super().sound(piece)
        self._ear.take(taken)
        return taken


class TimedVoice:
    """A voice that notes when it gave out its first sound after the last reset."""

    def __init__(self, voice: ReportingVoice):
        self._voice = voice
        self.name = voice.name
        self.first_sound: float | None = None

    def can_speak(self, text: str) -> bool:
        return self._voice.can_speak(text)

    async def speak(self, text: str, *, voice: str | None = None, rate: float = 1.0) -> AsyncGenerator[Speech, None]:
        async for speech in self._voice.speak(text, voice=voice, rate=rate):
            if self.first_sound is None:
                self.first_sound = time.monotonic()
            yield speech

    async def aclose(self) -> None:
        await self._voice.aclose()


@dataclass(slots=True)
class Latencies:
    """Milliseconds, one per repeat. idle_bytes_changed: in the pictures of the first two idle seconds after speech."""

    sound_to_audible: list[float] = field(default_factory=list)
    text_to_audible: list[float] = field(default_factory=list)
    interrupt_to_silence: list[float] = field(default_factory=list)
    idle_bytes_changed: int = 0


async def _pull(track: MediaStreamTrack) -> None:
    with suppress(MediaStreamError):
        while True:
            await track.recv()


@asynccontextmanager
async def speaking_session(avatar: Avatar, language_model: LanguageModel) -> AsyncIterator[tuple[Session, Playout, TimedVoice, Ear]]:
    """A session with a peer that takes pictures and sound from its tracks as they become due."""
    real_voice = make_voice(Settings(tts="hibari"))
    real_voice.start()
    voice, engine, ear = TimedVoice(real_voice), WarpEngine(), Ear()
    renderer, playout = Renderer(engine), HeardPlayout(avatar, ear)
    encoding, clock = Encoding(), LoopClock()
    renderer.start()
    request = CreateSession(tutor_id="bench", student_id="bench")
    settings = SessionSettings(model=None, idle_seconds=3600)
    session = Session(request, avatar, playout, Studio(language_model, voice, engine, renderer), settings, on_idle=lambda _: None)
    session.attach()
    pictures, sounds = PictureTrack(playout, clock), SoundTrack(playout, clock)
    pictures.begin(encoding.stream(avatar, H264, Bitrate(clock.now)))
    pulls = [asyncio.create_task(_pull(track)) for track in (pictures, sounds)]
    try:
        yield session, playout, voice, ear
    finally:
        await session.aclose("the benchmark is over")
        pictures.stop()
        sounds.stop()
        await asyncio.gather(*pulls)
        await encoding.aclose()
        renderer.close()
        await voice.aclose()


async def measure(avatar: Avatar, language_model: LanguageModel, repeats: int) -> Latencies:
    """Say a sentence, interrupt it after about a second, again and again."""
    found = Latencies()
    async with speaking_session(avatar, language_model) as (session, playout, voice, ear):
        await session.say("One sentence to warm up.")
        await ear.quiet_for(1.0)
        for repeat in range(repeats):
            voice.first_sound = None
            asked = time.monotonic()
            await session.say(SENTENCES[repeat % len(SENTENCES)])
            audible = await ear.first_after(asked)
            assert voice.first_sound is not None
            found.text_to_audible.append((audible - asked) * 1000)
            found.sound_to_audible.append((audible - voice.first_sound) * 1000)
            await asyncio.sleep(0.8 + 0.013 * (repeat % 7))  # interrupts fall everywhere within a tick
            interrupted = time.monotonic()
            await session.interrupt()
            last = await ear.quiet_for(0.4)
            # A packet that leaves carries 20 ms: it is audible until then.
            found.interrupt_to_silence.append(max(0.0, (last + 0.02 - interrupted) * 1000))
        found.idle_bytes_changed = idle_bytes_changed(avatar, playout)
    return found


async def ask_to_audible(avatar: Avatar, language_model: LanguageModel, repeats: int) -> list[float]:
    """Milliseconds from a question to the first audible sample of the model's answer, each answer interrupted once it is heard."""
    found = []
    async with speaking_session(avatar, language_model) as (session, _, _, ear):
        for repeat in range(repeats + 1):
            asked = time.monotonic()
            await session.ask("Hello, who are you?")
            audible = await ear.first_after(asked)
            if repeat:  # the first one warms up
                found.append((audible - asked) * 1000)
            await session.interrupt()
            await ear.quiet_for(0.4)
    return found


def idle_bytes_changed(avatar: Avatar, playout: Playout) -> int:
    """How many bytes of the next 50 pictures differ from the avatar's own."""
    assert playout.last is not None
    ticks = [playout.tick(playout.last.number + 1) for _ in range(50)]
    return sum(int((tick.picture != avatar.frame_at(tick.position).picture).sum()) for tick in ticks)
