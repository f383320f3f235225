"""The documents say what is true: every setting, every command, every address that they name exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from gpuserver.cli import app
from gpuserver.config import Settings

ROOT = Path(__file__).parents[2]
READMES = (ROOT / "README.md", ROOT / "README.zh-CN.md")
CONSOLE = re.compile(r"```console\n(.*?)```", re.DOTALL)
SETTING_ROW = re.compile(r"^\| `([A-Z0-9_<>a-z]+)` \|", re.MULTILINE)


def commands(document: Path) -> list[str]:
    """The lines of all console blocks, without trailing comments."""
    blocks = CONSOLE.findall(document.read_text(encoding="utf-8"))
    return [" ".join(shlex.split(line, comments=True)) for block in blocks for line in block.splitlines() if line.strip()]


@pytest.mark.parametrize("document", READMES, ids=lambda path: path.name)
def test_the_readme_names_every_setting(document: Path) -> None:
    fields = {name.upper() for name in Settings.model_fields if name != "tutor_models"}
    assert set(SETTING_ROW.findall(document.read_text(encoding="utf-8"))) == fields | {"TUTOR_<id>_LLM_MODEL"}


def test_both_readmes_give_the_same_commands() -> None:
    english, chinese = (commands(document) for document in READMES)
    assert english == chinese


def test_every_make_target_that_the_documents_name_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = {
        line.split()[1] for document in (*READMES, ROOT / "CONTRIBUTING.md") for line in commands(document) if line.startswith("make ")
    }
    assert named
    assert named <= targets


def test_every_gpuserver_command_that_the_readme_names_exists() -> None:
    group = typer.main.get_command(app)
    named = [shlex.split(line)[1:] for line in commands(READMES[0]) if line.startswith("gpuserver ")]
    assert named
    for words in named:
        command = group
        while words and isinstance(command, typer.core.TyperGroup):
            command = command.commands[words.pop(0)]
        options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in words if word.startswith("--")} <= options


def test_every_file_that_the_documents_link_to_exists() -> None:
    for document in (*READMES, ROOT / "ARCHITECTURE.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (ROOT / target).exists(), f"{document.name} links to {target}"
