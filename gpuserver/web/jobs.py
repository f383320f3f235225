"""Long work that nobody waits for: jobs run on threads, tell how far they are, can be cancelled, and are remembered for a while."""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, Future

import structlog

from gpuserver import wire
from gpuserver.errors import Cancelled, GpuserverError, JobEnded, JobNotFound
from gpuserver.wire import AvatarCreated, QualityReport

MOST_ENDED = 100  # jobs that are remembered …
REMEMBERED_SECONDS = 3600.0  # … for so long

Work = Callable[["Job"], AvatarCreated]
log = structlog.get_logger(__name__)


class Job:
    """One avatar in the making. The work calls progress() and analysed() from its thread and gives up soon after `cancel` is set."""

    def __init__(self, avatar_id: str):
        self.state = wire.Job(job_id=secrets.token_urlsafe(12), avatar_id=avatar_id)
        self.cancel = threading.Event()
        self._changed = asyncio.Event()  # a new one after every change
        self._loop = asyncio.get_running_loop()

    @property
    def job_id(self) -> str:
        return self.state.job_id

    def progress(self, stage: str, part: float) -> None:
        """Tell how far the work is, 0..1. From any thread."""
        self._loop.call_soon_threadsafe(lambda: self.change(state="running", stage=stage, progress=max(part, self.state.progress)))

    def analysed(self, report: QualityReport) -> None:
        """Tell what the video is like. From any thread."""
        self._loop.call_soon_threadsafe(lambda: self.change(stage="analysed", report=report))

    def change(self, **fields: object) -> None:
        """Set fields of the state and tell every listener; without effect on a job that has ended. From the event loop only."""
        if not self.state.has_ended:
            self.state = self.state.model_copy(update=fields)
            self._changed.set()
            self._changed = asyncio.Event()

    async def states(self) -> AsyncIterator[wire.Job]:
        """The state now and after every change, to the end. Who reads slowly misses what lies between, never the last one."""
        while True:
            changed, state = self._changed, self.state
            yield state
            if state.has_ended:
                return
            await changed.wait()


class Jobs:
    """All jobs of this process. The executor says how many run at once, and may turn more away."""

    def __init__(self, executor: Executor, clock: Callable[[], float] = time.monotonic):
        self._executor = executor
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._futures: dict[str, Future[AvatarCreated]] = {}
        self._jobs: dict[str, Job] = {}
        self._ended_at: dict[str, float] = {}  # in the order of their ends

    def start(self, avatar_id: str, work: Work, *, cleanup: Callable[[], None] | None = None) -> Job:
        """Queue `work`. cleanup: blocking, called once after the end, however the job ends. Raises TooManyJobs (the executor)."""
        job = Job(avatar_id)
        self._futures[job.job_id] = self._executor.submit(_begin, job, work)
        self._jobs[job.job_id] = job
        self._tasks[job.job_id] = asyncio.create_task(self._follow(job, cleanup), name=f"job {job.job_id}")
        return job

    def get(self, job_id: str) -> Job:
        """Raises JobNotFound."""
        self._forget()
        if job_id not in self._jobs:
            raise JobNotFound("There is no such job.")
        return self._jobs[job_id]

    async def cancel(self, job_id: str) -> None:
        """End the job; returns when nothing of it runs any more. Raises JobNotFound, JobEnded (its avatar was made)."""
        job = self.get(job_id)
        self._stop(job)
        if job_id in self._tasks:
            await asyncio.wait([self._tasks[job_id]])
        if job.state.state == "done":
            raise JobEnded(f"The avatar {job.state.avatar_id} has been created.")

    async def aclose(self) -> None:
        """Cancel all jobs and wait for their ends."""
        for job in self._jobs.values():
            self._stop(job)
        if self._tasks:
            await asyncio.wait(self._tasks.values())

    def _stop(self, job: Job) -> None:
        job.cancel.set()
        if job.job_id in self._futures:
            self._futures[job.job_id].cancel()  # takes it out of the queue; work that runs sees job.cancel

    async def _follow(self, job: Job, cleanup: Callable[[], None] | None) -> None:
        future = self._futures[job.job_id]
        await asyncio.gather(asyncio.wrap_future(future), return_exceptions=True)
        try:
            if cleanup is not None:
                await asyncio.to_thread(cleanup)
        finally:
            job.change(**_outcome(future, job.state.avatar_id))
            del self._futures[job.job_id], self._tasks[job.job_id]
            self._ended_at[job.job_id] = self._clock()
            self._forget()

    def _forget(self) -> None:
        """Drop the oldest of too many ended jobs, and those that ended too long ago."""
        oldest = self._clock() - REMEMBERED_SECONDS
        for job_id, ended_at in list(self._ended_at.items()):
            if len(self._ended_at) <= MOST_ENDED and ended_at > oldest:
                return
            del self._ended_at[job_id], self._jobs[job_id]


def _begin(job: Job, work: Work) -> AvatarCreated:
    job.progress("starting", 0.0)
    return work(job)


def _outcome(future: Future[AvatarCreated], avatar_id: str) -> dict[str, object]:
    """The last state of a job: the fields that change."""
    error = Cancelled("The avatar's creation was cancelled.") if future.cancelled() else future.exception()
    if error is None:
        return {"state": "done", "stage": "done", "progress": 1.0, "result": future.result()}
    if not isinstance(error, GpuserverError):
        log.error("job_failed", avatar_id=avatar_id, exc_info=error)
        error = GpuserverError("The server made a mistake while it created the avatar.")
    else:
        log.info("job_refused", avatar_id=avatar_id, problem=error.slug)
    state = "cancelled" if isinstance(error, Cancelled) else "failed"
    return {"state": state, "stage": state, "error": error.problem()}
