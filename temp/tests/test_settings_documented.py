"""Every setting stands in .env.example with its true default, and nothing else does."""

from __future__ import annotations

import re
from pathlib import Path

from gpuserver.config import Settings

ROOT = Path(__file__).resolve().parents[2]
LINE = re.compile(r"^#(?P<name>[A-Z][A-Z0-9_]*)=(?P<value>.*)$")
TUTOR_EXAMPLE = "TUTOR_1_LLM_MODEL"
MACHINES_OWN = {"video_dirs"}  # holds the machine's temporary directory


def _documented() -> dict[str, str]:
    matches = [match for line in (ROOT / ".env.example").read_text().splitlines() if (match := LINE.match(line))]
    assert len({match["name"] for match in matches}) == len(matches), "a setting stands there twice"
    return {match["name"]: match["value"] for match in matches}


def test_env_example_names_every_setting_and_no_other() -> None:
    settings = {name.upper() for name in Settings.model_fields if name != "tutor_models"}
    assert set(_documented()) == settings | {TUTOR_EXAMPLE}


def test_env_example_read_as_settings_gives_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("".join(f"{name}={value}\n" for name, value in _documented().items()))
    read, defaults = Settings(_env_file=file), Settings(_env_file=None)
    for name in Settings.model_fields.keys() - MACHINES_OWN:
        assert getattr(read, name) == getattr(defaults, name), name
    assert set(read.video_dirs) <= set(defaults.video_dirs)
