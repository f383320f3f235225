"""One end of a call as a process of its own, so that it can live in a network namespace: python call_end.py server|client …

server PORT [PUBLIC_IP]: PORT 0 is any port. client SECONDS: how long it waits for a picture and sound.
They speak in lines of JSON: the client prints its offer, reads the answer and prints what came of it; the server answers an offer.
"""

from __future__ import annotations

import asyncio
import json
import sys

from receiver import Receiver
from watched_session import WatchedSession, negotiation

from gpuserver.media.clock import LoopClock
from gpuserver.media.encoding import Encoding
from gpuserver.media.ice_connection import IceNetwork
from gpuserver.media.peers import Peers
from gpuserver.media.ports import AnyPort, SharedPort


async def serve(port: int, *public: str) -> None:
    encoding = Encoding(1)
    ports = SharedPort(port) if port else AnyPort()
    async with Peers(IceNetwork(ports, public_addresses=public), LoopClock(), encoding) as peers:
        session = WatchedSession()
        while offer := await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(await negotiation(peers, session)(json.loads(offer))), flush=True)
    await encoding.aclose()


async def watch(seconds: float) -> None:
    async with Receiver() as receiver:
        print(json.dumps(await receiver.offer()), flush=True)
        await receiver.accept(json.loads(await asyncio.to_thread(sys.stdin.readline)))
        try:
            await receiver.until(lambda: len(receiver.pictures) > 5 and len(receiver.sounds) > 5, within=seconds)
        except TimeoutError:
            print(json.dumps(None), flush=True)
            return
        transport = receiver.connection.getTransceivers()[0].receiver.transport.transport
        (pair,) = transport._connection._nominated.values()
        print(json.dumps([pair.remote_candidate.host, pair.remote_candidate.port]), flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["server", port, *public]:
            asyncio.run(serve(int(port), *public))
        case ["client", seconds]:
            asyncio.run(watch(float(seconds)))
