"""All media workers: started together, restarted one by one, stopped together; and which of them has a session."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import count
from typing import Protocol

import structlog
from aiohttp import web

from gpuserver.errors import Unavailable
from gpuserver.media_router.worker_client import RETRY_AFTER_SECONDS, WorkerClient, session_gone
from gpuserver.session_names import worker_of_id

STOP_SECONDS = 2.0  # then they are killed; the supervisor grants 2.5 s to all

log = structlog.get_logger(__name__)


class Process(Protocol):
    """unified_server.Child: a process that is kept running. ready: it has served once; serves: at this moment."""

    @property
    def ready(self) -> asyncio.Event: ...

    @property
    def serves(self) -> bool: ...

    @property
    def restarts(self) -> int: ...

    async def run(self) -> None:
        """Until stop(). Raises CannotStart if it ends before it has ever been ready."""
        ...

    def stop(self, number: signal.Signals) -> None: ...

    def kill(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Worker:
    """One media process. number: from 1; the names of its sessions carry it."""

    number: int
    process: Process
    client: WorkerClient


class Fleet:
    def __init__(self, workers: Sequence[Worker]):
        self.workers = tuple(workers)
        self._running: list[asyncio.Task[None]] = []
        self._turns = count()

    async def run(self, _app: web.Application) -> AsyncIterator[None]:
        """The life of all workers, as a cleanup_ctx: it begins when every one of them serves. Raises CannotStart."""
        async with AsyncExitStack() as parts:
            for worker in self.workers:
                await parts.enter_async_context(worker.client)
            parts.push_async_callback(self.stop)
            self._running = [asyncio.create_task(worker.process.run(), name=f"worker {worker.number}") for worker in self.workers]
            await self._until_ready()
            for task in self._running:
                task.add_done_callback(_end_with)
            yield

    async def stop(self, _app: web.Application | None = None) -> None:
        """End them. Their last words still reach the clients, if the sockets between are open."""
        for worker in self.workers:
            worker.process.stop(signal.SIGTERM)
        if not self._running:
            return
        _, late = await asyncio.wait(self._running, timeout=STOP_SECONDS)
        if late:
            log.warning("killing_what_does_not_stop", processes=[task.get_name() for task in late])
            for worker in self.workers:
                worker.process.kill()
            await asyncio.wait(late)

    @property
    def serving(self) -> list[Worker]:
        """Those that serve now, as far as is known."""
        return [worker for worker in self.workers if worker.process.serves]

    def any(self) -> Worker:
        """A worker that serves; each in its turn. Raises Unavailable."""
        if not (serving := self.serving):
            raise Unavailable("All media workers are being started again.", retry_after=RETRY_AFTER_SECONDS)
        return serving[next(self._turns) % len(serving)]

    def get(self, number: int | None) -> Worker:
        """The worker of this number, if it serves. Raises SessionNotFound: whatever it had has ended with it."""
        worker = next((worker for worker in self.serving if worker.number == number), None)
        if worker is None:
            raise session_gone()
        return worker

    def of_session(self, session_id: str) -> Worker:
        """The worker that its id names. Raises SessionNotFound."""
        return self.get(worker_of_id(session_id))

    async def _until_ready(self) -> None:
        ready = asyncio.create_task(self._wait_for_all())
        try:
            await asyncio.wait([ready, *self._running], return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        for task in self._running:
            if task.done():
                task.result()

    async def _wait_for_all(self) -> None:
        for worker in self.workers:
            await worker.process.ready.wait()


def _end_with(task: asyncio.Task[None]) -> None:
    """A worker that cannot even be started again ends the router: its own supervisor starts all anew."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("worker_cannot_be_started", worker=task.get_name(), exc_info=error)
        os.kill(os.getpid(), signal.SIGTERM)
