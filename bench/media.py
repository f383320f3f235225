"""Prints what sessions cost and how they arrive, ours beside stock aiortc in the same run: python bench/media.py [--json FILE] [--quick]

CPU is the media process's own, per session and 25 pictures per second; the browsers are another process that decrypts and counts.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "temp/tests")]

from browser import chromium  # noqa: E402
from clips import Clip, write_clip  # noqa: E402 - found through the path above
from running_server import running_server  # noqa: E402
from viewer import Viewer  # noqa: E402

from bench import media_load, parts, picture_quality  # noqa: E402
from bench.lip_sync import lags  # noqa: E402
from bench.media_load import Load  # noqa: E402
from bench.spoken_frames import spoken_frames  # noqa: E402
from bench.table import Figure, at_least, at_most, machine, write_json  # noqa: E402
from gpuserver.config import Settings  # noqa: E402
from gpuserver.media.bitrate import LADDER  # noqa: E402
from gpuserver.media.payloads import H264, VP8  # noqa: E402
from gpuserver.musetalk.avatars.avatar_files import load_avatar  # noqa: E402

STOCK = ("stock-h264", "stock-vp8")
FEWEST = 24.0  # pictures per second that every session must get
LATE = 0.3  # seconds by which pictures are delayed on purpose


@dataclass(frozen=True, slots=True)
class Row:
    """A figure, and the same of stock aiortc where it has one."""

    figure: Figure
    stock: str = ""


def speaking_rows(avatar: Path, repeats: int, seconds: float) -> tuple[list[Row], float]:
    """Encoding and sending frames that were drawn beforehand, ours and stock by turns. Also what stock VP8 costs, cores."""
    found: dict[str, list[Load]] = {mode: [] for mode in ("speaking", *STOCK)}
    for _ in range(repeats):
        for mode, loads in found.items():
            loads.append(media_load.measure(mode, avatar, 2 if mode == "speaking" else 1, seconds))
    cost = {mode: statistics.median(load.cores for load in loads) for mode, loads in found.items()}
    bits = {mode: statistics.median(load.kilobits for load in loads) for mode, loads in found.items()}
    how = f"512x512@25, encode and send, median of {repeats} runs of {seconds:g} s by turns"
    rows = [
        Row(
            at_most(
                "speaking_core",
                "a speaking session, cores",
                cost["speaking"],
                round(cost["stock-vp8"], 3),
                "",
                f"{how}; {bits['speaking']:.0f} kbit/s",
            )
        )
    ]
    for mode, limit in zip(STOCK, (0.25, 0.6), strict=True):
        name = mode.removeprefix("stock-")
        figure = at_most(
            f"speaking_cpu_vs_stock_{name}", f"the same, against stock {name.upper()}", cost["speaking"] / cost[mode], limit, "x", how
        )
        rows.append(Row(figure, f"{cost[mode]:.3f} cores, {bits[mode]:.0f} kbit/s"))
    return rows, cost["stock-vp8"]


def session_rows(avatar: Path, seconds: float, stock: float, *, quick: bool) -> list[Row]:
    idle = media_load.measure("idle", avatar, 20, seconds, settle=8)
    hundred = media_load.measure("idle", avatar, 20 if quick else 100, seconds, settle=15, core=0)
    warp = media_load.measure("warp", avatar, 2, seconds, settle=8)
    count, least = speaking_sessions(avatar, seconds, 8 if quick else 20)
    how = f"{seconds:g} s, receivers use {hundred.receiver_cores:.2f} cores"
    many = "20" if quick else "100"
    return [
        Row(
            at_most(
                "idle_core", "an idle session, cores", idle.cores, 0.010, "", f"20 sessions, {seconds:g} s, {idle.kilobits:.0f} kbit/s"
            ),
            f"{stock:.3f} (VP8)",
        ),
        Row(at_least("idle_fps_on_one_core", f"{many} idle sessions on one core, pictures/s of the slowest", hundred.fps, FEWEST, "", how)),
        Row(
            at_most(
                "speaking_core_with_warp",
                "a speaking session with the warp engine, cores",
                warp.cores,
                0.20,
                "",
                "from text to packets, 2 sessions",
            )
        ),
        Row(
            at_least(
                "sessions_2_cores",
                f"speaking sessions that get {FEWEST:g} pictures/s, warp engine",
                count,
                8,
                "",
                f"{os.cpu_count()} cores, {least}",
            ),
            f"{(os.cpu_count() or 1) / stock:.0f} by its cost, without lips",
        ),
    ]


def speaking_sessions(avatar: Path, seconds: float, limit: int) -> tuple[int, str]:
    """The most sessions that all get their pictures, dealt out to a media process per core, and what the last run that did looked like."""
    processes = os.cpu_count() or 1
    best, told = 0, "none"
    with ThreadPoolExecutor(processes) as pool:
        for count in range(4, limit + 1, 2):
            shares = [count // processes + (number < count % processes) for number in range(min(processes, count))]
            loads = list(pool.map(lambda share: media_load.measure("warp", avatar, share, seconds, settle=10), shares))
            slowest = min(load.fps for load in loads)
            if slowest < FEWEST:
                break
            cores, receivers = statistics.mean(load.cores for load in loads), sum(load.receiver_cores for load in loads)
            best = count
            told = f"{len(loads)} media processes, {cores:.2f} cores each session, slowest {slowest:.1f}/s, receivers {receivers:.2f} cores"
    return best, told


def quality_rows(avatar: Path) -> list[Row]:
    loaded = load_avatar(avatar)
    pictures, bits = spoken_frames(loaded).pictures, LADDER[-1]
    mine = picture_quality.measure(picture_quality.ours(H264, loaded.width, loaded.height, bits), H264, pictures)
    stock = {codec: picture_quality.measure(picture_quality.stock(codec, bits), codec, pictures) for codec in (VP8, H264)}
    told = ", ".join(f"{codec.removeprefix('video/')} {found.psnr:.1f} dB at {found.kilobits:.0f} kbit/s" for codec, found in stock.items())
    how = f"{len(pictures)} spoken pictures, limit {bits / 1e6:g} Mbit/s; ours took {mine.kilobits:.0f} kbit/s"
    return [
        Row(
            at_least("speaking_psnr", "speaking picture, PSNR (not below stock VP8)", mine.psnr, round(stock[VP8].psnr, 1), "dB", how), told
        )
    ]


async def lag_rows(pictures: int) -> list[Row]:
    """Sound to mouth, at a receiver that goes by the sender's reports."""
    rows = []
    for key, late in (("lag", 0.0), ("late_lag", LATE)):
        count = pictures if not late else pictures // 4
        mine = np.array(await lags(late, pictures=count)) * 1000
        theirs = np.array(await lags(late, stock=True, pictures=count)) * 1000
        what = "sound-to-mouth lag" + (f", pictures {LATE * 1000:.0f} ms late" if late else "")
        how = f"{len(mine)} pictures at an aiortc receiver"
        stock = f"mean {theirs.mean():.0f}, p95 {np.percentile(np.abs(theirs), 95):.0f} ms"
        rows.append(Row(at_most(f"{key}_mean_ms", f"{what}, mean (either way)", abs(float(mine.mean())), 10, "ms", how), stock))
        rows.append(Row(at_most(f"{key}_p95_ms", f"{what}, p95", float(np.percentile(np.abs(mine), 95)), 40, "ms", how), stock))
    return rows


