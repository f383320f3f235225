"""Records sessions: an MP4 of exactly what their playout showed and sounded like from one moment to another."""

from __future__ import annotations

import asyncio
import errno
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Queue
from typing import Protocol, cast

import structlog
from av.error import FFmpegError

from gpuserver.domain import FPS, FRAME_SECONDS, Avatar, Stage
from gpuserver.errors import Conflict, DiskFull, GpuserverError, NotFound, TooManyJobs
from gpuserver.media.film import PART, FilmWriter
from gpuserver.media.playout import SILENCE, PlayedFrame, Playout
from gpuserver.musetalk.avatars.disk_room import DiskRoom
from gpuserver.pipeline.subscription import Subscription

MOST_AT_ONCE = 4  # each takes a tenth of a core
MOST_SECONDS = 1800
MOST_BYTES = 512 * 1024**2
MOST_KEPT = 50  # films; the oldest go first
PICTURES_WAITING = 50  # 2 s, 20 MB; beyond it a picture is left out, and the one before it stands for it
FRAMES_WAITING = 1500  # 60 s, 6 MB of sound; beyond it a frame is left out, sound and all

log = structlog.get_logger(__name__)


class Filmed(Protocol):
    """pipeline.session.Session, as far as a recording needs it."""

    @property
    def session_id(self) -> str: ...

    @property
    def avatar(self) -> Avatar: ...

    @property
    def stage(self) -> Stage:
        """A Playout."""
        ...

    def subscribe(self) -> Subscription:
        """Ends when the session ends. Raises SessionNotFound if it has ended."""
        ...


@dataclass(frozen=True, slots=True)
class Recorded:
    """A finished film. cut_short: it reached MOST_SECONDS or MOST_BYTES. left_out: pictures that the encoder had no time for."""

    path: Path
    seconds: float
    cut_short: bool
    left_out: int


