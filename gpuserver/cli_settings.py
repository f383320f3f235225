"""What all commands share: the settings, or a plain line per wrong one and exit code 2; and a line per name that looks misspelt."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator
from pathlib import Path

import typer
from dotenv import dotenv_values
from pydantic import ValidationError

from gpuserver.config import TUTOR_MODEL, Settings, explain

ENV_FILE = Path(".env")
ALIKE = 0.8  # difflib's ratio: MEDIA_PRT and MEDIA_PORT have 0.95, DATABASE_URL and OLLAMA_BASE_URL 0.74


def read_settings(*, quiet: bool = False) -> Settings:
    """The settings of this machine. quiet: another process has already told what looks misspelt. Raises typer.Exit."""
    try:
        settings = Settings()
        suspects = [] if quiet else list(misspelt(ENV_FILE))
    except ValidationError as error:
        print("The settings are not valid:", explain(error), sep="\n", file=sys.stderr)
        raise typer.Exit(2) from error
    except UnicodeDecodeError as error:
        print(f"{ENV_FILE} is not UTF-8 text. Save it as UTF-8.", file=sys.stderr)
        raise typer.Exit(2) from error
    for line in suspects:
        print(line, file=sys.stderr)
    return settings


def misspelt(env_file: Path) -> Iterator[str]:
    """A sentence per name in the file that is no setting but looks like one. Others may be there for other programs."""
    known = {name.upper() for name in Settings.model_fields}
    for name in dotenv_values(env_file):
        upper = name.upper()
        if upper in known or TUTOR_MODEL.match(upper):
            continue
        meant = difflib.get_close_matches(upper, known, n=1, cutoff=ALIKE) or [each for each in known if each.endswith(f"_{upper}")]
        if len(meant) == 1:
            yield f"{env_file}: {name} is no setting and has no effect. Is {meant[0]} meant?"
