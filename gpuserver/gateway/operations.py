"""The operations of the Avatar Service as OpenAPI describes them."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from gpuserver.errors import AvatarInUse, Cancelled, LanguageModelFailed, LipSyncFailed, NoLanguageModel, UnknownModel
from gpuserver.gateway.proxy import PREFIX
from gpuserver.gateway.wire import (
    AvatarHealth,
    AvatarMade,
    AvatarsByName,
    ChatAnswer,
    ChatHealth,
    ChatModels,
    ChatRequest,
    Done,
    ListedAvatar,
    ServiceState,
)
from gpuserver.web.operation import (
    EVENT_STREAM,
    EVENTS,
    FILE_CONTENT,
    FORCE,
    FORM,
    IF_NONE_MATCH,
    REPLACE,
    URLENCODED,
    Answer,
    Body,
    Operation,
    Operations,
    file_answers,
)
from gpuserver.web.operations_avatars import CREATION_ERRORS, ONE_AVATAR_ERRORS
from gpuserver.web.operations_pages import ABOUT_REFUSALS, DOCUMENTATION_OPERATIONS, METRICS_OPERATIONS
from gpuserver.web.operations_players import LIVETALKING_OPERATIONS, WHEP_OPERATIONS
from gpuserver.wire import AvatarId, AvatarProfile, Reference, Tolerant

TITLE = "gpuserver: Avatar Service"
DESCRIPTION = f"""Chat, avatars and a WebRTC proxy in one place. It keeps no state; any number of copies serve the same clients.

**Keys.** Where the server has API_KEYS, send one as `Authorization: Bearer …` or `X-API-Key: …`; previews and the proxy also take
`?api_key=…`.

