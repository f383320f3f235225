"""A process whose work stands still ends; one that works or rests does not."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import threading
from gpuserver.musetalk.render_service.standstill import Standstill

def device_that_hangs():
    threading.Event().wait()

standstill = Standstill(0.2)
for _ in range(3):
    standstill.begun()
for _ in range({finished}):
    standstill.finished()
threading.Thread(target=device_that_hangs, daemon=True).start()
threading.Event().wait({rest})
print("still here")
"""


def _run(finished: int, rest: str) -> subprocess.CompletedProcess[str]:
    script = SCRIPT.format(finished=finished, rest=rest)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("finished", [0, 2])
def test_work_that_stands_still_ends_the_process_with_the_stacks_of_its_threads(finished: int) -> None:
    ended = _run(finished, rest="")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "in device_that_hangs" in ended.stderr


def test_a_process_that_has_nothing_to_do_rests_for_as_long_as_it_likes() -> None:
    rested = _run(finished=3, rest="1")
    assert (rested.returncode, rested.stdout, rested.stderr) == (0, "still here\n", "")
