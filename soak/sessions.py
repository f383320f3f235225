"""Opens and closes sessions with a connected peer, again and again: memory, open files and tasks stay where they were.

python -m soak.sessions [SESSIONS]
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import structlog

sys.path.insert(0, str(Path(__file__).parents[1] / "temp" / "tests"))

from fakes import FakeVoice
from receiver import Receiver

from gpuserver.config import Settings
from gpuserver.media.clock import LoopClock
from gpuserver.media.encoding import Encoding
from gpuserver.media.ice_connection import IceNetwork
from gpuserver.media.peers import Peers
from gpuserver.media.playout import Playout
from gpuserver.media.ports import AnyPort
from gpuserver.musetalk.avatar_manager import AvatarManager
from gpuserver.musetalk.avatars.avatar_files import load_avatar
from gpuserver.musetalk.renderer import Renderer
from gpuserver.musetalk.warp.warp_engine import WarpEngine
from gpuserver.pipeline.llm_echo import EchoModel
from gpuserver.pipeline.session import Session, SessionSettings
from gpuserver.pipeline.studio import Studio
from gpuserver.wire import CreateSession, Offer

SESSIONS = 500
AT_ONCE = 5
WARM_UP = 100  # sessions: caches fill, threads start
MOST_GROWTH = 1.0  # MB per 100 sessions


@dataclass(frozen=True, slots=True)
class Holdings:
    """What this process holds. megabytes: resident, without files such as the avatar's that are mapped."""

    megabytes: float
    files: int
    tasks: int

    @classmethod
    def now(cls) -> Holdings:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what the C library keeps for later is not held by us
        lines = Path("/proc/self/status").read_text().splitlines()
        megabytes = next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024
        return cls(megabytes, len(list(Path("/proc/self/fd").iterdir())), len(asyncio.all_tasks()))


class Stagehand:
    """Opens sessions and closes them again."""

    def __init__(self, avatar_folder: Path):
        self._avatar = load_avatar(avatar_folder)
        self._encoding = Encoding()
        self._peers = Peers(IceNetwork(AnyPort()), LoopClock(), self._encoding)
        engine = WarpEngine()
        self._renderer = Renderer(engine)
        self._studio = Studio(EchoModel(), FakeVoice(), engine, self._renderer)

    async def __aenter__(self) -> Stagehand:
        self._renderer.start()
        await self._peers.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._peers.__aexit__(None, None, None)
        await self._encoding.aclose()
        self._renderer.close()

    async def play(self, sessions: int) -> None:
        """Open and close so many sessions, a few at a time."""
        for start in range(0, sessions, AT_ONCE):
            await asyncio.gather(*(self._play_one() for _ in range(min(AT_ONCE, sessions - start))))

    async def _play_one(self) -> None:
        """A browser connects, hears something, and the session is deleted."""
        playout = Playout(self._avatar)
        settings = SessionSettings(model=None, idle_seconds=3600)
        request = CreateSession(tutor_id="soak", student_id="soak")
        session = Session(request, self._avatar, playout, self._studio, settings, on_idle=lambda _: None)

        async def negotiate(sdp: str) -> str:
            return (await self._peers.answer(session, playout, Offer(sdp=sdp, type="offer"))).sdp

        async with Receiver(keep_pictures=2) as receiver:
            await receiver.connect(negotiate, within=60)
            await session.say("One.")
            await receiver.until(lambda: len(receiver.pictures) > 1 and len(receiver.sounds) > 5, within=60)
            await session.aclose("deleted")
            await receiver.until(lambda: receiver.state == "closed", within=60)


async def growth(avatar_folder: Path, sessions: int, warm_up: int = WARM_UP) -> tuple[Holdings, Holdings]:
    """What this process held before and after so many sessions."""
    async with Stagehand(avatar_folder) as stagehand:
        await stagehand.play(warm_up)
        before = await _settled()
        await stagehand.play(sessions)
        return before, await _settled()


async def _settled() -> Holdings:
    """Holdings once the tasks that were about to end have ended."""
    ending = asyncio.all_tasks() - {asyncio.current_task()}
    if ending:
        await asyncio.wait(ending, timeout=2)
    return Holdings.now()


def main() -> None:
    sessions = int(sys.argv[1]) if len(sys.argv) > 1 else SESSIONS
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with tempfile.TemporaryDirectory() as folder:
        manager = AvatarManager(Settings(_env_file=None, avatars_dir=Path(folder) / "avatars"))
        manager.start()
        manager.create_demo()
        before, after = asyncio.run(growth(manager.folder("demo"), sessions))
    grown = (after.megabytes - before.megabytes) / sessions * 100
    print(f"{sessions} sessions: {before} before, {after} after, {grown:+.2f} MB per 100.")
    assert after.files <= before.files, "files are left open"
    assert after.tasks <= before.tasks, "tasks are left"
    assert grown <= MOST_GROWTH, "memory grows"


if __name__ == "__main__":
    main()
