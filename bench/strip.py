"""Draws a strip of mouths to look at: one row of still visemes, and one row of consecutive frames per word.

    python bench/strip.py OUT.png [CLIP] [--words map moon paper] [--frames 14]

The avatar, from a clip or from the bundled portrait, says each word alone into an MP4, as `gpuserver render` does; a row begins with
the first frame of speech. Under each picture stands the sound that is heard in its middle.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import lips
from gpuserver.config import Settings
from gpuserver.domain import FRAME_SECONDS, Avatar, AvatarFrame, Generation, MouthJob, TimedViseme, Viseme
from gpuserver.musetalk.avatar_manager import AvatarManager
from gpuserver.musetalk.avatars.avatar_files import load_avatar
from gpuserver.musetalk.rendering.compositor import compose
from gpuserver.musetalk.vision.landmarks import CHIN, LOWER_LIP_CENTRE, UPPER_LIP_CENTRE
from gpuserver.musetalk.warp.visemes import frame_rows
from gpuserver.musetalk.warp.warp_engine import WarpEngine

CELL, LABEL = 96, 16  # pixels: the side of a picture, and the height of the text under it

Picture = NDArray[np.uint8]


def cell(rgb: Picture, frame: AvatarFrame, label: str) -> Picture:
    """The lower half of the face, enlarged, with a label."""
    points = frame.landmarks
    middle = points[[UPPER_LIP_CENTRE, LOWER_LIP_CENTRE]].mean(0)
    side = 2.3 * float(np.linalg.norm(points[CHIN] - middle))
    scale = CELL / side
    place = np.array([[scale, 0, CELL / 2 - scale * middle[0]], [0, scale, CELL * 0.48 - scale * middle[1]]])
    shrinks = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    face = cv2.warpAffine(rgb, place, (CELL, CELL), flags=shrinks, borderMode=cv2.BORDER_REPLICATE)
    canvas = np.full((CELL + LABEL, CELL, 3), 255, np.uint8)
    canvas[:CELL] = face
    cv2.putText(canvas, label, (4, CELL + LABEL - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return np.asarray(canvas, np.uint8)


def still_visemes(avatar: Avatar) -> list[Picture]:
    """One picture per viseme, held long enough to be reached, all on the avatar's first frame."""
    engine, frame, cells = WarpEngine(), avatar.frame_at(0), []
    for viseme in Viseme:
        row = frame_rows([TimedViseme(viseme, 0.0, 1.0)], 12, 1)[0]
        picture = compose(frame, engine.render([MouthJob(frame, row, 0.0, Generation(1))])[0])
        cells.append(cell(np.asarray(cv2.cvtColor(picture, cv2.COLOR_YUV2RGB_I420), np.uint8), frame, viseme.name))
    return cells


async def word(avatar: Avatar, text: str, count: int, folder: Path) -> list[Picture]:
    """`count` consecutive frames of the film of a word, from the beginning of the speech."""
    report = await lips.film(avatar, f"{text}.", folder / "word.mp4")
    first = round(report.speech_from / FRAME_SECONDS)
    pictures = islice(lips.decoded(report.path), first, first + count)
    cells = []
    for number, rgb in enumerate(pictures, first):
        middle = (number + 0.5) * FRAME_SECONDS
        heard = next((v.viseme.name for v in report.visemes if v.start <= middle < v.end), "")
        cells.append(cell(rgb, avatar.frame_at(number), heard))
    return cells


async def strip(avatar: Avatar, words: Sequence[str], count: int, folder: Path) -> Picture:
    """All rows under each other, the shorter ones filled with white."""
    rows = [still_visemes(avatar), *[await word(avatar, each, count, folder) for each in words]]
    longest = max(map(len, rows))
    blank = np.full((CELL + LABEL, CELL, 3), 255, np.uint8)
    return np.vstack([np.hstack([*row, *[blank] * (longest - len(row))]) for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("clip", nargs="?", type=Path, help="a video of a face; the bundled portrait if missing")
    parser.add_argument("--words", nargs="+", default=["map", "moon", "paper"])
    parser.add_argument("--frames", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        manager = AvatarManager(Settings(avatars_dir=Path(name) / "avatars"))
        manager.start()
        if options.clip is None:
            manager.create_demo("face")
        else:
            manager.create_from_file("face", options.clip)
        picture = asyncio.run(strip(load_avatar(manager.folder("face")), options.words, options.frames, Path(name)))
    cv2.imwrite(str(options.out), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    print(f"{options.out}: {picture.shape[1]}x{picture.shape[0]}")


if __name__ == "__main__":
    main()
