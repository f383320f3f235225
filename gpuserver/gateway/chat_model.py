"""The language model of the chat, made when it is first needed: its client libraries take half a second to import."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from aiohttp import web

from gpuserver.config import Settings
from gpuserver.pipeline.language_model import ReportingModel, make_language_model


class ChatModel:
    """model: the one to use instead of the one that the settings name."""

    def __init__(self, settings: Settings, model: ReportingModel | None = None):
        self._settings = settings
        self._model = model
        self._making = asyncio.Lock()

    async def get(self) -> ReportingModel:
        """Raises CannotStart for settings that cannot work."""
        async with self._making:
            if self._model is None:
                self._model = await asyncio.to_thread(make_language_model, self._settings)
        return self._model

    async def run(self, _app: web.Application) -> AsyncIterator[None]:
        """The life of the model, as a cleanup_ctx."""
        yield
        if self._model is not None:
            await self._model.aclose()
