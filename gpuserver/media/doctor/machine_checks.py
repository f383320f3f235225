"""This machine: the disk, programs, the GPU, MuseTalk's weights, the folders and the public address."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import aiohttp

from gpuserver.config import Settings
from gpuserver.interpreter import choose_interpreter
from gpuserver.media.doctor.checks import CHECK_SECONDS, Check, failed, off, ok
from gpuserver.musetalk.weight_files.model_files import describe_missing, installed_version
from gpuserver.wire import Finding

DISK, FOLDERS, FFMPEG, GPU, PYTHON, WEIGHTS, PUBLIC = (
    "Disk",
    "Video folders",
    "ffmpeg",
    "GPU",
    "MUSETALK_CONDA_ENV",
    "Weights",
    "PUBLIC_URL",
)
ROOM_BYTES = 2 << 30  # one long avatar, its upload and the logs
PUBLIC_SECONDS = 5.0

_TORCH = """
import torch
print(torch.__version__, torch.cuda.is_available() and torch.cuda.get_device_name() or "")
"""


def machine_checks(settings: Settings) -> list[Check]:
    def in_thread(look: Callable[[Settings], Sequence[Finding]]) -> Callable[[], asyncio.Future[Sequence[Finding]]]:
        return lambda: asyncio.ensure_future(asyncio.to_thread(look, settings))

    return [
        Check(DISK, in_thread(_disk), needed=True),
        Check(FOLDERS, in_thread(_folders)),
        Check(FFMPEG, in_thread(_ffmpeg)),
        Check(GPU, lambda: _gpu(settings)),
        Check(PYTHON, in_thread(_python)),
        Check(WEIGHTS, in_thread(_weights)),
        Check(PUBLIC, lambda: _public(settings)),
    ]


def _disk(settings: Settings) -> Sequence[Finding]:
    folder = _nearest(settings.avatars_dir)
    if not os.access(folder, os.W_OK | os.X_OK):
        return [failed(DISK, f"{settings.avatars_dir} cannot be written.", "Give this user the right to, or set AVATARS_DIR.", needed=True)]
    free = shutil.disk_usage(folder).free
    if free < ROOM_BYTES:
        advice = "Delete avatars that are not needed, or set AVATARS_DIR to a larger disk."
        return [failed(DISK, f"{free / 1e9:.1f} GB are free where the avatars are.", advice, needed=free < ROOM_BYTES // 10)]
    return [ok(DISK, f"{free / 1e9:.0f} GB are free where the avatars are.")]


def _folders(settings: Settings) -> Sequence[Finding]:
    findings = []
    for folder in settings.video_dirs:
        if not folder.is_dir():
            findings.append(off(FOLDERS, f"{folder} is not there; no video_path can name a file in it."))
        elif not os.access(folder, os.R_OK | os.X_OK):
            findings.append(failed(FOLDERS, f"{folder} cannot be read.", "Allow this user to, or change VIDEO_DIRS.", needed=False))
        else:
            findings.append(ok(FOLDERS, f"Videos in {folder} can be named by video_path."))
    return findings


def _ffmpeg(settings: Settings) -> Sequence[Finding]:
    found = shutil.which(settings.ffmpeg_path)
    if found is None:
        return [off(FFMPEG, f"{settings.ffmpeg_path} is not installed; nothing needs it but videos that PyAV cannot decode.")]
    return [ok(FFMPEG, f"{found} is there.")]


async def _gpu(settings: Settings) -> Sequence[Finding]:
    """In a process of its own: importing torch here would cost seconds and hundreds of megabytes."""
    if not settings.enable_musetalk:
        return [off(GPU, "ENABLE_MUSETALK is off: lips are drawn on the CPU, no GPU is needed.")]
    advice = "Until torch can use a GPU, the warp engine draws the lips. Install the driver, then: pip install 'gpuserver[musetalk]'."
    interpreter = await asyncio.to_thread(choose_interpreter, settings.musetalk_conda_env)
    code, said = await _output(interpreter.path, "-c", _TORCH)
    if code != 0:
        return [failed(GPU, f"torch cannot be imported: {_last_line(said)}.", advice, needed=False)]
    version, _, device = said.strip().partition(" ")
    if not device:
        return [failed(GPU, f"torch {version} sees no GPU.", advice, needed=False)]
    return [ok(GPU, f"torch {version} can use {device}.{await _driver()}")]


async def _driver() -> str:
    if shutil.which("nvidia-smi") is None:
        return ""
    code, said = await _output("nvidia-smi", "--query-gpu=driver_version,memory.free", "--format=csv,noheader")
    return f" Driver and free memory: {said.strip()}." if code == 0 else ""


def _python(settings: Settings) -> Sequence[Finding]:
    if settings.musetalk_conda_env is None:
        return [off(PYTHON, "It is not set: the server's own Python does the work.")]
    shortfall = choose_interpreter(settings.musetalk_conda_env, seconds=CHECK_SECONDS - 1).shortfall
    if shortfall is not None:
        return [failed(PYTHON, shortfall, "Install gpuserver's requirements there, or leave the setting out.", needed=False)]
    return [ok(PYTHON, f"{settings.musetalk_conda_env} can run the media server.")]


def _weights(settings: Settings) -> Sequence[Finding]:
    if not settings.enable_musetalk:
        return [off(WEIGHTS, "ENABLE_MUSETALK is off: MuseTalk's weights are not needed.")]
    missing = describe_missing(settings.musetalk_base)
    version = None if settings.musetalk_base is None else installed_version(settings.musetalk_base)
    if version is not None:
        return [ok(WEIGHTS, f"MuseTalk {version} is in {settings.musetalk_base}. `gpuserver models check --hash` compares every byte.")]
    return [failed(WEIGHTS, missing or "MuseTalk's weights are not complete.", "gpuserver models download", needed=False)]


async def _public(settings: Settings) -> Sequence[Finding]:
    if settings.public_url is None:
        return [off(PUBLIC, "It is not set: links are made from the address that a request was sent to.")]
    address = settings.public_url.rstrip("/") + "/health"
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PUBLIC_SECONDS)) as http, http.get(address) as answer:
            said = (await answer.content.read(4096)).decode(errors="replace")
    except (aiohttp.ClientError, TimeoutError) as error:
        advice = "Check the tunnel or proxy. Where this machine cannot reach itself by that name, try from outside."
        return [failed(PUBLIC, f"{address} does not answer: {type(error).__name__}.", advice, needed=False)]
    if '"gpuserver"' not in said:
        return [failed(PUBLIC, f"{address} answers, but is not this server.", "Correct PUBLIC_URL, or where it leads to.", needed=False)]
    return [ok(PUBLIC, f"{settings.public_url} leads to this server.")]


async def _output(*command: str) -> tuple[int, str]:
    """The exit code and what the program printed. It ends with its check's time."""
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, said.decode(errors="replace")


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")[:200]


def _nearest(folder: Path) -> Path:
    """The folder, or what is there of it."""
    return next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
