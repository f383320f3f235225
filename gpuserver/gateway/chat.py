"""/api/chat: one answer of the language model, whole or token by token. The conversation so far comes with every question."""

from __future__ import annotations

import json

from aiohttp import web
from aiohttp_sse import EventSourceResponse, sse_response

from gpuserver.config import Settings
from gpuserver.domain import Message, Token
from gpuserver.errors import GpuserverError, NoLanguageModel
from gpuserver.gateway.chat_model import ChatModel
from gpuserver.gateway.wire import ChatAnswer, ChatHealth, ChatModels, ChatPiece, ChatRequest
from gpuserver.pipeline.language_model import ReportingModel
from gpuserver.pipeline.llm_ollama import OllamaModel
from gpuserver.pipeline.streams import closing
from gpuserver.web.answers import json_answer
from gpuserver.web.body import read_body
from gpuserver.web.event_stream import tell_while_heard
from gpuserver.web.interim import while_client_awaits
from gpuserver.web.keys import needs_key, public

HEARTBEAT_SECONDS = 1.0  # between two comment lines; also how soon it is noticed that a client has left a silent model
END = "[DONE]"


def add_chat_routes(app: web.Application, settings: Settings, model: ChatModel) -> None:
    """Serve /api/chat… from `app`."""
    routes = ChatRoutes(settings, model)
    app.router.add_post("/api/chat/completion", routes.complete)
    app.router.add_post("/api/chat/stream", routes.stream)
    app.router.add_get("/api/chat/models", routes.models)
    app.router.add_get("/api/chat/health", routes.health)


class ChatRoutes:
    def __init__(self, settings: Settings, model: ChatModel):
        self._settings = settings
        self._model = model

    @needs_key
    async def complete(self, request: web.Request) -> web.Response:
        """POST /api/chat/completion: the whole answer at once."""
        question = await read_body(request, ChatRequest)
        model = await self._model.get()
        return json_answer(await while_client_awaits(request, _answer(model, question)))

    @needs_key
    async def stream(self, request: web.Request) -> web.StreamResponse:
        """POST /api/chat/stream: server-sent events; the model stops when the client goes away."""
        question = await read_body(request, ChatRequest)
        model = await self._model.get()
        async with sse_response(request, allow_all_methods=True, sep="\n", ping_interval=HEARTBEAT_SECONDS) as stream:
            await tell_while_heard(stream, _tell(model, question, stream))
        return stream

    @needs_key
    async def models(self, _request: web.Request) -> web.Response:
        """GET /api/chat/models. Raises NoLanguageModel."""
        choices = await (await self._model.get()).choices()
        if not choices:
            raise NoLanguageModel("No server of language models lists any model.")
        default = next((choice.id for choice in choices if choice.default), "")
        return json_answer(ChatModels(models=[choice.id for choice in choices], default=default))

    @public
    async def health(self, _request: web.Request) -> web.Response:
        """GET /api/chat/health: who would answer now."""
        outlook = await (await self._model.get()).look()
        healthy = outlook.server is not None or outlook.fallback is None
        health = ChatHealth(
            status="healthy" if healthy else "unhealthy",
            model=outlook.model,
            ollama="connected" if outlook.server == OllamaModel.kind else "disconnected",
            fallback=outlook.fallback is not None,
            notice=outlook.fallback,
        )
        return json_answer(health, status=200 if healthy else 503)


def _messages(question: ChatRequest) -> list[Message]:
    return [*(Message(item.role, item.content) for item in question.conversation_history), Message("user", question.message)]


async def _answer(model: ReportingModel, question: ChatRequest) -> ChatAnswer:
    async with closing(model.reply(_messages(question), model=question.model)) as stream:
        tokens = [token async for token in stream]
    last = tokens[-1] if tokens else Token("", question.model or model.name)
    return ChatAnswer(
        response="".join(token.text for token in tokens), model=last.model, fallback=last.fallback is not None, notice=last.fallback
    )


async def _tell(model: ReportingModel, question: ChatRequest, stream: EventSourceResponse) -> None:
    try:
        async with closing(model.reply(_messages(question), model=question.model)) as tokens:
            is_first = True
            async for token in tokens:
                await stream.send(_piece(token, is_first=is_first).model_dump_json(exclude_none=True))
                is_first = False
    except GpuserverError as error:
        await stream.send(json.dumps(error.problem()), event="error")
    await stream.send(END)


def _piece(token: Token, *, is_first: bool) -> ChatPiece:
    if token.fallback is None or not is_first:
        return ChatPiece(content=token.text)
    return ChatPiece(content=token.text, model=token.model, fallback=True, notice=token.fallback)
