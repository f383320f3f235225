"""Language models behind any server that speaks OpenAI's API: vLLM, llama.cpp, LM Studio, or a hosted one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast
from urllib.parse import quote

from gpuserver.domain import Message, Token
from gpuserver.errors import LanguageModelFailed

CONNECT_SECONDS = 2.0
READ_SECONDS = 120.0  # a prompt may wait for a slot before its first token
KB_HEADER = "X-KB-ID"  # a header and no field of the body: servers that know no knowledge bases refuse unknown fields, never headers


class OpenAiModel:
    """One client for all sessions. model: what answers unless a call names another; "" leaves the choice to the server."""

    kind = "OpenAI-compatible server"

    def __init__(self, base_url: str, model: str, temperature: float, api_key: str | None = None):
        import httpx
        import openai

        self.base_url = base_url
        self.model = model
        self._temperature = temperature
        timeout = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
        # Servers without keys ignore the header; the client insists on one.
        self._client = openai.AsyncOpenAI(base_url=base_url, api_key=api_key or "none", max_retries=0, timeout=timeout)
        self._completions = self._client.chat.completions  # the client imports this part, for a second, when it is first touched

    @property
    def name(self) -> str:
        return self.model or "openai"

    async def models(self) -> list[str]:
        """The names of the models that the server lists; empty where it keeps no list. Raises LanguageModelFailed."""
        import openai

        with self._errors_translated():
            try:
                return [entry.id for entry in (await self._client.models.list()).data]
            except openai.NotFoundError:
                return []

    async def reply(
        self, messages: Sequence[Message], *, model: str | None = None, kb_id: str | None = None
    ) -> AsyncGenerator[Token, None]:
        model = model or self.model
        finished = False
        with self._errors_translated():
            lines = cast(Any, [{"role": message.role, "content": message.content} for message in messages])
            headers = {KB_HEADER: quote(kb_id)} if kb_id else {}
            stream = await self._completions.create(
                model=model, messages=lines, stream=True, temperature=self._temperature, extra_headers=headers
            )
            async with stream:
                async for chunk in stream:
                    for choice in chunk.choices[:1]:
                        finished = finished or choice.finish_reason is not None
                        if choice.delta.content:
                            yield Token(choice.delta.content, model or chunk.model)
        if not finished:
            raise LanguageModelFailed(f"The language model at {self.base_url} ended its answer in the middle.")

    async def aclose(self) -> None:
        """Close the client's connections."""
        await self._client.close()

    @contextmanager
    def _errors_translated(self) -> Iterator[None]:
        import httpx
        import openai

        try:
            yield
        except (openai.APITimeoutError, httpx.TimeoutException) as error:
            raise LanguageModelFailed(f"The language model at {self.base_url} does not answer in time.") from error
        except openai.APIStatusError as error:
            raise LanguageModelFailed(f"The language model at {self.base_url} answers {error.status_code}: {error.message}") from error
        except (openai.APIConnectionError, httpx.HTTPError, httpx.InvalidURL) as error:
            raise LanguageModelFailed(f"The language model at {self.base_url} cannot be reached: {error}") from error
        except openai.OpenAIError as error:
            raise LanguageModelFailed(f"The language model at {self.base_url} reports: {error}") from error
        except (ValueError, AttributeError, TypeError) as error:  # how the client reports events that are not OpenAI's
            raise LanguageModelFailed(f"What answers at {self.base_url} does not speak OpenAI's protocol.") from error
