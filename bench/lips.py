"""Measures lips: how well they follow the visemes that drive them, and whether they close on p, b and m.

    python bench/lips.py [CLIP …] [--text TEXT …] [--vp8 KBIT] [--tracked] [--keep FOLDER]

The bundled portrait and each clip become avatars that say the text into an MP4 (H.264, crf 18), as `gpuserver render` does. The
MP4 is decoded and the lips are found in its pictures with the face mesh, each picture looked at afresh; nothing is read from
the engine. One row per clip; faces whose mouth is narrower than 48 pixels stand in rows of their own, after the others.
--vp8 also measures the film as a call would show it, and --tracked as a finder sees it that follows the face from picture to picture.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

from gpuserver.config import Settings
from gpuserver.domain import FPS, FRAME_SECONDS, Avatar, TimedViseme, Viseme, Voice
from gpuserver.media.film import FilmReport, render_film
from gpuserver.musetalk.avatar_manager import AvatarManager
from gpuserver.musetalk.avatars.avatar_files import load_avatar
from gpuserver.musetalk.vision.faces import FaceFinder
from gpuserver.musetalk.vision.landmarks import LOWER_LIP_CENTRE, UPPER_LIP_CENTRE, eye_distance, mouth_width
from gpuserver.musetalk.warp.mouth_listener import MouthListener
from gpuserver.musetalk.warp.mouth_shape import Part
from gpuserver.musetalk.warp.warp_engine import WarpEngine
from gpuserver.pipeline.voice_espeak import EspeakVoice, is_installed
from gpuserver.pipeline.voice_hibari import HibariVoice

TEXT = (
    "Good morning. Bob and Mary make a map of the moon. Please bring my paper to the new room. "
    "Peter Piper picked a peck of pickled peppers, maybe by the bamboo pump."
)
# Texts with names, numbers and few closures; the looks of the mouth were not chosen by them.
OTHER_TEXTS = (
    "Emma Brown was born on the fifth of May 1987 in Birmingham. She paid 46 pounds and 20 pence for a map of Bombay.",
    "The weather is lovely today, so we could walk along the river and watch the boats before supper.",
)
LAG_WINDOW = 0.2  # seconds to each side in which the best lag is looked for
CLOSED = 0.15  # of the clip's largest gap
SMALL_MOUTH = 48  # pixels

# How far each sound opens the lips, 0..1, by phonetics and not by the engine's own table.
OPENNESS = {
    Viseme.SIL: 0.0, Viseme.PP: 0.0, Viseme.FF: 0.1, Viseme.TH: 0.3, Viseme.DD: 0.25, Viseme.KK: 0.4, Viseme.CH: 0.2, Viseme.SS: 0.15,
    Viseme.NN: 0.3, Viseme.RR: 0.3, Viseme.AA: 1.0, Viseme.E: 0.7, Viseme.IH: 0.45, Viseme.OH: 0.75, Viseme.OU: 0.35,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class LipFigures:
    """lag: seconds, positive when the lips are late. closed of closures: p, b, m on which the lips met."""

    frames: int
    mouth: float  # median width in pixels
    lag: float
    correlation: float  # at that lag
    correlation_at_once: float  # at lag 0
    closed: int
    closures: int
    largest: float  # gap in mouth widths


@dataclass(frozen=True, slots=True)
class Viewing:
    """How a film is looked at. vp8: kbit/s of a second encoding, as in a call. tracked: the face is followed, not found afresh."""

    vp8: int | None = None
    tracked: bool = False

    def __str__(self) -> str:
        return ("" if self.vp8 is None else f", VP8 {self.vp8} kbit/s") + (", tracked" if self.tracked else "")


def lip_gaps(pictures: Iterable[NDArray[np.uint8]], *, tracked: bool = False) -> tuple[NDArray[np.float64], float]:
    """The gap between the inner lips in each RGB picture, in median mouth widths (NaN where no face), and that width in pixels."""
    finder, gaps, widths, face = FaceFinder(), [], [], None
    for picture in pictures:
        face = finder.find(picture, face.landmarks if tracked and face is not None else None)
        if face is None:
            gaps.append(np.nan)
            continue
        gap = np.linalg.norm(face.landmarks[LOWER_LIP_CENTRE] - face.landmarks[UPPER_LIP_CENTRE])
        gaps.append(float(gap) / eye_distance(face.landmarks))  # the eyes do not move with the lips, the corners do
        widths.append((mouth_width(face.landmarks), eye_distance(face.landmarks)))
    width, eyes = np.median(np.array(widths), axis=0)
    return np.array(gaps) * eyes / width, float(width)


def expected_opening(visemes: Sequence[TimedViseme], times: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the visemes ask for at each time, 0..1, each sound's step rounded over 120 ms as lips do."""
    grid = np.arange(visemes[0].start - 0.5, visemes[-1].end + 0.5, 0.005)
    steps = np.zeros(len(grid))
    for viseme in visemes:
        steps[(grid >= viseme.start) & (grid < viseme.end)] = OPENNESS[viseme.viseme]
    window = np.hanning(25)
    return np.interp(times, grid, np.convolve(steps, window / window.sum(), "same"))


