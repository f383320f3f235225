"""The language model of the chat, made when it is first needed: its client libraries take half a second to import."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from aiohttp import web

from gpuserver.config import Settings
from gpuserver.pipeline.language_model import ReportingModel, make_language_model

Make = Callable[[Settings], ReportingModel]


class ChatModel:
    def __init__(self, settings: Settings, make: Make = make_language_model):
        self._settings = settings
        self._make = make
        self._model: ReportingModel | None = None
        self._making = asyncio.Lock()

    async def get(self) -> ReportingModel:
        """The model, started. Raises CannotStart for settings that cannot work."""
        async with self._making:
            if self._model is None:
                self._model = await asyncio.to_thread(self._make, self._settings)
                self._model.start()
        return self._model

    async def run(self, _app: web.Application) -> AsyncIterator[None]:
        """The life of the model, as a cleanup_ctx."""
        yield
        if self._model is not None:
            await self._model.aclose()
