"""gpuserver avatars …: create, prepare, list, delete and prune avatars without a running server."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpuserver.cli_settings import read_settings
from gpuserver.errors import AvatarExists, AvatarNotFound

if TYPE_CHECKING:
    from gpuserver.wire import AvatarInfo, QualityReport

avatars = typer.Typer(no_args_is_help=True, help="Create, list, delete and prune avatars without a running server.")

_DURATION = re.compile(r"(?P<count>\d{1,5})(?P<unit>[hdw])")
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


def duration(text: str) -> timedelta:
    """12h, 30d, 2w. Raises typer.BadParameter."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a duration such as 12h, 30d or 2w")
    return timedelta(**{_UNITS[match["unit"]]: int(match["count"])})


@avatars.command()
def create(
    avatar_id: Annotated[str, typer.Argument(metavar="ID")] = "demo",
    video: Annotated[
        Path | None, typer.Argument(exists=True, dir_okay=False, readable=True, help="A video, or a JPEG, PNG or WebP.")
    ] = None,
    *,
    demo: Annotated[bool, typer.Option("--demo", help="From the bundled sample face instead of a video.")] = False,
    tutor_id: Annotated[str | None, typer.Option(help="Whose avatar it is.")] = None,
    apply_blur: Annotated[bool, typer.Option("--blur", help="Blur what is behind the person.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Swap an avatar that has this id.")] = False,
) -> None:
    """Turn a video or a still picture into an avatar. Ctrl-C ends it and leaves nothing."""
    from gpuserver.musetalk.avatar_manager import AvatarManager

    if demo == (video is not None):
        raise typer.BadParameter("give either a VIDEO or --demo")
    manager = AvatarManager(read_settings())
    manager.start()
    try:
        with _progress_bar() as progress:
            if video is None:
                created = manager.create_demo(avatar_id, replace=replace, progress=progress)
            else:
                created = manager.create_from_file(
                    avatar_id, video, apply_blur=apply_blur, tutor_id=tutor_id, replace=replace, progress=progress, analysed=_print_report
                )
    except AvatarExists as error:
        raise AvatarExists(error.detail, advice="Choose another ID, or add --replace.") from error
    print(f"{created.message.removesuffix('.')}: {created.avatar_id} in {created.avatar_path}")


@avatars.command(name="list")
def list_avatars(as_json: Annotated[bool, typer.Option("--json", help="All that is known, as JSON.")] = False) -> None:
    """List the avatars: a table for people, one line each with tabs when the output is not a terminal, nothing if there are none."""
    from gpuserver.musetalk.avatar_housekeeping import damaged
    from gpuserver.musetalk.avatar_manager import AvatarManager
    from gpuserver.wire import AvatarList

    manager = AvatarManager(read_settings())
    infos = manager.infos()
    if as_json:
        print(AvatarList(total=len(infos), avatars=infos).model_dump_json(indent=2))
    elif infos and sys.stdout.isatty():
        _print_table(infos)
    else:
        for info in infos:
            print(*_row(info), sep="\t")
    for avatar_id, fault in damaged(manager).items():
        print(f"{avatar_id} is damaged and cannot be shown: {fault} Remove it with: gpuserver avatars delete {avatar_id}", file=sys.stderr)


@avatars.command()
def prepare(avatar_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Prepare an avatar for MuseTalk now; else that happens in the background when a session first shows it. Ctrl-C ends it."""
    from gpuserver.musetalk.avatar_manager import AvatarManager

    manager = AvatarManager(read_settings())
    manager.start()
    with _progress_bar() as progress:
        made = manager.prepare_for_musetalk(avatar_id, progress=progress)
    print(f"{avatar_id} is prepared for MuseTalk." if made else f"{avatar_id} was prepared for MuseTalk before.")


@avatars.command()
def delete(avatar_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Delete an avatar."""
    from gpuserver.musetalk.avatar_manager import AvatarManager

    AvatarManager(read_settings()).delete(avatar_id)


@avatars.command()
def prune(
    unused_for: Annotated[timedelta, typer.Option(parser=duration, metavar="DURATION", help="Such as 12h, 30d or 2w.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete avatars that no session has used for a while: last use counts, or creation where there was none."""
    from gpuserver.musetalk.avatar_housekeeping import unused
    from gpuserver.musetalk.avatar_manager import AvatarManager
    from gpuserver.sessions_now import avatars_shown

    settings = read_settings()
    manager = AvatarManager(settings)
    before = datetime.now(UTC) - unused_for
    shown = avatars_shown(settings)
    print(shown.sentence, file=sys.stderr)
    old = [info for info in unused(manager.infos(), before) if info.avatar_id not in shown.avatar_ids]
    for info in old:
        print(*_row(info), sep="\t")
    total = sum(info.bytes for info in old)
    if not old or dry_run:
        print(f"{_count(old)} would be deleted, {_megabytes(total)}." if old else "No avatar has been unused for so long.")
        return
    if not yes:
        typer.confirm(f"Delete {_count(old)}, {_megabytes(total)}?", abort=True)
    deleted = [info for info in old if _delete_if_still_unused(manager.info, manager.delete, info, before)]
    print(f"{_count(deleted)} deleted, {_megabytes(sum(info.bytes for info in deleted))} freed.")


def _delete_if_still_unused(
    look: Callable[[str], AvatarInfo], delete_avatar: Callable[[str], None], info: AvatarInfo, before: datetime
) -> bool:
    """While somebody thought about the question, a session may have begun or someone else may have deleted the avatar."""
    from gpuserver.musetalk.avatar_housekeeping import unused

    try:
        if not unused([look(info.avatar_id)], before):
            return False
        delete_avatar(info.avatar_id)
    except AvatarNotFound:
        return False
    return True


def _row(info: AvatarInfo) -> tuple[str, ...]:
    """The first three are what scripts have relied on."""
    return (
        info.avatar_id,
        f"{info.seconds:.1f} s",
        f"{info.width}x{info.height}",
        f"{info.frames} frames",
        _megabytes(info.bytes),
        info.engine,
        f"created {_day(info.created_at)}",
        "never used" if info.last_used_at is None else f"used {_day(info.last_used_at)}",
    )


def _print_table(infos: list[AvatarInfo]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("id", "length", "picture", "frames", "size", "engine", "created", "last used", box=None)
    for info in infos:
        length, picture = f"{info.seconds:.1f} s", f"{info.width}x{info.height}"
        last_used = "never" if info.last_used_at is None else _day(info.last_used_at)
        table.add_row(
            info.avatar_id, length, picture, str(info.frames), _megabytes(info.bytes), info.engine, _day(info.created_at), last_used
        )
    Console().print(table)


def _count(infos: list[AvatarInfo]) -> str:
    return "1 avatar" if len(infos) == 1 else f"{len(infos)} avatars"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"


def _day(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"


def _print_report(report: QualityReport) -> None:
    """What the video is like, as soon as it is known: there is still time to press Ctrl-C and film another one."""
    if report.source_frames > 1:
        print(f"{report.used_frames / 25:.1f} of {report.source_frames / 25:.1f} s are used.", file=sys.stderr)
    print(f"The face is {report.face_width} pixels wide, the mouth {report.mouth_width}.", file=sys.stderr)
    for sentence in report.advice:
        print(f"- {sentence}", file=sys.stderr)


@contextmanager
def _progress_bar() -> Iterator[Callable[[str, float], None]]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(transient=True, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("starting", total=1.0)  # prints during the bar go above it
        yield lambda stage, done: bar.update(task, description=stage, completed=done)