class Recorder:
    """The recordings of all sessions, one of each at a time, in `folder` as <name>.mp4; a second one replaces the first."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._threads = ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="recorder")
        self._reels: dict[str, _Reel] = {}  # by session id
        self._watches: set[asyncio.Task[None]] = set()

    async def start(self, session: Filmed, name: str) -> None:
        """Record from now on; nothing changes if that is so already. The session's end ends the recording, too.

        Raises Conflict while the session's last film is being completed, TooManyJobs, DiskFull, SessionNotFound.
        """
        if (reel := self._reels.get(session.session_id)) is not None:
            if reel.is_ending:
                raise Conflict("The last recording of this session is still being written.", advice="Begin again in a moment.")
            return
        if len(self._reels) >= MOST_AT_ONCE:
            raise TooManyJobs(f"{MOST_AT_ONCE} sessions are being recorded.", advice="End one of the recordings first.")
        events = session.subscribe()
        reel = self._reels[session.session_id] = _Reel(cast(Playout, session.stage), session.avatar, self.path(name), events)
        try:
            await asyncio.to_thread(self._make_room)
        except BaseException:
            del self._reels[session.session_id]
            await events.aclose()
            raise
        reel.start(self._threads)
        watch = asyncio.create_task(self._end_with(session.session_id, reel), name="recording")
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)

    async def stop(self, session: Filmed) -> Recorded:
        """End the session's recording and wait for its film. Raises Conflict if there is none, DiskFull, GpuserverError."""
        reel = self._reels.get(session.session_id)
        if reel is None or not reel.is_rolling:
            raise Conflict("Nothing is being recorded.", advice="Begin with start_record.")
        return await self._finish(session.session_id, reel)

    def path(self, name: str) -> Path:
        """Where the film of this name is or will be."""
        return self._folder / f"{name}.mp4"

    def film(self, name: str) -> Path:
        """A finished film. Raises NotFound."""
        path = self.path(name)
        if not path.is_file():
            raise NotFound("There is no film of this session.", advice="A film can be fetched after end_record; the newest 50 are kept.")
        return path

    async def aclose(self) -> None:
        """Finish what is being recorded; the sessions have ended before."""
        await asyncio.gather(*self._watches)
        await asyncio.to_thread(self._threads.shutdown)

    async def _end_with(self, session_id: str, reel: _Reel) -> None:
        """Finish the recording when the session ends, unless it was finished before."""
        async for _ in reel.events:
            pass
        if reel.is_rolling:
            try:
                await self._finish(session_id, reel)
            except GpuserverError as error:
                log.warning("recording_failed", session_id=session_id, detail=error.detail)

    async def _finish(self, session_id: str, reel: _Reel) -> Recorded:
        """The reel's film. It is in progress until it is written: nobody clears its file away, or writes another one there."""
        try:
            return await reel.finish()
        finally:
            del self._reels[session_id]

    def _make_room(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        DiskRoom(self._folder).require(MOST_BYTES)
        films = sorted(self._folder.glob("*.mp4"), key=lambda path: path.stat().st_mtime)
        for old in films[: max(0, len(films) - MOST_KEPT + 1)]:
            old.unlink(missing_ok=True)
        in_progress = {reel.path.name for reel in self._reels.values()}
        for part in self._folder.glob(f".*{PART}"):
            if part.name.removeprefix(".").removesuffix(PART) not in in_progress:
                part.unlink(missing_ok=True)  # of a server that was killed


class _Reel:
    """One recording: the event loop hands over frames, a thread encodes them. events: they end when the session or the recording does."""

    def __init__(self, playout: Playout, avatar: Avatar, path: Path, events: Subscription):
        self.path = path
        self.events = events
        self._playout = playout
        self._avatar = avatar
        self._frames: Queue[PlayedFrame | None] = Queue(FRAMES_WAITING + 1)  # one place is kept for the end
        self._newest: PlayedFrame | None = None
        self._left_out = 0
        self._writing: Future[tuple[int, bool]] | None = None
        self.is_ending = False

    @property
    def is_rolling(self) -> bool:
        return self._writing is not None and not self.is_ending

    def start(self, threads: ThreadPoolExecutor) -> None:
        self._writing = threads.submit(self._write)
        self._playout.record(self._take)

    async def finish(self) -> Recorded:
        """The film. Raises DiskFull, GpuserverError."""
        if self._writing is None:
            raise ValueError("the recording was not started")
        self.is_ending = True
        self._playout.stop_recording()
        self._frames.put_nowait(None)
        await self.events.aclose()
        try:
            frames, cut_short = await asyncio.wrap_future(self._writing)
        except (OSError, FFmpegError) as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise DiskFull("The disk became full while the film was written.") from error
            raise GpuserverError("The film could not be written.") from error
        if not frames:
            raise Conflict("Nothing was shown while it was recorded.", advice="Record while a peer is connected.")
        if self._left_out or cut_short:
            log.warning("recording_incomplete", film=self.path.name, left_out=self._left_out, cut_short=cut_short)
        return Recorded(self.path, frames * FRAME_SECONDS, cut_short, self._left_out)

    def _take(self, played: PlayedFrame) -> None:
        """Where the encoder falls behind, pictures go first: a sound with a hole is worse than a still moment."""
        waiting = self._frames.qsize()
        if waiting >= PICTURES_WAITING and self._newest is not None:
            self._left_out += 1
            played = replace(played, picture=self._newest.picture)
        if waiting < FRAMES_WAITING:
            self._newest = played
            self._frames.put_nowait(played)

    def _write(self) -> tuple[int, bool]:
        """The number of frames in the film, and whether it was cut short. Runs in a thread."""
        with FilmWriter(self.path, self._avatar.width, self._avatar.height, threads=1) as writer:
            cut_short = False
            previous: PlayedFrame | None = None
            while (played := self._frames.get()) is not None:
                shown = previous or played
                missing = played.number - shown.number - 1
                for _ in range(min(missing, MOST_SECONDS * FPS - writer.frames)):
                    writer.add(shown.picture, SILENCE)
                cut_short = cut_short or writer.frames >= MOST_SECONDS * FPS or writer.bytes > MOST_BYTES
                if not cut_short:
                    writer.add(played.picture, played.sound)
                previous = played
            return writer.frames, cut_short
