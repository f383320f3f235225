"""Trickled candidates as WHEP players send them: application/trickle-ice-sdpfrag. RFC 8840, section 9."""

from __future__ import annotations

from dataclasses import dataclass

from gpuserver.errors import InvalidInput
from gpuserver.media.sdp import MAX_CANDIDATES, MAX_LINES
from gpuserver.wire import IceCandidate

MAX_LINE = 500  # characters of one candidate


@dataclass(frozen=True, slots=True)
class SdpFragment:
    """username_fragment: of the ICE session that the candidates belong to; None where the fragment does not say."""

    username_fragment: str | None
    candidates: tuple[IceCandidate, ...]


def read_fragment(text: str) -> SdpFragment:
    """Raises InvalidInput for what has too many lines or candidates, or too long ones."""
    lines = text.splitlines()
    if len(lines) > MAX_LINES:
        raise InvalidInput(f"The fragment has {len(lines)} lines; {MAX_LINES} are allowed.")
    fragment: str | None = None
    mid: str | None = None
    candidates: list[IceCandidate] = []
    for line in lines:
        name, _, value = line.strip().removeprefix("a=").partition(":")
        if len(value) > MAX_LINE:
            raise InvalidInput("A line of the fragment is too long.")
        if name == "ice-ufrag":
            fragment = value[:200]
        elif name == "mid":
            mid = value[:200]
        elif name == "candidate":
            candidates.append(IceCandidate(candidate=f"candidate:{value}", sdpMid=mid, usernameFragment=fragment))
    if len(candidates) > MAX_CANDIDATES:
        raise InvalidInput(f"The fragment has {len(candidates)} candidates; {MAX_CANDIDATES} are allowed.")
    return SdpFragment(fragment, tuple(candidates))
