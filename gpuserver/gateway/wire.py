"""What the Avatar Service's clients send and receive."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, RootModel

from gpuserver.wire import HistoryItem, NullIsAbsent, ShortText, Strict

HISTORY_BYTES = 32_000  # of all items' contents together, as UTF-8
HISTORY_ITEMS = 50


def _check_size(history: list[HistoryItem]) -> list[HistoryItem]:
    size = 0
    for number, item in enumerate(history):
        size += len(item.content.encode("utf-8", "surrogatepass"))
        if size > HISTORY_BYTES:
            raise ValueError(f"item {number} makes it more than {HISTORY_BYTES} bytes; leave out the oldest items")
    return history


History = Annotated[list[HistoryItem], Field(default_factory=list, max_length=HISTORY_ITEMS), AfterValidator(_check_size)]


class ChatRequest(NullIsAbsent, Strict):
    """POST /api/chat/completion and /api/chat/stream. conversation_history: what was said before, the oldest first."""

    message: Annotated[str, Field(min_length=1, max_length=32_000)]
    conversation_history: History
    model: ShortText | None = None


class ChatAnswer(Strict):
    """200 of POST /api/chat/completion. fallback: another model than the wanted one answered; notice says which and why."""

    response: str
    model: str
    fallback: bool = False
    notice: str | None = None


class ChatPiece(Strict):
    """One event of POST /api/chat/stream. Where another model than the wanted one answers, the first one says so."""

    content: str
    model: str | None = None
    fallback: bool | None = None
    notice: str | None = None


class ChatModels(Strict):
    """200 of GET /api/chat/models. default: the one that answers where a request names none; "" where none would."""

    models: list[str]
    default: str


class ChatHealth(Strict):
    """GET /api/chat/health; 503 where only the echo would answer, or nothing. notice: what is wrong, in a plain sentence."""

    status: Literal["healthy", "unhealthy"]
    model: str
    ollama: Literal["connected", "disconnected"]
    fallback: bool = False
    notice: str | None = None


class ListedAvatar(Strict):
    """One avatar of GET /api/avatar/list. avatar_model: the one that its creator asked for, else the one that draws it (`engine`)."""

    clone: bool = False  # no voice is cloned
    description: str
    status: Literal["ready"] = "ready"
    timbre: str
    tts_model: str
    avatar_model: str
    engine: str
    image_path: str


class AvatarsByName(RootModel[dict[str, ListedAvatar]]):
    """200 of GET /api/avatar/list, by the avatars' names."""


class AvatarMade(Strict):
    """200 of POST /api/avatar/create. engine: what draws the lips, whatever avatar_model was asked for."""

    status: Literal["success"] = "success"
    message: str
    avatar_id: str
    image_path: str
    avatar_model: str
    engine: str
    support_clone: bool = False


class Done(Strict):
    """200 of POST /api/avatar/start and DELETE /api/avatar/delete."""

    status: Literal["success"] = "success"
    message: str


class ServiceState(Strict):
    """A service that the gateway depends on."""

    url: str
    status: Literal["connected", "disconnected"]
    message: str | None = None


class AvatarHealth(Strict):
    """GET /api/avatar/health; 503 while the lip-sync service does not answer. Speech is the lip-sync service's own matter."""

    status: Literal["healthy", "unhealthy"]
    service: Literal["avatar-service"] = "avatar-service"
    lipsync: ServiceState
    tts: ServiceState
