"""Loading in the background: its result, its failure, and a shutdown that does not wait for it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from gpuserver.errors import VoiceFailed
from gpuserver.pipeline.loading import load_in_background
from gpuserver.pipeline.speech_worker import SpeechWorker, SpokenPiece


def fail() -> str:
    raise OSError("no such model")


async def test_what_was_loaded_is_there_for_whoever_waits() -> None:
    assert await load_in_background(lambda: threading.current_thread().name, "a loader") == "a loader"


async def test_a_failure_reaches_whoever_waits() -> None:
    with pytest.raises(OSError, match="no such model"):
        await load_in_background(fail, "a loader")


async def test_a_model_that_cannot_be_loaded_is_a_failed_voice_with_advice() -> None:
    worker: SpeechWorker[str] = SpeechWorker("a voice", fail, "Install it.")
    with pytest.raises(VoiceFailed, match="no such model"):
        await worker.model()
    await worker.aclose()


async def test_a_worker_is_closed_while_its_model_is_still_being_loaded() -> None:
    begun, may_go_on = threading.Event(), threading.Event()

    def load() -> str:
        begun.set()
        may_go_on.wait()
        return "a model"

    def work(_model: str, _piece: str, _pause: float) -> SpokenPiece | None:
        return None

    async def listen() -> None:
        async for _ in worker.speak("Hello.", work):
            pass

    worker: SpeechWorker[str] = SpeechWorker("a voice", load, "")
    listening = asyncio.create_task(listen())
    await asyncio.to_thread(begun.wait)
    try:
        async with asyncio.timeout(5):
            await worker.aclose()
            with pytest.raises(VoiceFailed, match="closed"):
                await listening
    finally:
        may_go_on.set()


ENDLESS = """
import asyncio, threading
from gpuserver.pipeline.loading import leave_what_is_being_loaded
from gpuserver.pipeline.speech_worker import SpeechWorker

async def main():
    begun = threading.Event()
    worker = SpeechWorker("endless", lambda: begun.set() or threading.Event().wait(), "")
    worker.start()
    await asyncio.to_thread(begun.wait)
    await worker.aclose()

asyncio.run(main())
print("closed")
leave_what_is_being_loaded()
"""


def test_a_server_ends_while_a_model_is_still_being_loaded() -> None:
    ended = subprocess.run([sys.executable, "-c", ENDLESS], timeout=30, check=False, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "closed\n", "")
