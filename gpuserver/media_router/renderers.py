"""The renderer processes, one per GPU: kept running, and asked how they are.

The router holds the sockets on which they listen. A worker that connects while a process is away waits in the socket's queue, and the
next process finds it there.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import stat
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from aiohttp import web

from gpuserver.media_router.fleet import Process
from gpuserver.musetalk.render_service.messages import LENGTH_BYTES, AskStatus, Status, body_length, decode, encode

ANSWER_SECONDS = 1.0
STOP_SECONDS = 0.3  # they have nothing to bring to an end
BACKLOG = 128  # more than there are workers

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RendererProcess:
    """number: from 1. gpu: as CUDA_VISIBLE_DEVICES names it; "" if none was found. path: of its socket."""

    number: int
    gpu: str
    path: Path
    listening: socket.socket
    process: Process


def listen(path: Path) -> socket.socket:
    """A socket for this user alone, in a folder for this user alone."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    listening.listen(BACKLOG)
    return listening


class Renderers:
    """None, where MuseTalk is not wanted."""

    def __init__(self, processes: Sequence[RendererProcess] = ()):
        self.processes = tuple(processes)

    async def run(self, _app: web.Application) -> AsyncIterator[None]:
        """Their life, as a cleanup_ctx. Nothing waits for them: until they are ready the workers draw with the warp engine."""
        running = [asyncio.create_task(each.process.run(), name=f"renderer {each.number}") for each in self.processes]
        for each, task in zip(self.processes, running, strict=True):
            each.process.ready.set()  # one that never gets ready is started again like one that dies later
            task.add_done_callback(_note_end)
        try:
            yield
        finally:
            await self._stop(running)

    async def statuses(self) -> list[Mapping[str, object]]:
        """Of each process, what it says of itself, at this moment."""
        return await asyncio.gather(*(_status_of(each) for each in self.processes))

    async def _stop(self, running: Sequence[asyncio.Task[None]]) -> None:
        for each in self.processes:
            each.process.stop(signal.SIGTERM)
            each.listening.close()
        if running:
            _, late = await asyncio.wait(running, timeout=STOP_SECONDS)
            for each in self.processes if late else ():
                each.process.kill()
            await asyncio.wait(running)


async def _status_of(renderer: RendererProcess) -> Mapping[str, object]:
    about = {"renderer": renderer.number, "gpu": renderer.gpu, "restarts": renderer.process.restarts}
    if not renderer.process.serves:
        return {**about, "state": "restarting"}
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return {**about, **await _ask(renderer.path)}
    except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
        return {**about, "state": "silent"}


async def _ask(path: Path) -> Mapping[str, object]:
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        writer.write(encode(AskStatus()))
        length = body_length(await reader.readexactly(LENGTH_BYTES))
        answer = decode(await reader.readexactly(length))
    finally:
        writer.close()
    if not isinstance(answer, Status):
        raise ValueError(f"{type(answer).__name__} instead of a status")
    return answer.values


def _note_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("renderer_cannot_be_started", renderer=task.get_name(), exc_info=error)
