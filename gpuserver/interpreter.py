"""Another Python for the heavy work: PREFIX/bin/python of MUSETALK_CONDA_ENV runs the media server and prepares avatars, if it can."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CHECK_SECONDS = 60.0  # a first import from a slow disk
_LIBRARIES = ("site-packages", "dist-packages")

# What the other Python has to manage. An old one says so in a sentence instead of a syntax error.
_TRIAL = """
import sys
if sys.version_info < (3, 11):
    sys.exit("it is Python %d.%d, and 3.11 or newer is needed" % sys.version_info[:2])
import av, cv2, gpuserver.media.server, gpuserver.musetalk.preparing.preparation
"""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """path: the Python to start. shortfall: one sentence that says why it is not the one that was asked for, else None."""

    path: str
    shortfall: str | None = None

    @property
    def is_ours(self) -> bool:
        return self.path == sys.executable

    def environment(self, ours: Mapping[str, str]) -> dict[str, str]:
        """The environment to start it with: the code is this code, the libraries are its own."""
        environment = dict(ours)
        root = Path(__file__).resolve().parents[1]
        if self.is_ours or root.name not in _LIBRARIES:
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), ours.get("PYTHONPATH")]))
            return environment
        for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):  # they would lead it to the libraries of this Python
            environment.pop(name, None)
        return environment


OWN = Interpreter(sys.executable)


def choose_interpreter(prefix: Path | None, *, seconds: float = CHECK_SECONDS) -> Interpreter:
    """PREFIX/bin/python if it can do the work, else our own with the reason. Starts a process and waits for it, `seconds` at most."""
    if prefix is None:
        return OWN
    python = prefix.absolute() / "bin" / "python"
    if not os.access(python, os.X_OK):
        return _without("there is no bin/python in it")
    wanted = Interpreter(str(python))
    try:
        trial = subprocess.run(  # noqa: S603 - the operator's own setting, no shell
            [wanted.path, "-c", _TRIAL],
            env=wanted.environment(os.environ),
            cwd=prefix,  # not a folder that could hold another gpuserver
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _without(f"its bin/python took longer than {seconds:.0f} s to import gpuserver")
    except OSError as error:
        return _without(f"its bin/python cannot be started ({error.strerror})")
    if trial.returncode != 0:
        return _without(f"its bin/python cannot import gpuserver: {_last_line(trial.stderr) or f'exit code {trial.returncode}'}")
    return wanted


def take_over(interpreter: Interpreter, arguments: Sequence[str]) -> None:
    """Go on as `python -m gpuserver …` of the other Python, in this process. Returns only if it is our own."""
    if not interpreter.is_ours:
        command = [interpreter.path, "-m", "gpuserver", *arguments]
        os.execve(interpreter.path, command, interpreter.environment(os.environ))  # noqa: S606 - no shell, on purpose


def _without(why: str) -> Interpreter:
    return Interpreter(sys.executable, f"MUSETALK_CONDA_ENV is not used, because {why}; the server's own Python does the work.")


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")[:300]
