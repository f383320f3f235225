"""How soon and how fast the voices of this machine speak: `python bench/voice.py [--json FILE]` prints one table, medians of ROUNDS."""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from gpuserver.pipeline.voice import StartedVoice
from gpuserver.pipeline.voice_espeak import EspeakVoice, is_installed
from gpuserver.pipeline.voice_hibari import HibariVoice

ROUNDS = 15
ENGLISH = (
    "Hello.",
    "Good question, two and two make four.",
    "Well, two and two make four, and that is all there is to know about it, however long anybody thinks about the question.",
)
CHINESE = (
    "你好。",
    "今天我们学习加法，二加二等于四。",
    "二加二等于四，这就是关于它的一切，无论谁思考这个问题多久，无论用什么方法，答案都不会改变，我们明天再来看乘法。",
)


@dataclass(frozen=True, slots=True)
class Row:
    """first_ms: text in to first piece of sound. speed: seconds of sound per second of work."""

    voice: str
    sentence: str
    characters: int
    first_ms: float
    seconds: float
    speed: float


async def measure(voice: StartedVoice, sentence: str) -> Row:
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
    return Row(voice.name, sentence[:30], len(sentence), first_ms, round(seconds, 2), round(seconds / statistics.median(works), 1))


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    target = parser.parse_args().json
    tried: list[tuple[StartedVoice, tuple[str, ...]]] = [(HibariVoice(), ENGLISH)]
    if is_installed():
        tried.append((EspeakVoice(), ENGLISH + CHINESE))
    rows = []
    for voice, sentences in tried:
        began = time.perf_counter()
        voice.start()
        _ = [piece async for piece in voice.speak(sentences[0])]
        print(f"{voice.name}: loaded and warm in {time.perf_counter() - began:.2f} s")
        rows += [await measure(voice, sentence) for sentence in sentences]
        await voice.aclose()
    print(f"{'voice':8}{'chars':>6}{'first sound ms':>16}{'sound s':>9}{'x real time':>13}  sentence")
    for row in rows:
        print(f"{row.voice:8}{row.characters:>6}{row.first_ms:>16}{row.seconds:>9}{row.speed:>13}  {row.sentence}")
    if target is not None:
        target.write_text(json.dumps([asdict(row) for row in rows], indent=2))


if __name__ == "__main__":
    asyncio.run(main())
