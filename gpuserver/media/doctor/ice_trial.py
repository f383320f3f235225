"""Tries a candidate as a browser would: a client on this machine connects to that one address and no other."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from aioice import Candidate, Connection, TransportPolicy

from gpuserver.media.ice_connection import IceConnection, IceNetwork

TRIAL_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Trial:
    """Whether a client got through to the candidate."""

    candidate: Candidate
    works: bool


async def try_candidates(network: IceNetwork, kind: str) -> list[Trial]:
    """Every candidate of that kind, "host" or "relay", that the network announces. Raises NoFreePort."""
    alone = replace(network, stun_server=None)
    alone = replace(alone, policy=TransportPolicy.RELAY) if kind == "relay" else replace(alone, relay=None)
    probe = IceConnection(alone, None, None)
    try:
        await probe.gather_candidates()
        candidates = [candidate for candidate in probe.local_candidates if candidate.type == kind]
    finally:
        await probe.close()
    if kind == "relay":
        return [Trial(candidate, await _connects(alone, None)) for candidate in candidates[:1]]
    return list(await asyncio.gather(*(_trial(alone, candidate) for candidate in candidates)))


async def _trial(network: IceNetwork, candidate: Candidate) -> Trial:
    return Trial(candidate, await _connects(network, candidate.host))


async def _connects(network: IceNetwork, address: str | None) -> bool:
    """Whether a client that knows only our candidate at `address`, or whichever there is, gets through to us."""
    ours, client = IceConnection(network, None, None), Connection(ice_controlling=True)
    try:
        await asyncio.gather(ours.gather_candidates(), client.gather_candidates())
        known = [candidate for candidate in ours.local_candidates if address in (None, candidate.host)]
        client.remote_username, client.remote_password = ours.local_username, ours.local_password
        ours.remote_username, ours.remote_password = client.local_username, client.local_password
        if address is None:  # a relay lets through whom we have written to
            for candidate in client.local_candidates:
                await ours.add_remote_candidate(candidate)
        for candidate in known:
            await client.add_remote_candidate(candidate)
        async with asyncio.timeout(TRIAL_SECONDS):
            await asyncio.gather(ours.connect(), client.connect())
    except (TimeoutError, ConnectionError):
        return False
    finally:
        await asyncio.gather(ours.close(), client.close())
    return True