def first_picture_row(folder: Path, repeats: int) -> Row:
    with running_server(folder) as server, chromium() as browser:
        times = []
        for _ in range(repeats + 1):  # the first one loads the avatar
            viewer = Viewer(browser, server.media_url)
            times.append(viewer.to_first_picture)
            viewer.close()
    how = f"Chromium on the loopback, median of {repeats}, {min(times[1:]):.0f} to {max(times[1:]):.0f} ms"
    return Row(at_most("first_picture_ms", "offer → first decoded picture, p50", statistics.median(times[1:]), 500, "ms", how))


def measure(*, quick: bool) -> list[Row]:
    repeats, seconds = (1, 5.0) if quick else (3, 10.0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manager = parts.demo_avatar(Settings(avatars_dir=folder / "avatars"))
        manager.create_from_file("moving", write_clip(folder / "moving.mp4", Clip(seconds=6, width=512, height=512)))
        avatar = manager.folder("moving")
        rows, stock = speaking_rows(avatar, repeats, seconds)
        rows += session_rows(avatar, seconds, stock, quick=quick)
        rows += quality_rows(avatar)
        rows += asyncio.run(lag_rows(20 if quick else 100))
        (folder / "server").mkdir()
        return [*rows, first_picture_row(folder / "server", 5 if quick else 15)]


def as_markdown(rows: Sequence[Row]) -> str:
    lines = ["| what | measured | reach | stock aiortc | how |", "|---|---|---|---|---|"]
    for row in rows:
        f = row.figure
        lines.append(f"| {f.what} | {f.shown}{'' if f.reached else ' (missed)'} | {f.reach} | {row.stock} | {f.how} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs")
    options = parser.parse_args()
    rows = measure(quick=options.quick)
    print(f"Measured on {machine()}, load {os.getloadavg()[0]:.1f} at the end.\n\n{as_markdown(rows)}")
    if options.json:
        write_json([row.figure for row in rows], options.json)


if __name__ == "__main__":
    main()
