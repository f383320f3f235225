"""LiveTalking's HTTP API and WHEP as OpenAPI describes them: on the media server, and through the gateway's proxy."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, RootModel

from gpuserver.errors import (
    AvatarDamaged,
    AvatarNotFound,
    Full,
    InvalidInput,
    InvalidSdp,
    NoFreePort,
    PreconditionFailed,
    RateLimited,
    SessionNotFound,
    TooManyWaiting,
    Unavailable,
    Unprocessable,
    UpstreamFailed,
)
from gpuserver.player_wire import Accepted, Human, LiveTalkingAnswer, LiveTalkingOffer, OfSession, Outcome, Record, SetAudiotype, Spoken
from gpuserver.web.operation import (
    FILE_CONTENT,
    FORM,
    RANGE,
    STRING,
    Answer,
    Body,
    Operation,
    Operations,
    Parameter,
    file_answers,
    no_content,
)
from gpuserver.web.operations_sessions import SDP_EXAMPLE
from gpuserver.wire import Tolerant

LIVETALKING, WHEP = "LiveTalking", "WHEP"
SDP, FRAGMENT = "application/sdp", "application/trickle-ice-sdpfrag"
OWN_WORDS = "Every answer of this call itself has the status 200; `code` is 0, or -1 with a `msg` that says what went wrong."

_DONE = Answer("Done, or why not.", Outcome, {"code": 0, "msg": "ok"})
_OF_SESSION = Body(OfSession, {"session": {"sessionid": 2718281828}})
_ADDRESS = "The session's address is known to its player alone, so that it needs no key."
_IF_MATCH = Parameter("If-Match", "header", "The ETag of POST /whep/{avatar_id}, or *.")


class HumanAudio(Tolerant):
    """The form of POST /humanaudio."""

    sessionid: Annotated[str, Field(pattern="^[0-9]{1,16}$")]
    file: Annotated[bytes, Field(description="A sound file: WAV, MP3, Opus, AAC and others; at most 64 MB.")]


class Connected(RootModel[LiveTalkingAnswer | Outcome]):
    """The answer to POST /offer."""


LIVETALKING_OPERATIONS: Operations = {
    "POST /offer": Operation(
        LIVETALKING,
        "Begin a session with a peer",
        (
            Answer(
                "The answer and the session's number, or what went wrong.",
                Connected,
                LiveTalkingAnswer(sdp=SDP_EXAMPLE, sessionid=2718281828),
            ),
        ),
        OWN_WORDS,
        Body(LiveTalkingOffer, {"offer": {"sdp": SDP_EXAMPLE, "type": "offer", "avatar": "demo"}}),
    ),
    "POST /human": Operation(
        LIVETALKING,
        "Let the avatar say a text or answer a question",
        (_DONE,),
        OWN_WORDS,
        Body(
            Human,
            {
                "echo": {"sessionid": 2718281828, "text": "Welcome!", "type": "echo"},
                "chat": {"sessionid": 2718281828, "text": "What is inertia?", "type": "chat", "interrupt": True},
            },
        ),
    ),
    "POST /humanaudio": Operation(
        LIVETALKING,
        "Let the avatar say a sound file",
        (_DONE,),
        OWN_WORDS,
        Body(HumanAudio, {"file": {"sessionid": "2718281828", "file": FILE_CONTENT}}, (FORM,)),
    ),
    "POST /interrupt_talk": Operation(LIVETALKING, "Silence the avatar", (_DONE,), OWN_WORDS, _OF_SESSION),
    "POST /is_speaking": Operation(
        LIVETALKING,
        "Whether the avatar speaks or thinks",
        (Answer("As `data`.", Outcome, {"code": 0, "msg": "ok", "data": False}),),
        OWN_WORDS,
        _OF_SESSION,
    ),
    "POST /record": Operation(
        LIVETALKING,
        "Begin a recording, or end it and have the film",
        (
            Answer(
                "The film is at data.url.", Outcome, {"code": 0, "msg": "ok", "data": {"url": "/record/2718281828.mp4", "seconds": 12.4}}
            ),
        ),
        OWN_WORDS,
        Body(
            Record,
            {
                "begin": {"sessionid": 2718281828, "type": "start_record"},
                "end": {"sessionid": 2718281828, "type": "end_record"},
            },
        ),
    ),
    "POST /set_audiotype": Operation(
        LIVETALKING,
        "Accepted, without effect: avatars here have one idle loop",
        (_DONE,),
        OWN_WORDS,
        Body(SetAudiotype, {"two": {"sessionid": 2718281828, "audiotype": 2}}),
    ),
}

FILM_OPERATIONS: Operations = {
    f"GET /record/{{sessionid}}{suffix}": Operation(
        LIVETALKING, "The session's last film", file_answers("video/mp4", "The film."), parameters=(RANGE,)
    )
    for suffix in ("", ".mp4")
}

WHEP_OPERATIONS: Operations = {
    "POST /whep/{avatar_id}": Operation(
        WHEP,
        "Play an avatar",
        (
            Answer(
                "The SDP answer.",
                STRING,
                SDP_EXAMPLE,
                201,
                SDP,
                {"Location": "The session, for PATCH and DELETE.", "ETag": "The ICE session.", "Accept-Patch": f"{FRAGMENT}."},
            ),
        ),
        "The session lives as long as its player.",
        Body(STRING, {"offer": SDP_EXAMPLE}, (SDP,)),
        errors=(InvalidSdp, AvatarNotFound, AvatarDamaged, Full, NoFreePort, UpstreamFailed, Unavailable),
    ),
    "PATCH /whep/sessions/{session_id}": Operation(
        WHEP,
        "Send candidates of the player",
        (no_content("They are tried."),),
        _ADDRESS,
        Body(
            STRING,
            {"candidates": "a=ice-ufrag:Yk1u\r\na=mid:0\r\na=candidate:1 1 udp 2122260223 192.0.2.7 50123 typ host\r\n"},
            (FRAGMENT,),
        ),
        (_IF_MATCH,),
        (SessionNotFound, InvalidSdp, PreconditionFailed, Unprocessable, RateLimited),
        is_open=True,
    ),
    "DELETE /whep/sessions/{session_id}": Operation(
        WHEP, "End the session", (no_content("It is over.", 200),), _ADDRESS, errors=(SessionNotFound, RateLimited), is_open=True
    ),
    **{
        f"POST /whep/sessions/{{session_id}}/{call}": Operation(
            WHEP,
            summary,
            (Answer("It will be said.", Accepted, Accepted(turn=3)),),
            body=Body(Spoken, {"now": {"text": text}, "afterwards": {"text": text, "queue": True}}),
            errors=(SessionNotFound, TooManyWaiting, InvalidInput),
        )
        for call, summary, text in (
            ("say", "Let the avatar say a text", "Welcome!"),
            ("ask", "Let the avatar answer a question", "What is inertia?"),
        )
    },
    "POST /whep/sessions/{session_id}/interrupt": Operation(
        WHEP, "Silence the avatar", (no_content("It is silent."),), errors=(SessionNotFound,)
    ),
}
