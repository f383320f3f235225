"""The browsers of the benchmark: python -m bench.media_receiver. They decrypt and count what arrives, and take no further look at it.

One JSON object per line: {"offer": n} -> {"offers": [sdp, …]}; {"answers": [sdp, …]} -> {"connected": n}; {"mark": true} ->
{"pictures": [per browser], "sounds": […], "bytes": […], "cpu": seconds}; {"end": true} ends it.
"""

from __future__ import annotations

import asyncio
import json
import re
import resource
import sys
from dataclasses import dataclass, field

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

TAKE_PACKET = "_handle_rtp_data"  # of aiortc's DTLS transport: what comes out of SRTP
VIDEO_TYPE = re.compile(r"m=video \d+ \S+ (\d+)")  # the payload type that the answer prefers
LINE_BYTES = 16 << 20  # the answers of a hundred sessions stand on one line


@dataclass(slots=True, eq=False)
class Browser:
    """One connection that only counts. The last packet of a picture is marked."""

    connection: RTCPeerConnection = field(default_factory=lambda: RTCPeerConnection(RTCConfiguration(iceServers=[])))
    pictures: int = 0
    sounds: int = 0
    received: int = 0  # bytes
    video_type: int = -1

    async def offer(self) -> str:
        for kind in ("audio", "video"):
            receiver = self.connection.addTransceiver(kind, direction="recvonly").receiver
            setattr(receiver.transport, TAKE_PACKET, self._count)
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return str(self.connection.localDescription.sdp)

    async def connect(self, answer: str) -> None:
        connected = asyncio.Event()
        if (found := VIDEO_TYPE.search(answer)) is not None:
            self.video_type = int(found[1])

        def note_state() -> None:
            if self.connection.connectionState == "connected":
                connected.set()

        self.connection.add_listener("connectionstatechange", note_state)
        await self.connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        async with asyncio.timeout(60):
            await connected.wait()

    async def _count(self, data: bytes, arrival_time_ms: int) -> None:
        self.received += len(data)
        if data[1] & 0x7F == self.video_type:
            self.pictures += data[1] >> 7
        else:
            self.sounds += 1


async def serve() -> None:
    reader = asyncio.StreamReader(limit=LINE_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    browsers: list[Browser] = []
    while line := await reader.readline():
        asked = json.loads(line)
        reply: dict[str, object]
        if "end" in asked:
            break
        if "offer" in asked:
            new = [Browser() for _ in range(asked["offer"])]
            browsers += new
            reply = {"offers": [await browser.offer() for browser in new]}
        elif "answers" in asked:
            await asyncio.gather(
                *(browser.connect(answer) for browser, answer in zip(browsers[-len(asked["answers"]) :], asked["answers"], strict=True))
            )
            reply = {"connected": len(browsers)}
        else:
            used = resource.getrusage(resource.RUSAGE_SELF)
            reply = {
                "pictures": [browser.pictures for browser in browsers],
                "sounds": [browser.sounds for browser in browsers],
                "bytes": [browser.received for browser in browsers],
                "cpu": used.ru_utime + used.ru_stime,
            }
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()
    await asyncio.gather(*(browser.connection.close() for browser in browsers))


if __name__ == "__main__":
    asyncio.run(serve())
