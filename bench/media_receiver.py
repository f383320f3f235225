"""The browsers of the benchmark: python -m bench.media_receiver. They decrypt and count what arrives, and do not decode it.

One JSON object per line: {"offer": n} -> {"offers": [sdp, …]}; {"answers": [sdp, …]} -> {"connected": n}; {"mark": true} ->
{"pictures": [per browser], "sounds": […], "bytes": […], "cpu": seconds}; {"end": true} ends it.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from dataclasses import dataclass, field

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.rtp import RtpPacket

TAKE_PACKET = "_handle_rtp_packet"
LINE_BYTES = 16 << 20  # the answers of a hundred sessions stand on one line


@dataclass(slots=True, eq=False)
class Browser:
    """One connection that only counts. A picture is a run of packets with one time stamp."""

    connection: RTCPeerConnection = field(default_factory=lambda: RTCPeerConnection(RTCConfiguration(iceServers=[])))
    pictures: int = 0
    sounds: int = 0
    bytes: int = 0

    async def offer(self) -> str:
        for kind in ("audio", "video"):
            receiver = self.connection.addTransceiver(kind, direction="recvonly").receiver
            setattr(receiver, TAKE_PACKET, self._count_picture if kind == "video" else self._count_sound)
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return str(self.connection.localDescription.sdp)

    async def connect(self, answer: str) -> None:
        connected = asyncio.Event()

        def note_state() -> None:
            if self.connection.connectionState == "connected":
                connected.set()

        self.connection.add_listener("connectionstatechange", note_state)
        await self.connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        async with asyncio.timeout(60):
            await connected.wait()

    async def _count_picture(self, packet: RtpPacket, arrival_time_ms: int) -> None:
        self.pictures += packet.marker
        self.bytes += len(packet.payload)

    async def _count_sound(self, packet: RtpPacket, arrival_time_ms: int) -> None:
        self.sounds += 1
        self.bytes += len(packet.payload)


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
                "bytes": [browser.bytes for browser in browsers],
                "cpu": used.ru_utime + used.ru_stime,
            }
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()
    await asyncio.gather(*(browser.connection.close() for browser in browsers))


if __name__ == "__main__":
    asyncio.run(serve())
