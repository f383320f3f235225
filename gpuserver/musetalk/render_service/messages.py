"""What a renderer process and a worker say to each other: small messages; pictures and sound lie in shared memory beside them.

A message on the socket is its length (4 bytes, big-endian) and JSON: the kind, then the fields in their order, for example
["Paint", 3, 8123.04, true].
"""

from __future__ import annotations

import json
from dataclasses import astuple, dataclass, fields
from enum import StrEnum
from typing import NoReturn

LENGTH_BYTES = 4
LONGEST = 16_384  # bytes of JSON; a status has about 1,000, all others less than 500


class Outcome(StrEnum):
    """What became of something that was asked for."""

    DONE = "done"
    NOTHING = "nothing"  # the network gave no usable picture, or there was no memory for it
    STALE = "stale"  # nobody wants it any more; it was not painted
    FAILED = "failed"


# ---------------------------------------------------------------- from a worker


@dataclass(frozen=True, slots=True)
class Join:
    """The first message of a worker; answered by Ready or Unusable, as soon as the networks are loaded."""


@dataclass(frozen=True, slots=True)
class AskStatus:
    """Instead of Join: answered by Status, at once."""


@dataclass(frozen=True, slots=True)
class Paint:
    """A face of the latent and the row in this slot; answered by Painted. due, opening: as of a MouthJob."""

    slot: int
    due: float
    opening: bool


@dataclass(frozen=True, slots=True)
class Hear:
    """The steps begin to end of the spectrogram in this slot; answered by Heard."""

    slot: int
    begin: int
    end: int


# ---------------------------------------------------------------- from the renderer


@dataclass(frozen=True, slots=True)
class Ready:
    """Comes with the file descriptor of the shared memory. width: of a row; paint_slots, hear_slots: how many there are."""

    width: int
    paint_slots: int
    hear_slots: int


@dataclass(frozen=True, slots=True)
class Unusable:
    """Nothing will ever be painted here."""

    reason: str
    advice: str


@dataclass(frozen=True, slots=True)
class Share:
    """How many faces per second this worker may count on from now on."""

    frames_per_second: float


@dataclass(frozen=True, slots=True)
class Painted:
    """The picture is in the slot if `outcome` is DONE; the slot is the worker's again."""

    slot: int
    outcome: str


@dataclass(frozen=True, slots=True)
class Heard:
    """The steps are in the slot if `outcome` is DONE; NOTHING: there was no memory. The slot is the worker's again."""

    slot: int
    outcome: str


@dataclass(frozen=True, slots=True)
class Status:
    """For /health and /metrics of the router."""

    values: dict[str, object]


Message = Join | AskStatus | Paint | Hear | Ready | Unusable | Share | Painted | Heard | Status

_KINDS: dict[str, type[Message]] = {
    kind.__name__: kind for kind in (Join, AskStatus, Paint, Hear, Ready, Unusable, Share, Painted, Heard, Status)
}
_TYPES: dict[object, type] = {"int": int, "float": float, "bool": bool, "str": str, "dict[str, object]": dict}


def encode(message: Message) -> bytes:
    """Length and JSON."""
    body = json.dumps([type(message).__name__, *astuple(message)], separators=(",", ":"), allow_nan=False).encode()
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def decode(body: bytes) -> Message:
    """Raises ValueError for whatever is no message."""
    try:
        name, *values = json.loads(body, parse_constant=_refuse)
        kind = _KINDS[name]
    except (TypeError, KeyError, RecursionError) as error:
        raise ValueError("this is not a known kind of message") from error
    wanted = [_TYPES[field.type] for field in fields(kind)]
    if [type(value) for value in values] != wanted:
        raise ValueError(f"these are not the fields of {name}")
    return kind(*values)


def body_length(head: bytes) -> int:
    """Of the JSON that follows. Raises ValueError where it is longer than any message."""
    length = int.from_bytes(head, "big")
    if length > LONGEST:
        raise ValueError(f"a message of {length} bytes")
    return length


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")
