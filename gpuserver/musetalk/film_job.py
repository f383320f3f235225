"""The parent's side of an idle film: runs the child process that encodes it."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

from gpuserver.errors import AvatarNotFound, GpuserverError
from gpuserver.musetalk.preparation_job import child_environment

WALL_SECONDS = 300.0

_log = logging.getLogger(__name__)


def make_film(folder: Path, film: Path) -> None:
    """Write the film of the avatar in `folder` and wait for its end. Raises AvatarNotFound (deleted meanwhile), GpuserverError."""
    try:
        subprocess.run(  # noqa: S603 - our own module, no shell
            [sys.executable, "-P", "-m", "gpuserver.musetalk.idle_film", str(folder), str(film)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=child_environment(),
            timeout=WALL_SECONDS,
            check=True,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        if not folder.is_dir():
            raise AvatarNotFound("The avatar was deleted while its film was made.") from error
        _log.warning("no idle film: %s", (error.stderr or b"").decode(errors="replace")[-2000:])
        raise GpuserverError("The film of the idle loop could not be made.") from error
