"""What browsers and the media server say to each other on the WebSocket, as pydantic models; JSON, one object a message."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gpuserver.wire import IceCandidate, NullIsAbsent, ShortText, SpokenText, Strict, Tolerant

# ---------------------------------------------------------------- client to server


class Ask(NullIsAbsent, Strict):
    """A question for the language model. queue: append instead of replacing the running Turn."""

    type: Literal["ask"]
    text: SpokenText
    queue: bool = False


class Say(NullIsAbsent, Strict):
    """Text to be spoken as it is."""

    type: Literal["say"]
    text: SpokenText
    queue: bool = False


class LegacyText(Tolerant):
    """What the existing web client sends instead of `ask`."""

    type: Literal["text", "text_webrtc"]
    content: SpokenText


class Interrupt(Strict):
    type: Literal["interrupt"]


class Configure(NullIsAbsent, Strict):
    """How the answers from the next one on are thought and spoken; replaces what the session was created with."""

    type: Literal["configure"]
    voice: ShortText | None = None
    rate: Annotated[float, Field(ge=0.5, le=2.0)] = 1.0
    model: ShortText | None = None


class WebRtcOffer(Tolerant):
    type: Literal["webrtc_offer"]
    sdp: Annotated[str, Field(min_length=1, max_length=64_000)]


class WebRtcIceCandidate(Tolerant):
    type: Literal["webrtc_ice_candidate"]
    candidate: IceCandidate | None  # null: there are no more


class Ping(Tolerant):
    type: Literal["ping"]


ClientMessage = Annotated[
    Ask | Say | LegacyText | Interrupt | Configure | WebRtcOffer | WebRtcIceCandidate | Ping, Field(discriminator="type")
]


# ---------------------------------------------------------------- server to client


class TextStream(Strict):
    """A piece of the answer's text as the language model writes it."""

    type: Literal["text_stream"] = "text_stream"
    turn: int
    delta: str


class TextComplete(Strict):
    type: Literal["text_complete"] = "text_complete"
    turn: int
    text: str


class SpeechStarted(Strict):
    """The first sound of the answer has left the server. at_ms: since the question."""

    type: Literal["speech_started"] = "speech_started"
    turn: int
    at_ms: float


class SpeechEnded(Strict):
    """The answer has been said, or was interrupted. heard: characters of the spoken text that were played."""

    type: Literal["speech_ended"] = "speech_ended"
    turn: int
    heard: int
    text: str  # the spoken text as far as it was heard


class Interrupted(Strict):
    """ms: from the interrupt to the last audible sample."""

    type: Literal["interrupted"] = "interrupted"
    turn: int
    ms: float


class TraceEvent(Strict):
    """The stages of a Turn in milliseconds since it was asked; a stage that was not reached is missing."""

    type: Literal["trace"] = "trace"
    turn: int
    marks: dict[str, float]
    model: str | None = None
    voice: str | None = None


class Notice(Strict):
    """Something the user should know while the work goes on: a fallback, a sentence that no voice can speak."""

    type: Literal["notice"] = "notice"
    turn: int | None = None
    code: str
    text: str


class WebRtcAnswer(Strict):
    type: Literal["webrtc_answer"] = "webrtc_answer"
    sdp: str


class WebRtcServerCandidate(Strict):
    type: Literal["webrtc_ice_candidate"] = "webrtc_ice_candidate"
    candidate: IceCandidate | None


class ErrorEvent(Strict):
    """error: an RFC 9457 problem object."""

    type: Literal["error"] = "error"
    turn: int | None = None
    error: dict[str, object]


SessionEnd = Literal["deleted", "avatar deleted"]
AVATAR_DELETED: SessionEnd = "avatar deleted"


class SessionLost(Strict):
    """The session is gone: it ended, or the media server restarted. Create a new one.

    reason: SessionEnd where somebody ended it, "idle", "shutdown", or a sentence.
    """

    type: Literal["session_lost"] = "session_lost"
    reason: str


class Pong(Strict):
    type: Literal["pong"] = "pong"


ServerMessage = (
    TextStream
    | TextComplete
    | SpeechStarted
    | SpeechEnded
    | Interrupted
    | TraceEvent
    | Notice
    | WebRtcAnswer
    | WebRtcServerCandidate
    | ErrorEvent
    | SessionLost
    | Pong
)
