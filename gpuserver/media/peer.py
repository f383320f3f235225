"""One browser's connection: offer in, answer out, then picture and sound of one playout until either side ends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import structlog
from aiortc import RTCIceTransport, RTCRtpCodecCapability, RTCRtpSender, RTCSessionDescription
from aiortc.exceptions import InternalError, InvalidAccessError, InvalidStateError, OperationError

from gpuserver.domain import SAMPLE_RATE
from gpuserver.errors import InvalidSdp, UpstreamFailed
from gpuserver.media.bitrate import Bitrate
from gpuserver.media.clock import Clock
from gpuserver.media.encoding import Encoding
from gpuserver.media.ice import remote_candidate
from gpuserver.media.ice_connection import IceNetwork
from gpuserver.media.ice_restart import IceRestart
from gpuserver.media.peer_connection import PeerConnection
from gpuserver.media.picture_encoders import CODECS
from gpuserver.media.sdp import ReadOffer, answer_candidates, with_new_ice
from gpuserver.media.sending import Sending, negotiated_codec, unix_time_of
from gpuserver.media.tracks import PICTURE_CLOCK, PictureTrack, SoundTrack, Ticking
from gpuserver.wire import IceCandidate

NEGOTIATION_SECONDS = 1.5  # aiortc needs 20 ms; what silent STUN and TURN servers cost comes on top
CONNECT_SECONDS = 30.0  # from the answer to the first connection; aioice itself would wait for ever
CLOSE_SECONDS = 1.0
ENDED = frozenset({"failed", "closed"})

# What aiortc raises when an offer that parses cannot be answered.
NEGOTIATION_ERRORS = (
    AssertionError,
    AttributeError,
    IndexError,
    InternalError,
    InvalidAccessError,
    InvalidStateError,
    KeyError,
    OperationError,
    RuntimeError,  # a StopIteration inside a coroutine
    TypeError,
    ValueError,
)

log = structlog.get_logger(__name__)


class Peer:
    """A connection that sends one playout's picture and sound.

    on_connected is called once the browser is there, on_ended exactly once after an answered peer has ended, whoever ended it.
    was_connected: whether on_connected was called.
    """

    def __init__(
        self,
        playout: Ticking,
        clock: Clock,
        network: IceNetwork,
        encoding: Encoding,
        *,
        on_connected: Callable[[Peer], None],
        on_ended: Callable[[Peer], None],
    ):
        self._connection = PeerConnection(network)
        self._network = network
        self._limit = NEGOTIATION_SECONDS + network.gathering_seconds
        self._on_connected = on_connected
        self._on_ended = on_ended
        self.was_connected = False
        self._states: asyncio.Queue[str] = asyncio.Queue(maxsize=16)  # a connection goes through 5 states at most
        self._watch: asyncio.Task[None] | None = None
        self._offer: ReadOffer | None = None
        self._answer = ""
        self._restart: IceRestart | None = None
        self._playout = playout
        self._clock = clock
        self._encoding = encoding
        self._sound, self._picture = SoundTrack(playout, clock, encoding.note), PictureTrack(playout, clock, encoding.note)
        for track in (self._sound, self._picture):
            transceiver = self._connection.addTransceiver(track, direction="sendonly")
            transceiver.setCodecPreferences(preferred_codecs(track.kind))
            track.add_listener("ended", self._note_track_ended)
        self._connection.add_listener("connectionstatechange", self._note_state)

    async def answer(self, offer: ReadOffer) -> str:
        """The SDP answer, with our candidates. Raises InvalidSdp, UpstreamFailed; the peer is then to be closed."""
        async with self._answerable():
            await self._negotiate(offer.text)
            await self._add(offer.candidates)
        answer = _reachable(str(self._connection.localDescription.sdp))
        self._offer, self._answer = offer, answer
        self._watch = asyncio.create_task(self._watch_over(), name="peer")
        return answer

    def continues(self, offer: ReadOffer) -> bool:
        """Whether the offer comes from the connection that this peer has, and asks for another way through the network."""
        before = self._offer
        if before is None or self._connection.connectionState != "connected":
            return False
        return offer.connection == before.connection and offer.username_fragment != before.username_fragment

    async def restart(self, offer: ReadOffer) -> str:
        """The answer to an offer that continues this peer. Until the new way is found the old one is used. Raises as answer() does."""
        if self._restart is not None:
            await self._restart.aclose()
        self._restart = IceRestart(self._transport, self._network, offer.username_fragment, offer.password)
        async with self._answerable():
            await self._restart.begin()
            await self._add(offer.candidates)
        answer = _reachable(with_new_ice(self._answer, self._restart.parameters, self._restart.candidates))
        self._offer, self._answer = offer, answer
        return answer

    def awaits(self, candidate: IceCandidate) -> bool:
        """Whether the candidate belongs to the offer that this peer has answered, as far as it says."""
        known = None if self._offer is None else self._offer.username_fragment
        return candidate.usernameFragment is None or candidate.usernameFragment == known

    async def add_candidate(self, candidate: IceCandidate) -> None:
        """Take a trickled candidate; one that is of no use is ignored. Raises InvalidInput for a malformed one."""
        await self._add([candidate])

    def end(self) -> None:
        """Begin to end an answered connection; on_ended tells when nothing of it is left."""
        self._note("closed")

    async def aclose(self) -> None:
        """End the connection; returns when nothing of it is left. May be called at any time and again."""
        if self._watch is None:
            await self._close_connection()
        else:
            self.end()
            await self._watch

    @asynccontextmanager
    async def _answerable(self) -> AsyncIterator[None]:
        """What goes wrong with an offer, or takes too long, becomes an InvalidSdp."""
        try:
            async with asyncio.timeout(self._limit):
                yield
        except TimeoutError as error:
            raise InvalidSdp(f"The offer could not be answered within {self._limit:.1f} s.") from error
        except NEGOTIATION_ERRORS as error:
            raise InvalidSdp("The offer cannot be answered: no codec in common, or sections that contradict each other.") from error

    @property
    def _transport(self) -> RTCIceTransport:
        """All sections share it."""
        return self._connection.getTransceivers()[0].receiver.transport.transport

    async def _negotiate(self, sdp: str) -> None:
        connection = self._connection
        await connection.setRemoteDescription(RTCSessionDescription(sdp=sdp, type="offer"))
        self._begin_sending()
        await connection.setLocalDescription(await connection.createAnswer())

    def _begin_sending(self) -> None:
        """Put our own encoders in the place of aiortc's, now that the codecs are negotiated."""
        epoch = unix_time_of(self._playout.epoch, self._clock.now)
        for transceiver in self._connection.getTransceivers():
            if transceiver.kind == "video":
                codec = negotiated_codec(transceiver)
                stream = self._encoding.stream(self._playout.avatar, codec, Bitrate(self._clock.now))
                self._picture.begin(stream)
                Sending(transceiver.sender, self._picture, epoch, PICTURE_CLOCK, stream)
            else:
                Sending(transceiver.sender, self._sound, epoch, SAMPLE_RATE)

    async def _add(self, candidates: Iterable[IceCandidate]) -> None:
        add = self._connection.addIceCandidate if self._restart is None else self._restart.add_candidate
        for candidate in candidates:
            parsed = remote_candidate(candidate)
            if parsed is not None:
                await add(parsed)

    async def _watch_over(self) -> None:
        """Follow the connection until it ends, then clear up."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS) as limit:
                while (state := await self._states.get()) not in ENDED:
                    if state == "connected" and not self.was_connected:
                        limit.reschedule(None)
                        self.was_connected = True
                        self._on_connected(self)
        except TimeoutError:
            log.info("peer_never_connected", seconds=CONNECT_SECONDS)
        finally:
            await self._close_connection()
            self._on_ended(self)

    async def _close_connection(self) -> None:
        connection = self._connection
        for track in (self._sound, self._picture):
            track.stop()
        if self._restart is not None:
            await self._restart.aclose()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await connection.close()
        except (TimeoutError, *NEGOTIATION_ERRORS) as error:
            # aiortc gives up half way: its sockets are closed one by one, else they stay open for ever.
            log.warning("peer_close_failed", error=repr(error))
            for transport in {transceiver.receiver.transport for transceiver in connection.getTransceivers()}:
                await transport.transport.stop()
        connection.remove_all_listeners()

    def _note_state(self) -> None:
        self._note(self._connection.connectionState)

    def _note_track_ended(self) -> None:
        """A sender has given up its track: without it the connection is of no use, and the browser learns it by the close."""
        self._note("failed")

    def _note(self, state: str) -> None:
        if not self._states.full():
            self._states.put_nowait(state)


def _reachable(answer: str) -> str:
    """The answer, which has a candidate in it. Raises UpstreamFailed."""
    if not answer_candidates(answer):
        raise UpstreamFailed(
            "This server has no network address to offer to the browser.",
            advice="It needs a network interface besides loopback, or, with WEBRTC_ICE_POLICY=relay, a TURN server that answers.",
        )
    return answer


def preferred_codecs(kind: str) -> list[RTCRtpCodecCapability]:
    """What an answer takes of an offer, the best first: our own video codecs with their retransmission, and all sound codecs."""
    offered = RTCRtpSender.getCapabilities(kind).codecs
    if kind != "video":
        return list(offered)
    return [codec for mime_type in (*CODECS, "video/rtx") for codec in offered if codec.mimeType == mime_type]
