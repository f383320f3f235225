"""Sessions, their signalling and their WebSocket as OpenAPI describes them: what both processes answer alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import get_args

from pydantic import BaseModel

from gpuserver.errors import (
    AvatarDamaged,
    AvatarNotFound,
    Full,
    InvalidAvatarId,
    InvalidSdp,
    LanguageModelFailed,
    NoFreePort,
    SessionNotFound,
    Unauthorized,
    Unavailable,
    UpgradeRequired,
    UpstreamFailed,
)
from gpuserver.messages import ClientMessage, ServerMessage
from gpuserver.web.operation import Answer, Body, Error, Operation, Operations, no_content
from gpuserver.wire import (
    CreateSession,
    Diagnosis,
    Finding,
    IceCandidate,
    IceServer,
    ModelInfo,
    ModelList,
    Offer,
    SessionCreated,
    SessionInfo,
    SessionList,
    VoiceInfo,
    VoiceList,
    WebRtcConfig,
)

SESSIONS, WEBRTC, CHOICES, HEALTH = "Sessions", "WebRTC", "Choices", "Health"

SDP_EXAMPLE = "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n…"
_WEBRTC = WebRtcConfig(iceServers=[IceServer(urls=["stun:stun.example.org:3478"])])
_CREATED = SessionCreated(
    session_id="2f1c9a7be04d4c0c",
    engine_url="wss://gpu.example.org/ws/2f1c9a7be04d4c0c",
    engine_token="kx1nYd0b4Rk",  # noqa: S106 - an example
    avatar_id="ms_lee",
    webrtc=_WEBRTC,
)
_INFO = SessionInfo(
    session_id="2f1c9a7be04d4c0c",
    tutor_id="7",
    student_id="1042",
    avatar_id="ms_lee",
    created_at=datetime(2026, 3, 1, 9, 30, tzinfo=UTC),
    idle_seconds=2.5,
    connected=True,
    speaking=False,
)
_VOICES = VoiceList(total=1, voices=[VoiceInfo(id="zh-CN-XiaoxiaoNeural", name="Xiaoxiao", language="zh-CN")])
_MODELS = ModelList(total=1, models=[ModelInfo(id="mistral-nemo:12b", default=True)])
_DIAGNOSIS = Diagnosis(
    healthy=True,
    findings=[
        Finding(name="WebRTC directly", status="ok", detail="A client on this machine gets through to 203.0.113.7 UDP 8200."),
        Finding(
            name="UDP port",
            status="ok",
            detail="UDP 8200 is all that browsers send to.",
            advice="Open it from outside: docker run -p 8200:8200/udp …, and in the firewall UDP 8200.",
        ),
    ],
)
_CANDIDATE = IceCandidate(
    candidate="candidate:1 1 udp 2122260223 192.0.2.7 50123 typ host", sdpMid="0", sdpMLineIndex=0, usernameFragment="Yk1u"
)

HEALTH_SCHEMA = {
    "type": "object",
    "required": ["status", "service", "active_sessions", "max_sessions", "components"],
    "properties": {
        "status": {"enum": ["healthy", "degraded", "unhealthy"]},
        "service": {"type": "string"},
        "active_sessions": {"type": "integer", "minimum": 0},
        "max_sessions": {"type": "integer", "minimum": 1},
        "components": {"type": "object", "additionalProperties": {"type": "object"}},
    },
}


def health_example(service: str, status: str = "healthy") -> dict[str, object]:
    """A body of GET /health."""
    return {"status": status, "service": service, "active_sessions": 1, "max_sessions": 10, "components": {"voice": {"voice": "hibari"}}}


def _message_line(kind: type[BaseModel]) -> str:
    """What a message is called, its fields, and what its docstring says."""
    names = get_args(kind.model_fields["type"].annotation)
    fields = [name if field.is_required() else f"{name}?" for name, field in kind.model_fields.items() if name != "type"]
    said = (kind.__doc__ or "").strip().partition("\n")[0] if kind.__doc__ and not kind.__doc__.startswith("!") else ""
    return f"- `{'`, `'.join(names)}` ({', '.join(fields) or 'nothing else'})" + (f": {said}" if said else "")


def _lines(kinds: Iterable[type[BaseModel]]) -> str:
    return "\n".join(_message_line(kind) for kind in kinds)


_CLIENT_KINDS = get_args(get_args(ClientMessage)[0])
_SERVER_KINDS = get_args(ServerMessage)
WEBSOCKET = f"""JSON objects in text frames; each has a `type`. Open it with `?token={{engine_token}}` or `Authorization: Bearer …`.

