"""Process 0, the supervisor: starts the two servers, says what is missing, restarts what dies, takes all down together."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import structlog

from gpuserver.config import Settings
from gpuserver.errors import CannotStart
from gpuserver.startup_report import shortcomings
from gpuserver.web.auth import internal_secret
from gpuserver.web.binding import check_bind, check_port
from gpuserver.web.lifeline import ALIVE, READY
from gpuserver.web.logs import configure_logging

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
KILL_AFTER_SECONDS = 2.5  # a clean shutdown takes less than 3 s
START_SECONDS = 120.0  # until it serves, on the slowest disk
SILENCE_SECONDS = 15.0  # without a sign of life of its event loop, as systemd's WatchdogSec: then a process hangs, and is ended
ABORT_SECONDS = 1.0  # for a process that hangs to say where
FIRST_SECONDS = 1.2  # of these: what the first server, the media server, has for itself

log = structlog.get_logger(__name__)


class BackOff:
    """How long to wait before the next start: 0.5 s, doubling to 10 s; from the beginning again after a healthy while."""

    FIRST_SECONDS = 0.5
    LONGEST_SECONDS = 10.0
    HEALTHY_SECONDS = 30.0

    def __init__(self) -> None:
        self._delay = self.FIRST_SECONDS

    def after(self, uptime: float) -> float:
        """The delay in seconds after a process that ran for `uptime` seconds."""
        if uptime >= self.HEALTHY_SECONDS:
            self._delay = self.FIRST_SECONDS
        delay = self._delay
        self._delay = min(self.LONGEST_SECONDS, delay * 2)
        return delay


class Child:
    """One server process that is kept running."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], *, descriptors: Sequence[int] = ()):
        """descriptors: of files that it inherits, under the same numbers."""
        self.name = name
        self._command = command
        self._descriptors = descriptors
        self.ready = asyncio.Event()  # it has served at least once
        self.serves = False  # at this moment, as far as is known
        self.restarts = 0
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Start it again and again until stop(). Raises CannotStart if it ends before it has ever been ready."""
        back_off = BackOff()
        while not self._stopping.is_set():
            started = time.monotonic()
            code = await self._run_once()
            if self._stopping.is_set():
                return
            if not self.ready.is_set():
                raise CannotStart(
                    f"The {self.name} server ended before it was ready (exit code {code}).", advice="The lines above say why."
                )
            delay = back_off.after(time.monotonic() - started)
            log.warning("process_ended", process=self.name, code=code, restart_in=delay)
            self.restarts += 1
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)

    @property
    def runs(self) -> bool:
        return self._process is not None

    def stay_down(self) -> None:
        """Do not start it again."""
        self._stopping.set()

    def stop(self, number: signal.Signals) -> None:
        """Pass on the signal that asks it to end, and do not start it again."""
        self.stay_down()
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    def kill(self) -> None:
        """End it and its own children at once."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def _run_once(self) -> int:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            try:
                process = await asyncio.create_subprocess_exec(
                    *self._command,
                    stdin=theirs.fileno(),
                    env=self._environment,
                    pass_fds=self._descriptors,
                    start_new_session=True,  # Ctrl-C reaches the supervisor alone, which passes it on once
                )
            except OSError as error:  # no memory or no process id is free now: as if it had ended at once
                log.error("process_not_started", process=self.name, reason=error.strerror)
                return os.EX_OSERR
            theirs.close()
            self._process = process
            if self._stopping.is_set():
                process.terminate()
            noticing = asyncio.create_task(self._watch(ours, process))
            try:
                return await process.wait()
            finally:
                self.serves = False
                noticing.cancel()
                await asyncio.wait([noticing])
                self.kill()  # what it left behind
                self._process = None

    async def _watch(self, lifeline: socket.socket, process: asyncio.subprocess.Process) -> None:
        """Note when it serves; end it when it hangs."""
        loop = asyncio.get_running_loop()
        with suppress(ConnectionError):
            try:
                async with asyncio.timeout(START_SECONDS):
                    if await loop.sock_recv(lifeline, len(READY)) != READY:
                        return  # it has ended
            except TimeoutError:
                log.error("process_does_not_start", process=self.name, seconds=START_SECONDS)
                await self._abort(process)
                return
            log.info("process_ready", process=self.name)
            self.serves = True
            self.ready.set()
            if await loop.sock_recv(lifeline, len(ALIVE)):
                await _silence(lifeline)
                log.error("process_hangs", process=self.name, silent_seconds=SILENCE_SECONDS)
                await self._abort(process)

    async def _abort(self, process: asyncio.subprocess.Process) -> None:
        """End it, and let it say where it hangs."""
        self.serves = False
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGABRT)
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), ABORT_SECONDS)
        self.kill()


