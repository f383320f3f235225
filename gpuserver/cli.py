"""The command line: gpuserver …, or python -m gpuserver …. What a command needs is imported when it runs."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpuserver import __version__
from gpuserver.cli_avatars import avatars
from gpuserver.cli_doctor import doctor
from gpuserver.cli_files import writing
from gpuserver.cli_models import models
from gpuserver.cli_settings import read_settings
from gpuserver.config import Settings
from gpuserver.errors import AvatarNotFound, GpuserverError

if TYPE_CHECKING:
    from gpuserver.domain import Voice

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="A server for talking digital humans.")
app.add_typer(avatars, name="avatars")
app.add_typer(models, name="models")
app.command()(doctor)

_ONE_SENTENCE = "Recording."  # stands for a sound that is played once

Supervised = Annotated[bool, typer.Option("--supervised", hidden=True)]


def _show_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """Run a command. Exit codes: 0 done, 1 it failed and a plain sentence said why, 2 wrong usage or settings."""
    try:
        app(arguments)
    except GpuserverError as error:
        advice = "`gpuserver avatars list` shows the avatars there are." if isinstance(error, AvatarNotFound) else error.advice
        print(error.detail, advice, sep="\n", file=sys.stderr)
        sys.exit(1)


@app.command()
def serve() -> None:
    """Start everything: the management API and the media server."""
    from gpuserver import unified_server

    unified_server.main(read_settings(), lambda line: print(line, flush=True))


@app.command()
def management(supervised: Supervised = False) -> None:
    """Start the management API alone."""
    on_ready = _on_ready(supervised)
    from gpuserver import management_api

    management_api.main(read_settings(quiet=supervised), on_ready=on_ready)


@app.command()
def media(
    supervised: Supervised = False,
    *,
    chosen: Annotated[bool, typer.Option("--chosen-python", hidden=True)] = False,
    worker: Annotated[int, typer.Option(hidden=True)] = 1,
    socket: Annotated[Path | None, typer.Option(help="Of a worker.", hidden=True)] = None,
    renderer: Annotated[list[Path] | None, typer.Option(help="Sockets of the processes that draw for it.", hidden=True)] = None,
) -> None:
    """Start the media server alone, in the Python of MUSETALK_CONDA_ENV if it is set and can do it; MEDIA_WORKERS processes of it."""
    from gpuserver.interpreter import OWN, choose_interpreter, take_over

    settings = read_settings(quiet=supervised or chosen)
    interpreter = OWN if chosen else choose_interpreter(settings.musetalk_conda_env)
    take_over(interpreter, ["media", "--chosen-python", *(["--supervised"] if supervised else [])])
    on_ready = _on_ready(supervised)
    if socket is None and settings.media_workers > 1:
        from gpuserver.media_router import server as router

        router.main(settings, on_ready=on_ready, interpreter=interpreter)
        return
    from gpuserver.media import server

    place = None if socket is None else server.Worker(worker, socket, tuple(renderer or ()))
    server.main(settings, on_ready=on_ready, interpreter=interpreter, worker=place)


@app.command(hidden=True)
def renderer(listening: Annotated[int, typer.Option(help="File descriptor of a socket.")]) -> None:
    """Draw mouths for media workers; started by the router in front of them."""
    from gpuserver.media_router import renderer_process
    from gpuserver.web.lifeline import Lifeline

    renderer_process.main(read_settings(quiet=True), listening, on_ready=Lifeline().ready)


@app.command()
def openapi(folder: Annotated[Path, typer.Argument(help="Where to write both documents.", file_okay=False)] = Path("docs")) -> None:
    """Write openapi-management.json and openapi-media.json, as /openapi.json serves them."""
    from gpuserver.openapi_documents import write_documents

    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for path in write_documents(folder):
            print(path)


@app.command()
def gateway(
    workers: Annotated[int, typer.Option(min=1, max=64, help="How many processes share the port.")] = 1,
    share_port: Annotated[bool, typer.Option("--share-port", hidden=True)] = False,
    supervised: Supervised = False,
) -> None:
    """Start the Avatar Service alone: chat, avatars and the WebRTC proxy in front of a media server."""
    on_ready = _on_ready(supervised)
    if workers > 1:
        from gpuserver import gateway_workers

        gateway_workers.main(read_settings(), workers, lambda line: print(line, flush=True))
        return
    from gpuserver.gateway import server

    server.main(read_settings(quiet=supervised), share_port=share_port, on_ready=on_ready)


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
        asyncio.run(_render_audio(read_settings(), avatar, audio, out))
    elif text is not None:
        asyncio.run(_render_text(read_settings(), avatar, text, voice, out))


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
    import structlog
    from rich.console import Console

    from gpuserver.media.film import render_film
    from gpuserver.musetalk.avatar_manager import AvatarManager
    from gpuserver.musetalk.avatars.avatar_files import load_avatar
    from gpuserver.musetalk.warp.warp_engine import WarpEngine

    avatar = AvatarManager(settings).read(avatar_id, load_avatar)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))  # the film's notices say it all
    with writing(out), Console(stderr=True).status("filming") as status:  # on a terminal; else silent
        film = await render_film(
            avatar,
            WarpEngine(),
            voice,
            text,
            out,
            voice_name=voice_name,
            filmed=lambda seconds: status.update(f"filming: {seconds:.0f} s"),
        )
    for notice in film.notices:
        print(notice, file=sys.stderr)
    print(f"{film.path}: {film.seconds:.1f} s")


def _on_ready(supervised: bool) -> Callable[[], None] | None:
    """Where a supervisor waits: what tells it that this process serves and lives. Ties the process's life to the supervisor's."""
    if not supervised:
        return None
    from gpuserver.web.lifeline import Lifeline

    lifeline = Lifeline()

    def on_ready() -> None:
        lifeline.ready()
        lifeline.beat()

    return on_ready
