"""The operations of the media server as OpenAPI describes them."""

from __future__ import annotations

from gpuserver.errors import (
    AvatarDamaged,
    AvatarNotFound,
    Cancelled,
    InvalidAvatarId,
    TooManyWaiting,
    Unspeakable,
    VoiceFailed,
    VoiceUnreachable,
)
from gpuserver.media.speech_service import SpeechModel, SpeechModelList, SpeechRequest
from gpuserver.web.operation import BINARY, FILE_CONTENT, Answer, Body, Operation, Operations
from gpuserver.web.operations_avatars import AVATAR_OPERATIONS, AVATARS
from gpuserver.web.operations_pages import ABOUT_REFUSALS, DOCUMENTATION_OPERATIONS, METRICS_OPERATIONS
from gpuserver.web.operations_players import FILM_OPERATIONS, LIVETALKING_OPERATIONS, WHEP_OPERATIONS
from gpuserver.web.operations_sessions import HEALTH, HEALTH_SCHEMA, health_example, session_operations
from gpuserver.wire import AvatarPreloaded

TITLE = "gpuserver: media server"
DESCRIPTION = f"""Pictures and sound. The management API makes sessions here with the internal secret; LiveTalking's pages, WHEP players and
other machines' speech clients call directly.

**Keys.** Where the server has API_KEYS, send one as `Authorization: Bearer …` or `X-API-Key: …`; LiveTalking's and WHEP's calls also take
`?api_key=…`. Without API_KEYS nothing is asked for.

{ABOUT_REFUSALS}

LiveTalking's own calls answer 200 with `code: -1` and a sentence, as its clients expect."""

SPEECH = "Speech"
_VOICE_HEADER = {"X-Voice": "Who speaks. X-Voice-Fallback says why, where that is not the preferred voice."}

OPERATIONS: Operations = {
    "GET /health": Operation(
        HEALTH, "Whether it runs, and how full it is", (Answer("It runs.", HEALTH_SCHEMA, health_example("gpuserver-media")),)
    ),
    **LIVETALKING_OPERATIONS,
    **FILM_OPERATIONS,
    **WHEP_OPERATIONS,
    "POST /v1/audio/speech": Operation(
        SPEECH,
        "Speak a text, in OpenAI's shape",
        tuple(
            Answer("The sound, while it is spoken.", BINARY, FILE_CONTENT, content_type=content_type, headers=_VOICE_HEADER)
            for content_type in ("audio/mpeg", "audio/wav", "audio/pcm")
        ),
        body=Body(
            SpeechRequest,
            {"default": {"input": "Welcome!"}, "wav": {"input": "Welcome!", "voice": "hibari", "response_format": "wav", "speed": 1.2}},
        ),
        errors=(TooManyWaiting, Unspeakable, VoiceFailed, VoiceUnreachable),
    ),
    "GET /tts/models": Operation(
        SPEECH,
        "List this server's own voices",
        (Answer("The preferred one first.", SpeechModelList, SpeechModelList(data=[SpeechModel(id="hibari", available=True)])),),
    ),
    **session_operations(),
    **AVATAR_OPERATIONS,
    "POST /v1/avatars/{avatar_id}/preload": Operation(
        AVATARS,
        "Load an avatar before it is needed",
        (
            Answer(
                "The next session with it reads nothing from disk.", AvatarPreloaded, AvatarPreloaded(avatar_id="demo", bytes=97_517_568)
            ),
        ),
        errors=(InvalidAvatarId, AvatarNotFound, AvatarDamaged, Cancelled),
    ),
    **DOCUMENTATION_OPERATIONS,
    **METRICS_OPERATIONS,
}
