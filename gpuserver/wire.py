"""What crosses a process or the network, as pydantic models. Both processes use these; nothing else parses a body.

Bodies are strict. /v1/avatars and /v1/sessions ignore unknown fields (existing web servers send more); the routes log them.
The WebSocket's messages are in messages.py.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

AVATAR_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def check_avatar_id(value: str) -> str:
    """The value itself; ValueError if it is not an avatar id."""
    if not AVATAR_ID.fullmatch(value):
        raise ValueError("must be 1 to 64 characters of A-Z a-z 0-9 _ -")
    return value


def _int_to_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


_TEXT_OR_NUMBER = {"anyOf": [{"type": "string", "minLength": 1, "maxLength": 200}, {"type": "integer"}]}

AvatarId = Annotated[str, AfterValidator(check_avatar_id), WithJsonSchema({"type": "string", "pattern": f"^{AVATAR_ID.pattern}$"})]
Reference = Annotated[  # tutor_id, student_id: int or text
    str, BeforeValidator(_int_to_text), Field(min_length=1, max_length=200), WithJsonSchema(_TEXT_OR_NUMBER)
]
ShortText = Annotated[str, Field(max_length=200)]
SpokenText = Annotated[str, Field(max_length=100_000)]


class Tolerant(BaseModel):
    """A body whose unknown fields are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class Strict(BaseModel):
    """A body whose unknown fields are refused."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


def _allow_null(schema: dict[str, Any]) -> None:
    """Say in the schema what NullIsAbsent does."""
    for name, shape in schema["properties"].items():
        if name not in schema.get("required", ()) and {"type": "null"} not in shape.get("anyOf", ()):
            kept = {key: shape.pop(key) for key in ("default", "title") if key in shape}
            schema["properties"][name] = {"anyOf": [shape, {"type": "null"}], **kept}


class NullIsAbsent(BaseModel):
    """Of a request: null in a field that may be left out means that it is. Many JSON clients write it so."""

    model_config = ConfigDict(json_schema_extra=_allow_null)

    @model_validator(mode="before")
    @classmethod
    def _leave_out_nulls(cls, sent: object) -> object:
        if not isinstance(sent, dict):
            return sent
        optional = {name for name, field in cls.model_fields.items() if not field.is_required()}
        return {name: value for name, value in sent.items() if value is not None or name not in optional}


# ---------------------------------------------------------------- avatars


class AvatarProfile(Tolerant):
    """What its maker says about an avatar, for lists that people read. Kept with the avatar; nothing is done by it."""

    description: Annotated[str, Field(max_length=1000)] = ""
    timbre: ShortText = ""
    tts_model: ShortText = ""
    avatar_model: ShortText = ""  # the one asked for; `engine` is the one that was used


class CreateAvatar(NullIsAbsent, AvatarProfile):
    """POST /v1/avatars."""

    avatar_id: AvatarId
    video_path: Annotated[str, Field(min_length=1, max_length=4096)]
    apply_blur: bool = False
    tutor_id: Reference | None = None


class AvatarCreated(Strict):
    """201 of POST /v1/avatars and /v1/avatars/upload."""

    status: Literal["success"] = "success"
    avatar_id: str
    avatar_path: str
    message: str
    mock: bool = False
    engine: str = "warp"  # what draws the lips: warp or musetalk


class AvatarPreloaded(Strict):
    """200 of POST /v1/avatars/{id}/preload on the media server. bytes: of pictures, now in memory."""

    status: Literal["success"] = "success"
    avatar_id: str
    bytes: int


class QualityReport(Tolerant):
    """What preparation found in the video. Openings are in units of the mouth's width. Of a refused video used_frames is 0."""

    source_frames: int  # frames at 25 fps before cutting
    used_frames: int
    frames_without_face: int
    frames_turned_away: int = 0
    frames_mouth_covered: int = 0
    frames_with_other_faces: int = 0  # of similar size
    brightness: int = 0  # of the face: mean grey level 0..255
    sharpness: float = 0.0  # of the face; below 0.012 it looks blurred
    loop_jerk: float = 0.0  # where the loop turns: how fast the head still moves, in eye distances per second
    face_width: int  # pixels, median
    mouth_width: int  # pixels, median
    mouth_opening_at_rest: float  # median
    advice: list[str] = []


class MuseTalkPreparation(Tolerant):
    """How an avatar is prepared for MuseTalk. parsing: what finds the skin around the mouth, BiSeNet or the face mesh."""

    version: Literal["V1.5", "V1.0"]
    mask: Literal["jaw", "raw", "neck"]
    parsing: Literal["bisenet", "landmarks"]
    bbox_shift: int = 0  # pixels
    extra_margin: int = 0  # pixels


