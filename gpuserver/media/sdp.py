"""Reads a browser's offer and refuses, in plain words, what aiortc would fail on later, hang on, or pay for.

aiortc answers a malformed offer with any of seven exception types, some of them in a task of its own that nobody awaits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from aiortc import RTCIceCandidate, RTCIceParameters
from aiortc.sdp import MediaDescription, SessionDescription

from gpuserver.errors import InvalidSdp
from gpuserver.wire import IceCandidate, Offer

MAX_LINES = 1000  # a browser's offer has 100 to 300; aiortc's parser is quadratic in them
MAX_CANDIDATES = 64
ICE_CHARACTERS = re.compile(r"[A-Za-z0-9+/]{4,256}")  # RFC 8839, section 5.4
FINGERPRINTS = frozenset({"sha-256", "sha-384", "sha-512"})  # what aiortc can check
RECEIVES = frozenset({"recvonly", "sendrecv"})
MAX_EXTENSION_ID = 255  # RFC 8285, two-byte header
PARSE_ERRORS = (AssertionError, AttributeError, IndexError, KeyError, StopIteration, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class ReadOffer:
    """An offer that can be answered. text: without its candidates, which stand apart so that all candidates take one way.

    connection: the same in all offers of one RTCPeerConnection and in no other's.
    """

    text: str
    candidates: tuple[IceCandidate, ...]
    username_fragment: str
    password: str
    connection: str


def read_offer(offer: Offer) -> ReadOffer:
    """Check an offer: one picture and one sound section that can receive, in one bundle. Raises InvalidSdp."""
    if offer.type != "offer":
        raise InvalidSdp(f"The type is {offer.type!r}; only an offer can be answered.")
    text, candidates = _split_candidates(offer.sdp)
    try:
        description = SessionDescription.parse(text)
    except PARSE_ERRORS as error:
        raise InvalidSdp("The SDP cannot be parsed.") from error
    _check_sections(description)
    names = [_check_section(section) for section in description.media]
    return ReadOffer(text, candidates, *names[0], _connection(description))


def answer_candidates(sdp: str) -> list[IceCandidate]:
    """Our own candidates out of an answer, each with the section it stands in."""
    _, candidates = _split_candidates(sdp)
    return list(candidates)


def with_new_ice(answer: str, parameters: RTCIceParameters, candidates: list[RTCIceCandidate]) -> str:
    """The answer to an ICE restart: the one before with a name, a password and candidates that are new."""
    description = SessionDescription.parse(answer)
    user, session, version, *address = (description.origin or "").split()
    description.origin = " ".join([user, session, str(int(version) + 1), *address])
    for section in description.media:
        section.ice = parameters
        section.ice_candidates, section.ice_candidates_complete = candidates, True
    return str(description)


def _connection(description: SessionDescription) -> str:
    """The session id of the o= line (RFC 8866, section 5.2) and the fingerprints. Pages may give a certificate to several connections."""
    session = (description.origin or "").split()[:2]
    fingerprints = {each.value for section in description.media if section.dtls for each in section.dtls.fingerprints}
    return " ".join([*session, *sorted(fingerprints)])


def _split_candidates(sdp: str) -> tuple[str, tuple[IceCandidate, ...]]:
    """The SDP without its candidates and without the end-of-candidates mark, and the candidates.

    The mark goes because mDNS candidates are left out: aioice would take what is left for all there is and give up.
    """
    lines = sdp.splitlines()
    if len(lines) > MAX_LINES:
        raise InvalidSdp(f"The SDP has {len(lines)} lines; {MAX_LINES} are allowed.")
    kept: list[str] = []
    candidates: list[IceCandidate] = []
    section = -1
    for line in lines:
        if line.startswith("m="):
            section += 1
        if line.startswith("a=candidate:"):
            if len(line) > 500:
                raise InvalidSdp("A candidate in the SDP is too long.")
            candidates.append(IceCandidate(candidate=line[2:], sdpMLineIndex=min(max(section, 0), 64)))
        elif line.strip() != "a=end-of-candidates":
            kept.append(line)
    return "\r\n".join(kept) + "\r\n", tuple(candidates[:MAX_CANDIDATES])


def _check_sections(description: SessionDescription) -> None:
    kinds = sorted(section.kind for section in description.media)
    if kinds not in (["audio", "video"], ["application", "audio", "video"]):
        found = ", ".join(kinds) or "none"
        raise InvalidSdp(f"The offer needs one audio and one video section, and at most one data channel; it has: {found}.")
    mids = [section.rtp.muxId for section in description.media]
    if not all(mids) or len(set(mids)) != len(mids):
        raise InvalidSdp("Every section of the offer needs an a=mid of its own.")
    bundles = [group for group in description.group if group.semantic == "BUNDLE"]
    if len(bundles) != 1 or sorted(map(str, bundles[0].items)) != sorted(mids):
        raise InvalidSdp("All sections of the offer must share one transport (a=group:BUNDLE).")


def _check_section(section: MediaDescription) -> tuple[str, str]:
    """The section's ICE username fragment and password. Raises InvalidSdp."""
    kind = section.kind
    fragment, password = (section.ice.usernameFragment or "", section.ice.password or "") if section.ice else ("", "")
    if not (ICE_CHARACTERS.fullmatch(fragment) and ICE_CHARACTERS.fullmatch(password)):
        raise InvalidSdp(f"The {kind} section needs a=ice-ufrag and a=ice-pwd.")
    algorithms = {fingerprint.algorithm.lower() for fingerprint in section.dtls.fingerprints} if section.dtls else set()
    if not algorithms & FINGERPRINTS:
        raise InvalidSdp(f"The {kind} section needs a=setup and an a=fingerprint of sha-256, sha-384 or sha-512.")
    if kind == "application":
        _check_data_channel(section)
    else:
        _check_media(section)
    return fragment, password


def _check_media(section: MediaDescription) -> None:
    kind = section.kind
    if section.direction not in RECEIVES:
        raise InvalidSdp(f"The {kind} section must be able to receive (a=recvonly or a=sendrecv).")
    if not section.rtcp_mux:
        raise InvalidSdp(f"The {kind} section needs a=rtcp-mux.")
    if any(not 0 < extension.id <= MAX_EXTENSION_ID for extension in section.rtp.headerExtensions):
        raise InvalidSdp(f"The {kind} section has a header extension whose id is not 1 to {MAX_EXTENSION_ID}.")


def _check_data_channel(section: MediaDescription) -> None:
    if section.profile != "UDP/DTLS/SCTP" or not section.sctp_port or not 0 < section.sctp_port < 65536:
        raise InvalidSdp("The data channel must use UDP/DTLS/SCTP and name its a=sctp-port.")