From the client (`?` may be left out):

{_lines(_CLIENT_KINDS)}

From the server:

{_lines(_SERVER_KINDS)}

Close codes: 4404 the session is over, 1012 the server restarts, 1013 the client reads too slowly, 1008 it sends too many messages."""

_SESSION_OPERATIONS: Mapping[str, Operation] = {
    "POST /v1/sessions": Operation(
        SESSIONS,
        "Create a session",
        (Answer("It runs.", SessionCreated, _CREATED, 201, headers={"Location": "The session."}),),
        "Without avatar_id the newest avatar of the tutor is shown. The browser goes on with engine_url and engine_token.",
        Body(
            CreateSession,
            {
                "short": {"tutor_id": 7, "student_id": 1042, "avatar_id": "demo"},
                "long": {
                    "tutor_id": "7",
                    "student_id": "1042",
                    "avatar_id": "demo",
                    "kb_id": "physics-8",
                    "rate": 0.9,
                    "system_prompt": "You teach physics to twelve-year-olds.",
                    "history": [{"role": "user", "content": "What is inertia?"}],
                },
            },
        ),
        errors=(InvalidAvatarId, AvatarNotFound, AvatarDamaged, Full, Unavailable),
    ),
    "GET /v1/sessions": Operation(
        SESSIONS, "List the sessions", (Answer("All of them.", SessionList, SessionList(total=1, sessions=[_INFO])),)
    ),
    "GET /v1/sessions/{session_id}": Operation(
        SESSIONS, "Show a session", (Answer("How it is.", SessionInfo, _INFO),), errors=(SessionNotFound,)
    ),
    "DELETE /v1/sessions/{session_id}": Operation(SESSIONS, "End a session", (no_content("It is over."),), errors=(SessionNotFound,)),
    "POST /v1/sessions/{session_id}/offer": Operation(
        WEBRTC,
        "Connect a browser",
        (Answer("The answer for setRemoteDescription().", Offer, Offer(sdp=SDP_EXAMPLE, type="answer")),),
        "At most 64 kB. A new offer replaces the peer that is connected.",
        Body(Offer, {"offer": {"sdp": SDP_EXAMPLE, "type": "offer"}}),
        errors=(SessionNotFound, InvalidSdp, NoFreePort, UpstreamFailed),
    ),
    "PATCH /v1/sessions/{session_id}/ice": Operation(
        WEBRTC,
        "Send a candidate of the browser",
        (no_content("It is tried."),),
        body=Body(IceCandidate, {"candidate": _CANDIDATE, "no more": {"candidate": ""}}),
        errors=(SessionNotFound,),
    ),
    "GET /v1/voices": Operation(
        CHOICES, "List the voices that a session may name", (Answer("The preferred ones first.", VoiceList, _VOICES),)
    ),
    "GET /v1/models": Operation(
        CHOICES,
        "List the language models that a session may name",
        (Answer("Empty while no server of models is reachable.", ModelList, _MODELS),),
        errors=(LanguageModelFailed,),
    ),
    "GET /v1/diagnosis": Operation(
        HEALTH,
        "Try everything that the server depends on",
        (Answer("What works, what does not, and what to do; it takes up to 15 s.", Diagnosis, _DIAGNOSIS),),
    ),
}

_OWN_OPERATIONS: Operations = {
    "GET /v1/webrtc/config": Operation(
        WEBRTC, "What RTCPeerConnection is to be made with", (Answer("An RTCConfiguration, and more.", WebRtcConfig, _WEBRTC),)
    ),
    **{
        f"GET {path}": Operation(
            WEBRTC,
            "The session's WebSocket",
            (Answer("The connection is a WebSocket now.", status=101),),
            WEBSOCKET,
            errors=(SessionNotFound, Unauthorized, UpgradeRequired),
        )
        for path in ("/ws/{session_id}", "/ws/ws/{session_id}")
    },
}


def session_operations(*more_errors: Error) -> Operations:
    """The operations, which may be refused with `more_errors` as well where another process carries them out."""
    passed_on = {key: replace(operation, errors=(*operation.errors, *more_errors)) for key, operation in _SESSION_OPERATIONS.items()}
    return {**passed_on, **_OWN_OPERATIONS}
