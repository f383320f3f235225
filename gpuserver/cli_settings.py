"""What all commands share: the settings, or a plain line per wrong one and exit code 2."""

from __future__ import annotations

import sys

import typer
from pydantic import ValidationError

from gpuserver.config import Settings, explain


def read_settings() -> Settings:
    """The settings of this machine. Raises typer.Exit."""
    try:
        return Settings()
    except ValidationError as error:
        print("The settings are not valid:", explain(error), sep="\n", file=sys.stderr)
        raise typer.Exit(2) from error
