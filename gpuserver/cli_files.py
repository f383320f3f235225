"""Files that a command writes where its user wants them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A plain line instead of the OSError of a folder that is missing, closed or full. Raises typer.Exit."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        print(f"{path} cannot be written: {reason}.", file=sys.stderr)
        raise typer.Exit(1) from error