def compare(gaps: NDArray[np.float64], width: float, visemes: Sequence[TimedViseme], start: float = 0.0) -> LipFigures:
    """Figures of a clip. gaps: per 40 ms frame, shown from start + i * 40 ms on the visemes' clock; each is taken at its middle."""
    times = start + (np.arange(len(gaps)) + 0.5) * FRAME_SECONDS
    seen = np.isfinite(gaps) & (times > visemes[0].start) & (times < visemes[-1].end)
    lags = np.arange(-LAG_WINDOW, LAG_WINDOW + 1e-9, 0.01)
    correlations = [float(np.corrcoef(gaps[seen], expected_opening(visemes, times[seen] - lag))[0, 1]) for lag in lags]
    best = int(np.argmax(correlations))
    largest = float(np.nanmax(gaps[seen]))
    closures = [v for v in visemes if v.viseme is Viseme.PP]
    shown = [gaps[(times + FRAME_SECONDS / 2 > v.start) & (times - FRAME_SECONDS / 2 < v.end)] for v in closures]
    closed = sum(bool(len(part)) and float(np.nanmin(part)) < CLOSED * largest for part in shown)
    return LipFigures(len(gaps), width, float(lags[best]), correlations[best], correlations[len(lags) // 2], closed, len(closures), largest)


def decoded(film: Path) -> Iterator[NDArray[np.uint8]]:
    """The RGB pictures of a video file."""
    import av

    with av.open(str(film)) as container:
        for frame in container.decode(video=0):
            yield np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


def through_vp8(pictures: Iterable[NDArray[np.uint8]], kbit: int) -> Iterator[NDArray[np.uint8]]:
    """The pictures as a browser would see them: VP8 with a real-time encoder's settings (those of aiortc)."""
    import av

    encoder, decoder = av.CodecContext.create("libvpx", "w"), av.CodecContext.create("vp8", "r")
    for number, picture in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = number, Fraction(1, FPS)
        if number == 0:
            encoder.width, encoder.height, encoder.pix_fmt, encoder.bit_rate = frame.width, frame.height, "yuv420p", kbit * 1000
            encoder.time_base, encoder.framerate, encoder.gop_size = Fraction(1, FPS), Fraction(FPS), 3000
            encoder.options = {"deadline": "realtime", "cpu-used": "-6", "lag-in-frames": "0", "minrate": "0", "undershoot-pct": "100"}
        for packet in encoder.encode(frame):
            for seen in decoder.decode(packet):
                yield np.asarray(seen.to_ndarray(format="rgb24"), np.uint8)


async def film(avatar: Avatar, text: str, out: Path) -> FilmReport:
    """The avatar says the text in hibari's voice, drawn by the warp engine."""
    voice = HibariVoice()
    try:
        return await render_film(avatar, WarpEngine(), voice, text, out)
    finally:
        await voice.aclose()


def figures_of(report: FilmReport, viewing: Viewing = Viewing()) -> LipFigures:
    """The figures of a film that render_film made."""
    pictures = decoded(report.path)
    seen = pictures if viewing.vp8 is None else through_vp8(pictures, viewing.vp8)
    gaps, width = lip_gaps(seen, tracked=viewing.tracked)
    return compare(gaps, width, report.visemes)


async def sound_against_visemes(text: str, voice: Voice) -> tuple[float, float]:
    """How well lips driven by the sound alone do what the visemes of the same sound ask for: correlation, and its lag in seconds."""
    pieces = [piece async for piece in voice.speak(text)]
    known, heard = MouthListener(), MouthListener()
    wanted = np.concatenate([*(known.hear(piece) for piece in pieces), known.finish()])[:, Part.OPENING]
    made = np.concatenate([*(heard.hear(replace(piece, visemes=None)) for piece in pieces), heard.finish()])[:, Part.OPENING]
    lags = range(-3, 4)
    correlations = [float(np.corrcoef(wanted[3:-3], made[3 + lag : len(made) - 3 + lag])[0, 1]) for lag in lags]
    best = int(np.argmax(correlations))
    return correlations[best], lags[best] * FRAME_SECONDS


async def sound_by_voice(text: str) -> dict[str, tuple[float, float]]:
    """sound_against_visemes of every voice here that knows its visemes."""
    found: dict[str, tuple[float, float]] = {}
    voices: list[Voice] = [HibariVoice(), *([EspeakVoice()] if is_installed() else [])]
    for voice in voices:
        try:
            found[voice.name] = await sound_against_visemes(text, voice)
        finally:
            await voice.aclose()
    return found


def as_table(rows: Sequence[tuple[str, LipFigures]]) -> str:
    """A Markdown table, small mouths last."""
    lines = [
        "| clip | mouth | lag | correlation | p/b/m closed | largest gap |",
        "|---|---|---|---|---|---|",
    ]
    for small in (False, True):
        for name, f in rows:
            if (f.mouth < SMALL_MOUTH) == small:
                lines.append(
                    f"| {name} | {f.mouth:.0f} px{' (small)' if small else ''} | {f.lag * 1000:+.0f} ms | {f.correlation:.2f} "
                    f"| {f.closed} of {f.closures} ({f.closed / max(f.closures, 1):.0%}) | {f.largest:.2f} widths |"
                )
    return "\n".join(lines)


async def measure(
    clips: Sequence[Path], texts: Sequence[str], keep: Path, viewings: Sequence[Viewing] = (Viewing(),)
) -> list[tuple[str, LipFigures]]:
    """Rows for the bundled portrait, whose lips are parted at rest, and for each clip. The films are left in `keep`."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        manager = AvatarManager(Settings(avatars_dir=Path(folder)))
        manager.start()
        manager.create_demo("portrait")
        for number, clip in enumerate(clips):
            manager.create_from_file(f"clip_{number}", clip)
        names = {"portrait": "portrait (lips parted at rest)"} | {f"clip_{number}": clip.stem for number, clip in enumerate(clips)}
        for avatar_id, name in names.items():
            for number, text in enumerate(texts, 1):
                which = f", text {number}" if len(texts) > 1 else ""
                out = keep / f"{name.split()[0]}{f'_{number}' if which else ''}.mp4"
                report = await film(load_avatar(manager.folder(avatar_id)), text, out)
                rows += [(f"{name}{which}{viewing}", figures_of(report, viewing)) for viewing in viewings]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", type=Path, help="videos of a face; the bundled portrait is always measured")
    parser.add_argument("--text", action="append", help="what is said; several times for several films")
    parser.add_argument("--others", action="store_true", help="also say two more texts")
    parser.add_argument("--vp8", type=int, metavar="KBIT", help="also measure after VP8 at this bit rate")
    parser.add_argument("--tracked", action="store_true", help="also measure with a finder that follows the face")
    parser.add_argument("--keep", type=Path, help="leave the films in this folder")
    options = parser.parse_args()
    texts = [*(options.text or [TEXT]), *(OTHER_TEXTS if options.others else ())]
    viewings = [Viewing()]
    viewings += [Viewing(vp8=options.vp8)] if options.vp8 else []
    viewings += [Viewing(tracked=True)] if options.tracked else []
    viewings += [Viewing(options.vp8, True)] if options.vp8 and options.tracked else []
    with tempfile.TemporaryDirectory() as folder:
        keep = options.keep or Path(folder)
        keep.mkdir(parents=True, exist_ok=True)
        rows = asyncio.run(measure(options.clips, texts, keep, viewings))
    print("\n".join(f"Text {number}: {text}" for number, text in enumerate(texts, 1)))
    print(f"Lag: best within +-{LAG_WINDOW * 1000:.0f} ms, positive: lips late. Closed: gap below {CLOSED:.0%} of the clip's largest.\n")
    print(as_table(rows))
    for text in texts:
        for voice, (correlation, lag) in asyncio.run(sound_by_voice(text)).items():
            print(f"\nLips driven by {voice}'s sound alone against by its visemes: correlation {correlation:.2f} at {lag * 1000:+.0f} ms.")


if __name__ == "__main__":
    main()
