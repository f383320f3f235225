"""Prints the figures of the README: python bench/turn.py [--json FILE] [--quick]

All figures come from this machine's CPU. Clips are made from the bundled portrait; recordings given with --clip are added.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "temp/tests")]

import tiny_llm  # noqa: E402
from clips import Clip, write_clip  # noqa: E402 - found through the path above
from pydantic import SecretStr  # noqa: E402

from bench import latency, lips, parts  # noqa: E402
from bench.table import Figure, as_markdown, at_least, at_most, machine, write_json  # noqa: E402
from gpuserver.config import Settings  # noqa: E402
from gpuserver.musetalk.avatar_manager import AvatarManager  # noqa: E402
from gpuserver.musetalk.avatars.avatar_files import load_avatar  # noqa: E402
from gpuserver.pipeline.language_model import make_language_model  # noqa: E402
from gpuserver.pipeline.llm_echo import EchoModel  # noqa: E402


async def latency_figures(avatar_folder: Path, repeats: int) -> list[Figure]:
    found = await latency.measure(load_avatar(avatar_folder), EchoModel(), repeats)
    how = f"at the session's sound track, {repeats} sentences"
    stop = float(np.percentile(found.interrupt_to_silence, 99))
    first, text = statistics.median(found.sound_to_audible), statistics.median(found.text_to_audible)
    return [
        at_most("sound_to_audible_ms", "sound available → first audible sample leaves, p50", first, 80, "ms", how),
        at_most("text_to_audible_ms", "text in (`say`, hibari) → first audible sample, p50", text, 350, "ms", how),
        at_most("interrupt_to_silence_ms", "interrupt → last audible sample leaves, p99", stop, 60, "ms", how),
        at_most(
            "idle_bytes_changed", "mouth in silence: bytes that differ from the source", found.idle_bytes_changed, 0, "", "50 idle pictures"
        ),
    ]


async def language_model_figures(avatar_folder: Path, folder: Path, repeats: int) -> list[Figure]:
    """With a real, tiny model behind OpenAI's API on the loopback."""
    english = tuple(sentence for sentence in tiny_llm.SENTENCES if sentence.isascii())  # what hibari can speak
    with patch.object(tiny_llm, "SENTENCES", english), tiny_llm.tiny_llm(folder) as address:
        settings = Settings(
            llm="openai", openai_base_url=address, openai_api_key=SecretStr("none"), llm_default_model=tiny_llm.MODEL, llm_temperature=0
        )
        model = make_language_model(settings)
        model.start()
        try:
            found = await latency.ask_to_audible(load_avatar(avatar_folder), model, repeats)
        finally:
            await model.aclose()
    how = f"llama.cpp with a 2 MB model over the loopback, hibari, {repeats} questions"
    return [at_most("ask_to_audible_ms", "`ask` with a real model → first audible sample, p50", statistics.median(found), 400, "ms", how)]


def lip_figures(rows: Sequence[tuple[str, lips.LipFigures]]) -> list[Figure]:
    """The rows of the lip table as figures, for the JSON."""
    figures = []
    for name, found in rows:
        key, how = name.split()[0], f"{name}, mouth {found.mouth:.0f} px, face mesh on the decoded MP4, {found.frames} frames"
        closed = 100 * found.closed / found.closures
        figures += [
            at_most(f"lag_ms_{key}", "sound-to-mouth lag", abs(found.lag) * 1000, 40, "ms", how),
            at_least(f"correlation_{key}", "lip opening against visemes", found.correlation, 0.85, "", how),
            at_least(f"closed_percent_{key}", "lips closed on p, b, m", closed, 90, "%", how),
        ]
    return figures


def part_figures(manager: AvatarManager, folder: Path, quick: bool) -> list[Figure]:
    portrait = load_avatar(manager.folder("demo"))
    clip = write_clip(folder / "ten_seconds.mp4", Clip(seconds=10, width=640, height=360))
    speed = parts.warp_frames_per_second(portrait)
    creation = parts.creation_seconds(manager, clip, 1 if quick else 3)
    return [
        at_least("warp_fps", "warp engine, mouths per second and core", speed, 250, "", "512x512 portrait, median of 5 rounds of 100"),
        at_most("creation_seconds", "avatar from 10 s of 640x360 video", creation, 5, "s", "median of 3, child process included"),
    ]


async def management_figures(folder: Path) -> list[Figure]:
    ready, memory = [], []
    for _ in range(3):
        process = parts.ManagementProcess(parts.free_port(), folder)
        try:
            ready.append(await process.ready_seconds())
            memory.append(process.memory_mb())
        finally:
            process.stop()
    heavy = parts.heavy_modules_of_management()
    return [
        at_most("management_ready_seconds", "management process ready", statistics.median(ready), 1.5, "s", "start → /health, median of 3"),
        at_most("management_memory_mb", "management process, memory", statistics.median(memory), 120, "MB", "resident, when ready"),
        at_most("management_heavy_imports", "of torch, cv2, av, aiortc imported by it", len(heavy), 0, "", "sys.modules"),
    ]


async def measure(clips: Sequence[Path], quick: bool) -> tuple[list[Figure], list[tuple[str, lips.LipFigures]]]:
    """The figures without lips, and the rows of the lip table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manager = parts.demo_avatar(Settings(avatars_dir=folder / "avatars"))
        manager.create_demo()
        figures = await latency_figures(manager.folder("demo"), 10 if quick else 50)
        figures += await language_model_figures(manager.folder("demo"), folder, 5 if quick else 20)
        figures += part_figures(manager, folder, quick)
        figures += await management_figures(folder)
        for voice, (correlation, _) in (await lips.sound_by_voice(lips.TEXT)).items():
            what = f"lips driven by sound alone against by visemes, {voice}"
            key = f"sound_driven_correlation_{voice}"
            figures.append(at_least(key, what, correlation, 0.6, "", "opening of the lips, per frame"))
        return figures, await lips.measure(clips, [lips.TEXT], folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    parser.add_argument("--clip", type=Path, action="append", default=[], help="a recording to measure lips on, besides the portrait")
    options = parser.parse_args()
    figures, lip_rows = asyncio.run(measure(options.clip, options.quick))
    print(f"Measured on {machine()}.\n\n{as_markdown(figures)}\n")
    print(f"Lips, found again by the face mesh on the decoded film, saying: “{lips.TEXT}”\n\n{lips.as_table(lip_rows)}")
    if options.json:
        write_json([*figures, *lip_figures(lip_rows)], options.json)


if __name__ == "__main__":
    main()
