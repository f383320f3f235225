"""Measures how visible the splice between idle and speech is: python bench/splice.py [CLIP …]

The mouth region's mean change of grey level from one picture to the next, largest around each splice, against the mean while speaking.
What the avatar's own loop changes there at the same place is in a column of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

from gpuserver.config import Settings
from gpuserver.domain import FPS, Avatar, Box, Bytes2D, Generation, Pcm
from gpuserver.media.film import FilmStage
from gpuserver.musetalk.avatar_manager import AvatarManager
from gpuserver.musetalk.avatars.avatar_files import load_avatar
from gpuserver.musetalk.renderer import Renderer
from gpuserver.musetalk.rendering.compositor import FADE_FRAMES, planes
from gpuserver.musetalk.warp.mouth_geometry import measure_mouth
from gpuserver.musetalk.warp.warp_engine import WarpEngine
from gpuserver.pipeline.delivery import Scene
from gpuserver.pipeline.llm_echo import EchoModel
from gpuserver.pipeline.studio import Studio
from gpuserver.pipeline.turn import Line, Turn
from gpuserver.pipeline.voice_hibari import HibariVoice

TEXT = "Good morning. Bob and Mary make a map of the moon, and bring my paper to the new room."
REACH = FADE_FRAMES + 1  # pictures to each side of a splice


@dataclass(frozen=True, slots=True)
class SpliceFigures:
    """Mean grey levels per picture. begin, end: the largest step around the splice; *_idle: what the loop itself does there."""

    speaking: float
    begin: float
    end: float
    begin_idle: float
    end_idle: float


async def shoot(avatar: Avatar, lead_in: int) -> tuple[list[Bytes2D], int]:
    """The pictures of an answer after `lead_in` idle ones and before 25 more, and where its speech ends."""
    pictures: list[Bytes2D] = []
    voice, engine = HibariVoice(), WarpEngine()
    renderer = Renderer(engine)
    renderer.start()

    def take(picture: Bytes2D, _sound: Pcm) -> None:
        pictures.append(picture)

    try:
        stage = FilmStage(avatar, take)
        stage.idle(lead_in)
        line = Line(TEXT, True, Generation(1), asyncio.get_running_loop().time())
        await Turn(line, Studio(EchoModel(), voice, engine, renderer), Scene(avatar, stage), lambda event: None).run()
        end = stage.frames
        stage.idle(FPS)
    finally:
        await asyncio.to_thread(renderer.close)
        await voice.aclose()
    return pictures, end


def steps(pictures: list[Bytes2D], region: Box) -> NDArray[np.float64]:
    """Mean change of grey level in the region from each picture to the next."""
    mouths = [planes(picture)[0][region.top : region.bottom, region.left : region.right].astype(int) for picture in pictures]
    return np.array([float(np.abs(after - before).mean()) for before, after in pairwise(mouths)])


def around(changes: NDArray[np.float64], splice: int) -> float:
    return float(changes[max(splice - 2, 0) : splice + REACH].max())


async def figures(avatar: Avatar, lead_in: int = 20) -> SpliceFigures:
    pictures, end = await shoot(avatar, lead_in)
    region = measure_mouth(avatar.frame_at(0)).box
    changes = steps(pictures, region)
    own = steps([avatar.frame_at(position).picture for position in range(len(pictures))], region)
    speaking = float(changes[lead_in + REACH : end - REACH].mean())
    return SpliceFigures(speaking, around(changes, lead_in), around(changes, end), around(own, lead_in), around(own, end))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", type=Path)
    options = parser.parse_args()
    print("| clip | speaking | begin | end | loop itself there |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        manager = AvatarManager(Settings(avatars_dir=Path(folder)))
        manager.start()
        manager.create_demo("portrait")
        for clip in options.clips:
            manager.create_from_file(clip.stem, clip)
        for name in ["portrait", *(clip.stem for clip in options.clips)]:
            for lead_in in (20, 45):
                found = asyncio.run(figures(load_avatar(manager.folder(name)), lead_in))
                print(
                    f"| {name}, {lead_in} | {found.speaking:.1f} | {found.begin:.1f} ({found.begin / found.speaking:.1f}x) "
                    f"| {found.end:.1f} ({found.end / found.speaking:.1f}x) | {found.begin_idle:.1f}, {found.end_idle:.1f} |"
                )


if __name__ == "__main__":
    main()
