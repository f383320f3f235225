"""How soon and how fast hibari speaks: `python bench/voice.py [--json FILE]` prints one table, medians of ROUNDS."""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from gpuserver.pipeline.voice_hibari import HibariVoice

ROUNDS = 15
SENTENCES = (
    "Hello.",
    "Good question, two and two make four.",
    "Well, two and two make four, and that is all there is to know about it, however long anybody thinks about the question.",
)


@dataclass(frozen=True, slots=True)
class Row:
    """first_ms: text in to first piece of sound. speed: seconds of sound per second of work."""

    sentence: str
    characters: int
    first_ms: float
    seconds: float
    speed: float


async def measure(voice: HibariVoice, sentence: str) -> Row:
    firsts, works, seconds = [], [], 0.0
    for _ in range(ROUNDS):
        began = time.perf_counter()
        first, seconds = 0.0, 0.0
        async for piece in voice.speak(sentence):
            first = first or time.perf_counter() - began
            seconds += piece.seconds
        firsts.append(first)
        works.append(time.perf_counter() - began)
    first_ms = round(statistics.median(firsts) * 1000, 1)
    return Row(sentence[:30], len(sentence), first_ms, round(seconds, 2), round(seconds / statistics.median(works), 1))


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    target = parser.parse_args().json
    voice = HibariVoice()
    began = time.perf_counter()
    await voice.ready()
    print(f"loaded in {time.perf_counter() - began:.2f} s")
    rows = [await measure(voice, sentence) for sentence in SENTENCES]
    await voice.aclose()
    print(f"{'sentence':32}{'chars':>6}{'first sound ms':>16}{'sound s':>9}{'x real time':>13}")
    for row in rows:
        print(f"{row.sentence:32}{row.characters:>6}{row.first_ms:>16}{row.seconds:>9}{row.speed:>13}")
    if target is not None:
        target.write_text(json.dumps([asdict(row) for row in rows], indent=2))


if __name__ == "__main__":
    asyncio.run(main())
