"""The command line: gpuserver …, or python -m gpuserver …. What a command needs is imported when it runs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from gpuserver import __version__
from gpuserver.config import Settings, explain
from gpuserver.errors import AvatarExists, GpuserverError

if TYPE_CHECKING:
    from gpuserver.wire import QualityReport

if TYPE_CHECKING:
    from gpuserver.domain import Voice

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
avatars = typer.Typer(no_args_is_help=True, help="Create, list and delete avatars without a running server.")
app.add_typer(avatars, name="avatars")

_ONE_SENTENCE = "Recording."  # stands for a sound that is played once

Supervised = Annotated[bool, typer.Option("--supervised", hidden=True)]


def main(arguments: list[str] | None = None) -> None:
    """Run a command. Exit codes: 0 done, 1 it failed and a plain sentence said why, 2 wrong usage or settings."""
    try:
        app(arguments)
    except GpuserverError as error:
        print(error.detail, error.advice, sep="\n", file=sys.stderr)
        sys.exit(1)


@app.command()
def serve() -> None:
    """Start everything: the management API and the media server."""
    from gpuserver import unified_server

    unified_server.main(_settings(), lambda line: print(line, flush=True))


@app.command()
def management(supervised: Supervised = False) -> None:
    """Start the management API alone."""
    on_ready = _on_ready(supervised)
    from gpuserver import management_api

    management_api.main(_settings(), on_ready=on_ready)


@app.command()
def media(supervised: Supervised = False) -> None:
    """Start the media server alone."""
    on_ready = _on_ready(supervised)
    from gpuserver.media import server

    server.main(_settings(), on_ready=on_ready)


@app.command()
def render(
    out: Annotated[Path, typer.Argument(metavar="OUT.mp4", dir_okay=False)],
    text: Annotated[str | None, typer.Option(help="What is said.")] = None,
    audio: Annotated[Path | None, typer.Option(help="A sound that moves the lips, instead of a text.", exists=True, dir_okay=False)] = None,
    avatar: Annotated[str, typer.Option(metavar="ID", help="Who says it.")] = "demo",
    voice: Annotated[str | None, typer.Option(help="A voice by name; the settings' one if missing.")] = None,
) -> None:
    """Film an avatar that says a text or an audio file, by the same pipeline as in a call."""
    if (text is None) == (audio is None):
        raise typer.BadParameter("give either --text or --audio")
    if audio is not None:
        asyncio.run(_render_audio(_settings(), avatar, audio, out))
    elif text is not None:
        asyncio.run(_render_text(_settings(), avatar, text, voice, out))


async def _render_text(settings: Settings, avatar_id: str, text: str, voice_name: str | None, out: Path) -> None:
    from gpuserver.pipeline.voice import make_voice

    voice = make_voice(settings)
    voice.start()
    try:
        await _render(settings, avatar_id, text, voice, out, voice_name=voice_name)
    finally:
        await voice.aclose()


async def _render_audio(settings: Settings, avatar_id: str, audio: Path, out: Path) -> None:
    from gpuserver.media.recording import Recording, read_sound

    await _render(settings, avatar_id, _ONE_SENTENCE, Recording(read_sound(audio)), out)


async def _render(settings: Settings, avatar_id: str, text: str, voice: Voice, out: Path, *, voice_name: str | None = None) -> None:
    from gpuserver.media.film import render_film
    from gpuserver.musetalk.avatar_files import load_avatar
    from gpuserver.musetalk.avatar_manager import AvatarManager
    from gpuserver.musetalk.warp_engine import WarpEngine

    avatar = AvatarManager(settings).read(avatar_id, load_avatar)
    film = await render_film(avatar, WarpEngine(), voice, text, out, voice_name=voice_name)
    for notice in film.notices:
        print(notice, file=sys.stderr)
    print(f"{film.path}: {film.seconds:.1f} s")


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


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
    manager = AvatarManager(_settings())
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
    print(f"{created.message}: {created.avatar_id} in {created.avatar_path}")


@avatars.command(name="list")
def list_avatars() -> None:
    """List the avatars: id, length, size."""
    from gpuserver.musetalk.avatar_manager import AvatarManager

    for info in AvatarManager(_settings()).infos():
        print(f"{info.avatar_id}\t{info.seconds:.1f} s\t{info.width}x{info.height}")


@avatars.command()
def delete(avatar_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Delete an avatar."""
    from gpuserver.musetalk.avatar_manager import AvatarManager

    AvatarManager(_settings()).delete(avatar_id)


def _on_ready(supervised: bool) -> Callable[[], None] | None:
    """Where a supervisor waits: what tells it that this process serves. Ties the process's life to the supervisor's."""
    if not supervised:
        return None
    from gpuserver.web.lifeline import Lifeline

    return Lifeline().ready


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


def _settings() -> Settings:
    try:
        return Settings()
    except ValidationError as error:
        print("The settings are not valid:", explain(error), sep="\n", file=sys.stderr)
        raise typer.Exit(2) from error