{ABOUT_REFUSALS}"""

CHAT, AVATAR_SERVICE, PROXY = "Chat", "Avatar Service", "WebRTC proxy"

_QUESTION = Body(
    ChatRequest,
    {
        "question": {"message": "What is inertia?"},
        "with history": {
            "message": "And on the moon?",
            "conversation_history": [
                {"role": "user", "content": "What is inertia?"},
                {"role": "assistant", "content": "A body keeps its motion unless a force acts on it."},
            ],
            "model": "mistral-nemo:12b",
        },
    },
)
_LISTED = ListedAvatar(
    description="Teaches physics",
    timbre="",
    tts_model="edge-tts",
    avatar_model="warp",
    engine="warp",
    image_path="/api/avatar/preview/ms_lee",
)
_MADE = AvatarMade(
    message="Avatar created successfully.",
    avatar_id="ms_lee",
    image_path="/api/avatar/preview/ms_lee",
    avatar_model="MuseTalk",
    engine="warp",
)
_STREAM = 'data: {"content": "Inertia"}\n\ndata: {"content": " is …"}\n\ndata: [DONE]\n\n'
_UP = ServiceState(url="http://localhost:8615", status="connected")
_DOWN = ServiceState(url="http://localhost:8615", status="disconnected", message="It does not answer.")


class AvatarForm(AvatarProfile):
    """The form of POST /api/avatar/create; its fields may come in any order."""

    name: AvatarId
    prompt_face: Annotated[bytes, Field(description="A video or picture of the face.")]
    avatar_blur: bool = False
    tutor_id: Reference | None = None
    support_clone: Annotated[bool, Field(description="No voice is cloned; the answer says so.")] = False
    prompt_voice: Annotated[bytes | None, Field(description="Taken, not used, not kept.")] = None


class NameForm(Tolerant):
    """The form that names an avatar; `name` is taken as well."""

    avatar_name: AvatarId


_NAME = Body(NameForm, {"avatar": {"avatar_name": "demo"}}, (URLENCODED, FORM))


def _health(status: str, state: ServiceState) -> AvatarHealth:
    return AvatarHealth(status="healthy" if status == "healthy" else "unhealthy", lipsync=state, tts=state)


GATEWAY_OPERATIONS: Operations = {
    "POST /api/chat/completion": Operation(
        CHAT,
        "Answer a question",
        (Answer("The whole answer.", ChatAnswer, ChatAnswer(response="A body keeps its motion …", model="mistral-nemo:12b")),),
        body=_QUESTION,
        errors=(UnknownModel, LanguageModelFailed, NoLanguageModel, Cancelled),
    ),
    "POST /api/chat/stream": Operation(
        CHAT,
        "Answer a question, token by token",
        (Answer("Events.", EVENT_STREAM, _STREAM, content_type=EVENTS),),
        'Server-sent events: `data: {"content": …}` for every token, comment lines while nothing comes, `event: error` with a problem '
        "object where it fails, `data: [DONE]` last. The model stops when the client goes away.",
        _QUESTION,
    ),
    "GET /api/chat/models": Operation(
        CHAT,
        "List the language models",
        (Answer("Their names.", ChatModels, ChatModels(models=["mistral-nemo:12b"], default="mistral-nemo:12b")),),
        errors=(NoLanguageModel, LanguageModelFailed),
    ),
    "GET /api/chat/health": Operation(
        CHAT,
        "Who would answer now",
        (
            Answer("A model.", ChatHealth, ChatHealth(status="healthy", model="mistral-nemo:12b", ollama="connected")),
            Answer(
                "Only the echo.",
                ChatHealth,
                ChatHealth(status="unhealthy", model="echo", ollama="disconnected", fallback=True, notice="Ollama does not answer."),
                503,
            ),
        ),
    ),
    "GET /api/avatar/list": Operation(
        AVATAR_SERVICE,
        "List the avatars by name",
        (Answer("All of them.", AvatarsByName, {"ms_lee": _LISTED.model_dump(mode="json")}),),
        errors=(LipSyncFailed,),
    ),
    "POST /api/avatar/create": Operation(
        AVATAR_SERVICE,
        "Create an avatar",
        (Answer("It is ready.", AvatarMade, _MADE),),
        body=Body(AvatarForm, {"video": {"name": "ms_lee", "avatar_model": "MuseTalk", "prompt_face": FILE_CONTENT}}, (FORM,)),
        parameters=(REPLACE,),
        errors=(*CREATION_ERRORS, LipSyncFailed),
    ),
    "POST /api/avatar/start": Operation(
        AVATAR_SERVICE,
        "Load an avatar before it is needed",
        (Answer("The next session need not wait for the disk.", Done, Done(message="Avatar demo is loaded")),),
        body=_NAME,
        errors=(*ONE_AVATAR_ERRORS, LipSyncFailed, Cancelled),
    ),
    "GET /api/avatar/preview/{name}": Operation(
        AVATAR_SERVICE,
        "A picture of the avatar",
        file_answers("image/jpeg", "A JPEG.", ranges=False),
        parameters=(IF_NONE_MATCH,),
        errors=(*ONE_AVATAR_ERRORS, LipSyncFailed),
    ),
    "DELETE /api/avatar/delete": Operation(
        AVATAR_SERVICE,
        "Delete an avatar",
        (Answer("It is gone.", Done, Done(message="Avatar demo is deleted")),),
        "The name may also come in the query: `?avatar_name=…`.",
        replace(_NAME, required=False),
        (FORCE,),
        (*ONE_AVATAR_ERRORS, AvatarInUse, LipSyncFailed),
    ),
    "GET /api/avatar/health": Operation(
        AVATAR_SERVICE,
        "Whether the lip-sync service answers",
        (
            Answer("It does.", AvatarHealth, _health("healthy", _UP)),
            Answer("It does not.", AvatarHealth, _health("unhealthy", _DOWN), 503),
        ),
    ),
    **{
        key.replace(" /", f" {PREFIX}", 1): replace(
            operation, tag=PROXY, errors=(*operation.errors, LipSyncFailed, Cancelled), is_open=False
        )
        for key, operation in {**LIVETALKING_OPERATIONS, **WHEP_OPERATIONS}.items()
    },
}

# Of the gateway alone.
OPERATIONS: Operations = {
    "GET /health": GATEWAY_OPERATIONS["GET /api/avatar/health"],
    **GATEWAY_OPERATIONS,
    **DOCUMENTATION_OPERATIONS,
    **METRICS_OPERATIONS,
}