class AvatarInfo(AvatarProfile):
    """GET /v1/avatars/{id}, and avatar.json in the avatar's folder (there without what changes later: avatar_path, bytes,
    last_used_at, the profile, and what it was prepared for besides the warp engine)."""

    avatar_id: AvatarId
    tutor_id: str | None = None
    engine: str = "warp"  # what draws the lips now
    musetalk: MuseTalkPreparation | None = None  # where it is prepared for MuseTalk as this server is set up
    frames: int
    fps: int = 25
    width: int
    height: int
    seconds: float
    bytes: int = 0
    created_at: Annotated[datetime, Field(strict=False)]
    last_used_at: Annotated[datetime | None, Field(strict=False)] = None
    apply_blur: bool = False
    mock: bool = False
    avatar_path: str = ""
    quality: QualityReport


class AvatarList(Strict):
    """GET /v1/avatars."""

    total: int
    avatars: list[str] | list[AvatarInfo]


class Job(Strict):
    """202 of POST /v1/avatars with `Prefer: respond-async`, GET /v1/jobs/{id}, and every event of GET /v1/jobs/{id}/events.

    stage: what is being done, one word. report: as soon as the video has been looked at, before the avatar is written.
    """

    job_id: str
    avatar_id: str
    state: Literal["queued", "running", "done", "failed", "cancelled"] = "queued"
    progress: Annotated[float, Field(ge=0, le=1)] = 0.0
    stage: str = "queued"
    report: QualityReport | None = None
    result: AvatarCreated | None = None  # of a job that is done
    error: dict[str, object] | None = None  # an RFC 9457 problem object, of a job that failed or was cancelled

    @property
    def has_ended(self) -> bool:
        return self.state in {"done", "failed", "cancelled"}


# ---------------------------------------------------------------- sessions


class HistoryItem(Strict):
    role: Literal["user", "assistant", "system"]
    content: Annotated[str, Field(max_length=32_000)]


class CreateSession(NullIsAbsent, Tolerant):
    """POST /v1/sessions."""

    tutor_id: Reference
    student_id: Reference
    avatar_id: AvatarId | None = None
    kb_id: Reference | None = None
    voice: ShortText | None = None
    rate: Annotated[float, Field(ge=0.5, le=2.0)] = 1.0  # of speech; 1.0 is normal
    model: ShortText | None = None
    system_prompt: Annotated[str, Field(max_length=32_000)] | None = None
    history: Annotated[list[HistoryItem], Field(max_length=50)] = []


class VoiceInfo(Strict):
    """A voice that CreateSession.voice may name. language: BCP 47; "mul" where it speaks several. available: it answers now."""

    id: str
    name: str
    language: str
    available: bool = True


class VoiceList(Strict):
    """GET /v1/voices: the preferred ones first. A session that names none is spoken to in the language of each sentence."""

    total: int
    voices: list[VoiceInfo]


class ModelInfo(Strict):
    """A language model that CreateSession.model may name. default: it answers where a session names none."""

    id: str
    default: bool = False


class ModelList(Strict):
    """GET /v1/models: what the language model's server has; empty while none is reachable."""

    total: int
    models: list[ModelInfo]


class IceServer(Strict):
    urls: list[str]
    username: str | None = None
    credential: str | None = None


class WebRtcConfig(Strict):
    """GET /v1/webrtc/config; the browser's RTCConfiguration plus what an operator wants to see."""

    iceServers: list[IceServer] = []
    iceTransportPolicy: Literal["all", "relay"] = "all"
    publicIp: str | None = None
    portRange: list[int] | None = None


class Finding(Strict):
    """One line of the doctor's list; advice: what to do, where something is to be done.

    status: "fail" where something needed does not work, "warning" where the server does without it, "off" where it is not asked for.
    """

    name: str
    status: Literal["ok", "warning", "fail", "off"]
    detail: str
    advice: str | None = None


class Diagnosis(Strict):
    """GET /v1/diagnosis. healthy: nothing that is needed fails."""

    healthy: bool
    findings: list[Finding]


class SessionCreated(Strict):
    """201 of POST /v1/sessions."""

    session_id: str
    engine_url: str
    engine_token: str
    status: Literal["active"] = "active"
    avatar_id: str
    engine: str = "warp"  # what draws the lips now
    engine_fallback: str | None = None  # why that is not the engine that is wanted
    webrtc: WebRtcConfig


class SessionInfo(Strict):
    """GET /v1/sessions/{id}."""

    session_id: str
    status: Literal["active"] = "active"
    tutor_id: str
    student_id: str
    avatar_id: str
    kb_id: str | None = None
    created_at: Annotated[datetime, Field(strict=False)]
    idle_seconds: float
    connected: bool  # a peer is attached
    speaking: bool


class SessionList(Strict):
    """GET /v1/sessions."""

    total: int
    sessions: list[SessionInfo]


class Offer(Strict):
    """POST /v1/sessions/{id}/offer, and its answer."""

    sdp: Annotated[str, Field(min_length=1, max_length=64_000)]
    type: Literal["offer", "answer"]


class IceCandidate(Strict):
    """PATCH /v1/sessions/{id}/ice: RTCIceCandidate.toJSON() of the browser. An empty candidate means there are no more."""

    candidate: Annotated[str, Field(max_length=2_000)]
    sdpMid: ShortText | None = None
    sdpMLineIndex: Annotated[int, Field(ge=0, le=64)] | None = None
    usernameFragment: ShortText | None = None
