"""gpuserver models …: check, download, convert and verify MuseTalk's weights. Checking needs no torch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpuserver.cli_settings import read_settings
from gpuserver.errors import GpuserverError
from gpuserver.musetalk.weight_files.model_files import LICENCES, Version, models_folder

if TYPE_CHECKING:
    from gpuserver.musetalk.golden.check import Check
    from gpuserver.musetalk.weight_files.model_check import FileReport

EXTRA = "gpuserver[musetalk]"

models = typer.Typer(no_args_is_help=True, help="MuseTalk's weights: check, download, convert, verify.")

Base = Annotated[Path | None, typer.Option("--base", metavar="DIR", file_okay=False, help="Instead of MUSETALK_BASE.")]
Release = Annotated[Version | None, typer.Option("--release", help="The version of MuseTalk; MUSETALK_VERSION's if missing.")]


@models.command()
def check(base: Base = None, *, hashes: Annotated[bool, typer.Option("--hash", help="Also compare every sha256.")] = False) -> None:
    """Say what is there, what is missing and what it is for. Exit code 1 if neither version can serve."""
    from gpuserver.musetalk.weight_files.model_check import Verdict, check_models, unusable

    folder = _base(base)
    with _progress_bar() as progress:
        sizes = {report.path: report.size or 0 for report in check_models(folder)} if hashes else {}
        reports = check_models(folder, hashes=hashes, progress=lambda path, done: progress(path, "checking", done, sizes[path]))
    print(f"In {models_folder(folder)}:")
    print(*_aligned([("state", "file", "size", "sha256", "what for"), *(_row(report) for report in reports)]), sep="\n")
    lacking = {version: [need.name for need in unusable(reports, version)] for version in Version}
    for version, names in lacking.items():
        print(f"MuseTalk {version} " + (f"cannot serve; not usable: {', '.join(names)}." if names else "can serve."))
    if any(report.verdict is Verdict.TRUNCATED for report in reports):
        print("`gpuserver models convert` makes a truncated copy anew.")
    if all(lacking.values()):
        print("`gpuserver models download` gets what is missing.")
        raise typer.Exit(1)


@models.command()
def download(
    base: Base = None,
    *,
    release: Release = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="The licences have been read; do not ask.")] = False,
) -> None:
    """Get the official files that are missing, from the Hugging Face hub or the mirror that HF_ENDPOINT names."""
    from gpuserver.musetalk.weight_files.model_download import Downloader, files_to_download
    from gpuserver.musetalk.weight_files.model_hub import Hub

    folder, hub = _base(base), Hub()
    version = release or (Version.V10 if read_settings().musetalk_version == "v1.0" else Version.V15)
    files = files_to_download(folder, version)
    if not files:
        print(f"Nothing is missing for MuseTalk {version}.")
        return
    print("The weights belong to others. Their licences:", *(f"- {line}" for line in LICENCES), sep="\n")
    print(f"From {hub.endpoint} into {models_folder(folder)}:", *(f"- {file.path}  {_size(file.size)}" for file in files), sep="\n")
    if not yes:
        typer.confirm(f"Download {_size(sum(file.size or 0 for file in files))} under these licences?", abort=True)
    with _progress_bar() as progress:
        Downloader(folder, hub, progress=progress).run(files)
    print(f"{len(files)} files are in place. `gpuserver models convert` makes the start faster.")


@models.command()
def convert(base: Base = None) -> None:
    """Write half-precision copies beside the originals: half the disk, a faster start. The originals may be deleted then."""
    folder, count = _base(base), 0
    try:
        from gpuserver.musetalk.weight_files.model_convert import convert_models
    except ImportError as error:
        raise GpuserverError(f"{error.name} is not installed.", advice=f"pip install '{EXTRA}'") from error

    for made in convert_models(folder):
        count += 1
        print(f"{made.original.name} {_size(made.size_before)} -> {made.converted.name} {_size(made.size_after)}", flush=True)
    if count == 0:
        print(f"There is nothing to convert in {models_folder(folder)}.")


@models.command()
def verify(
    golden: Annotated[Path, typer.Option("--golden", metavar="DIR", exists=True, file_okay=False, help="Arrays of MuseTalk's own code.")],
) -> None:
    """Compare our runtime with every array in a folder; exit code 1 on any miss. Needs torch, but no weights: they come from a formula."""
    try:
        from gpuserver.musetalk.golden.check import check_golden
    except ImportError as error:
        raise GpuserverError(f"{error.name} is not installed.", advice=f"pip install '{EXTRA}'") from error

    checks = check_golden(golden)
    print(*_aligned([("array", "error", "tolerance", "ok", ""), *(_verdict(check) for check in checks)]), sep="\n")
    missed = [check for check in checks if not check.ok]
    print(f"{len(checks) - len(missed)} of {len(checks)} are ok.")
    if missed:
        raise typer.Exit(1)


def _verdict(check: Check) -> tuple[str, ...]:
    return check.name, f"{check.error:.3g}", f"{check.tolerance:.3g}", "ok" if check.ok else "MISS", check.note


def _base(given: Path | None) -> Path:
    base = given or read_settings().musetalk_base
    if base is None:
        raise typer.BadParameter("set MUSETALK_BASE to the folder of MuseTalk's weights, or give --base DIR")
    return base


def _aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Lines in columns; the last column is as long as it is."""
    widths = [max(len(cell) for cell in column) for column in list(zip(*rows, strict=True))[:-1]]
    for row in rows:
        yield "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()


def _row(report: FileReport) -> tuple[str, ...]:
    state = str(report.verdict)
    if report.size is None:
        state = "missing" if report.need.required else "missing (optional)"
    size = _size(report.official_size if report.size is None else report.size)
    if report.size is not None and report.official_size not in {None, report.size}:
        size = f"{report.size} instead of {report.official_size} bytes"
    return state, report.path, size, "" if report.size is None else report.sha256, f"{report.need.name}: {report.need.purpose}"


def _size(size: int | None) -> str:
    if size is None:
        return "size unknown"
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


@contextmanager
def _progress_bar() -> Iterator[Callable[[str, str, int, int], None]]:
    """A bar per file and stage on a terminal; elsewhere one line when each begins."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    on_terminal = sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), disable=not on_terminal) as bar:
        tasks = {}

        def progress(path: str, stage: str, done: int, total: int) -> None:
            name = f"{stage} {path}"
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total)
                if not on_terminal:
                    print(f"{name}, {_size(total)}", file=sys.stderr)
            bar.update(tasks[name], completed=done, total=total)

        yield progress
