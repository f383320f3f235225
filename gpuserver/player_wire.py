"""What LiveTalking's web clients and WHEP players say to the media server, directly or through the gateway.

LiveTalking's bodies may have unknown fields, which are ignored; a sessionid is a number or its digits.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from gpuserver.wire import AvatarId, NullIsAbsent, ShortText, SpokenText, Strict, Tolerant

LAST_NUMBER = 2**53 - 1  # the largest integer that JavaScript's numbers hold exactly
MOST_AUDIO_BYTES = 64 * 1024**2  # of POST /humanaudio; five minutes of 48 kHz stereo WAV are 58 MB


def _from_digits(value: object) -> object:
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 16 else value


def _empty_is_none(value: object) -> object:
    return None if value == "" else value


SessionNumber = Annotated[
    int,
    BeforeValidator(_from_digits),
    Field(ge=0, le=LAST_NUMBER),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0, "maximum": LAST_NUMBER}, {"type": "string", "pattern": "^[0-9]{1,15}$"}]}),
]


class LiveTalkingOffer(NullIsAbsent, Tolerant):
    """POST /offer. avatar: the newest one where it is missing. refaudio: the name of a voice."""

    sdp: Annotated[str, Field(min_length=1, max_length=64_000)]
    type: Literal["offer"]
    avatar: Annotated[AvatarId | None, BeforeValidator(_empty_is_none)] = None
    refaudio: Annotated[ShortText | None, BeforeValidator(_empty_is_none)] = None


class LiveTalkingAnswer(Tolerant):
    """The answer to POST /offer."""

    sdp: str
    type: Literal["answer"] = "answer"
    sessionid: int


class OfSession(NullIsAbsent, Tolerant):
    """POST /interrupt_talk, /is_speaking."""

    sessionid: SessionNumber


class Human(OfSession):
    """POST /human. echo: the text is said as it is; chat: the language model answers it. interrupt: it replaces what is being said."""

    text: SpokenText
    type: Literal["echo", "chat"]
    interrupt: bool = False


class Record(OfSession):
    """POST /record."""

    type: Literal["start_record", "end_record"]


class SetAudiotype(OfSession):
    """POST /set_audiotype: the number of a silent video clip in LiveTalking, which avatars here do not have."""

    audiotype: Annotated[int, Field(ge=0, le=1_000_000)]
    reinit: bool = False


class Outcome(Tolerant):
    """Every other answer. code: 0, or -1 with a msg that says what went wrong."""

    code: int = 0
    msg: str = "ok"
    data: object = None


# ---------------------------------------------------------------- WHEP


class Spoken(NullIsAbsent, Strict):
    """POST /whep/sessions/{session_id}/say and …/ask. queue: append instead of replacing what is being said."""

    text: SpokenText
    queue: bool = False


class Accepted(Strict):
    """The answer to both. turn: the number of what will be said."""

    turn: int
