"""Offers with damaged lines against our peers: each is answered or refused within 2 s, and nothing is left of it.

python -m soak.sdp_mutations [OFFERS] [SEED]
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import re
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import structlog
from aiortc import RTCConfiguration, RTCPeerConnection

from gpuserver.domain import Avatar, AvatarFrame, Box
from gpuserver.errors import GpuserverError
from gpuserver.media.clock import LoopClock
from gpuserver.media.encoding import Encoding
from gpuserver.media.ice_connection import IceNetwork
from gpuserver.media.peers import Peers
from gpuserver.media.playout import Playout
from gpuserver.media.ports import AnyPort
from gpuserver.pipeline.subscription import Subscription
from gpuserver.wire import Offer

OFFERS = 2000
LIMIT_SECONDS = 2.0


class NobodysSession:
    """A session whose viewers never come."""

    session_id = "soak"

    def __init__(self) -> None:
        self._events = Subscription(lambda _subscription: None)

    def subscribe(self) -> Subscription:
        return self._events

    def expect_viewer(self) -> None:
        """No matter."""

    def expect_viewer_no_longer(self) -> None:
        """No matter."""

    def attach(self) -> None:
        """No matter."""

    def detach(self) -> None:
        """No matter."""


async def answer_mutations(peers: Peers, avatar: Avatar, offer: str, count: int, chance: random.Random) -> Counter[str]:
    """How many of `count` damaged offers were "answered" and "refused". Raises AssertionError or TimeoutError for anything else."""
    session, playout = NobodysSession(), Playout(avatar)
    outcomes: Counter[str] = Counter()
    for _ in range(count):
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                await peers.answer(session, playout, Offer(sdp=mutated(offer, chance), type="offer"))
            outcomes["answered"] += 1
        except GpuserverError as error:
            if error.status != 400:
                raise AssertionError(f"an offer was refused with {error.status}: {error.detail}") from error
            outcomes["refused"] += 1
    return outcomes


def mutated(sdp: str, chance: random.Random) -> str:
    """An offer with one to three of its lines damaged."""
    lines = sdp.split("\r\n")
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(lines))
        line = lines[at]
        match chance.randrange(7):
            case 0:
                del lines[at]
            case 1:
                lines.insert(at, line)
            case 2:
                lines[at] = line[: chance.randint(0, len(line))]
            case 3:
                lines[at] = re.sub(r"\d+", chance.choice(["0", "-1", "256", "70000", "9" * 20]), line)
            case 4:
                other = chance.randrange(len(lines))
                lines[at], lines[other] = lines[other], line
            case 5:
                lines[at] = line.replace(":", chance.choice(["", " ", "::"]), 1)
            case 6:
                lines[at] = line + " " + chance.choice(lines)
    return "\r\n".join(lines)


async def soak(count: int, seed: int) -> None:
    """Print what became of the offers and what was left."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    asyncio.get_running_loop().set_exception_handler(fail)
    offer, avatar = await stock_offer(), grey_avatar()
    encoding = Encoding(1)
    before = left_overs()
    began, slowest = time.monotonic(), 0.0
    outcomes: Counter[str] = Counter()
    async with Peers(IceNetwork(AnyPort()), LoopClock(), encoding) as peers:
        chance = random.Random(seed)
        for _ in range(count):
            started = time.monotonic()
            outcomes += await answer_mutations(peers, avatar, offer, 1, chance)
            slowest = max(slowest, time.monotonic() - started)
    await encoding.aclose()
    if ending := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(ending, timeout=1)
    gc.collect()
    print(f"{dict(outcomes)} in {time.monotonic() - began:.0f} s, the slowest {slowest:.2f} s")
    print(f"tasks and open files: {before} before, {left_overs()} after")
    if left_overs() != before:
        sys.exit(1)


def grey_avatar(width: int = 64, height: int = 64) -> Avatar:
    """One grey picture."""
    picture = np.full((height * 3 // 2, width), 128, np.uint8)
    return Avatar("grey", width, height, [AvatarFrame(0, picture, np.zeros((468, 2), np.float32), Box(0, 0, width, height), 0.0)])


async def stock_offer() -> str:
    """What an unmodified aiortc client offers."""
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    connection.addTransceiver("audio", direction="recvonly")
    connection.addTransceiver("video", direction="recvonly")
    connection.createDataChannel("chat")
    await connection.setLocalDescription(await connection.createOffer())
    offer = str(connection.localDescription.sdp)
    await connection.close()
    return offer


def left_overs() -> tuple[int, int]:
    """Tasks and file descriptors of this process."""
    return len(asyncio.all_tasks()), len(list(Path("/proc/self/fd").iterdir()))


def fail(_loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """A task that nobody awaits has failed."""
    print(f"failed in the background: {context}", file=sys.stderr)
    os._exit(1)


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    asyncio.run(soak(*given, *(OFFERS, 2026)[len(given) :]))