async def _silence(lifeline: socket.socket) -> None:
    """Returns when nothing has come for SILENCE_SECONDS. Raises ConnectionError when nothing can come any more.

    Counted in parts, so that what came while this process itself stood still is heard before silence is found.
    """
    parts, missed = 5, 0
    while missed < parts:
        try:
            async with asyncio.timeout(SILENCE_SECONDS / parts):
                if not await asyncio.get_running_loop().sock_recv(lifeline, 64):
                    raise ConnectionError
        except TimeoutError:
            missed += 1
        else:
            missed = 0


class Supervisor:
    """The two servers as one: ready together, stopped one after the other.

    The first one has the sessions; the other carries its farewell to their clients and so ends after it.
    """

    def __init__(self, children: list[Child]):
        self._children = children
        self._stop = asyncio.Event()
        self._number = signal.SIGTERM

    def stop(self, number: signal.Signals) -> None:
        """Ask all to end; the second time, end them."""
        for child in self._children:
            if self._stop.is_set():
                child.kill()
            else:
                child.stay_down()
        self._number = number
        self._stop.set()

    async def run(self, on_ready: Callable[[], Awaitable[None]]) -> None:
        """Until stop(). Raises CannotStart if a server cannot start at all; the others are stopped then."""
        running = [asyncio.create_task(child.run()) for child in self._children]
        waiting = [asyncio.create_task(self._greet(on_ready)), asyncio.create_task(self._stop.wait())]
        try:
            await asyncio.wait([*running, waiting[1]], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
            if not self._stop.is_set():
                self.stop(signal.SIGTERM)
            await self._end(running)
        for task in running:
            task.result()

    async def _end(self, running: list[asyncio.Task[None]]) -> None:
        started = time.monotonic()
        self._children[0].stop(self._number)
        await asyncio.wait(running[:1], timeout=FIRST_SECONDS)
        for child in self._children[1:]:
            child.stop(self._number)
        _, late = await asyncio.wait(running, timeout=KILL_AFTER_SECONDS - (time.monotonic() - started))
        if late:
            log.warning("killing_what_does_not_stop", processes=[child.name for child in self._children if child.runs])
            for child in self._children:
                child.kill()
            await asyncio.wait(late)

    async def _greet(self, on_ready: Callable[[], Awaitable[None]]) -> None:
        for child in self._children:
            await child.ready.wait()
        await on_ready()


def main(settings: Settings, say: Callable[[str], None]) -> None:
    """Run both servers until a signal. `say` shows a line to whoever started us. Raises CannotStart."""
    configure_logging(settings)
    check_bind(settings, "MANAGEMENT_API", settings.management_api_host)
    check_bind(settings, "MEDIA", settings.media_host)
    check_port("MANAGEMENT_API", settings.management_api_host, settings.management_api_port)
    check_port("MEDIA", settings.media_host, settings.media_port)
    if settings.tts_port:
        check_port("TTS", settings.media_host, settings.tts_port)
    asyncio.run(_supervise(settings, say))


async def _supervise(settings: Settings, say: Callable[[str], None]) -> None:
    environment = package_environment() | {"INTERNAL_SECRET": internal_secret(settings)}
    commands = {name: [sys.executable, "-m", "gpuserver", name, "--supervised"] for name in ("media", "management")}
    supervisor = Supervisor([Child(name, command, environment) for name, command in commands.items()])
    for number in STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, supervisor.stop, number)

    async def greet() -> None:
        host = "127.0.0.1" if settings.management_api_host in {"0.0.0.0", "::"} else settings.management_api_host  # noqa: S104 - compared
        say(f"ready: http://{host}:{settings.management_api_port}")
        for line in await asyncio.to_thread(shortcomings, host, settings.management_api_port):
            say(line)

    await supervisor.run(greet)


def package_environment() -> dict[str, str]:
    """What children inherit: our environment, and this package wherever it was started from."""
    package = str(Path(__file__).parent.parent)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))}
