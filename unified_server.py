"""Starts everything: python3 unified_server.py. The work is done in gpuserver/unified_server.py."""

import re
import sys
from importlib import metadata
from pathlib import Path


def check_python_and_packages() -> None:
    """Exit with one plain line where this Python is too old or a dependency of pyproject.toml is not installed."""
    if sys.version_info < (3, 11):  # noqa: UP036 - the one file that an older Python may run
        sys.exit("gpuserver needs Python 3.11 or newer. Run: make run")
    import tomllib

    project = tomllib.loads(Path(__file__).with_name("pyproject.toml").read_text(encoding="utf-8"))["project"]
    try:
        for requirement in project["dependencies"]:
            metadata.version(re.split(r"[^\w.-]", requirement)[0])
    except metadata.PackageNotFoundError:
        sys.exit("The packages that gpuserver needs are not installed. Run: make run")


if __name__ == "__main__":
    check_python_and_packages()
    from gpuserver.cli import main

    main(["serve"])
