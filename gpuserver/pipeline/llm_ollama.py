"""Language models served by Ollama, through its own client."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any, cast

from gpuserver.domain import Message, Token
from gpuserver.errors import LanguageModelFailed

CONNECT_SECONDS = 2.0
READ_SECONDS = 120.0  # a large model is loaded into the GPU before its first token


class OllamaModel:
    """One client for all sessions. base_url: where Ollama listens. model: what answers unless a call names another."""

    kind = "Ollama"

    def __init__(self, base_url: str, model: str, temperature: float):
        import httpx
        import ollama

        self.base_url = base_url
        self.model = model
        self._temperature = temperature
        self._client = ollama.AsyncClient(host=base_url, timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS))

    @property
    def name(self) -> str:
        return self.model

    async def models(self) -> list[str]:
        """The names of the models that are pulled. Raises LanguageModelFailed."""
        with self._errors_translated():
            return [entry.model for entry in (await self._client.list()).models if entry.model]

    async def reply(
        self, messages: Sequence[Message], *, model: str | None = None, kb_id: str | None = None
    ) -> AsyncGenerator[Token, None]:
        model = model or self.model
        done = False
        with self._errors_translated(model):
            lines = [{"role": message.role, "content": message.content} for message in messages]
            stream = await self._client.chat(model=model, messages=lines, stream=True, options={"temperature": self._temperature})
            async with aclosing(cast(AsyncGenerator[Any, None], stream)) as parts:
                async for part in parts:
                    done = done or bool(part.done)
                    if part.message.content:
                        yield Token(part.message.content, model)
        if not done:
            raise LanguageModelFailed(f"Ollama at {self.base_url} ended its answer in the middle.")

    async def aclose(self) -> None:
        """Close the client's connections."""
        await self._client.close()  # type: ignore[no-untyped-call]

    @contextmanager
    def _errors_translated(self, model: str = "") -> Iterator[None]:
        import httpx
        import ollama

        try:
            yield
        except ollama.ResponseError as error:
            if error.status_code == 404 and model:
                advice = f"Pull it with: ollama pull {model}"
                raise LanguageModelFailed(f"Ollama at {self.base_url} has no model {model}.", advice=advice) from error
            raise LanguageModelFailed(f"Ollama at {self.base_url} reports: {error.error}") from error
        except httpx.TimeoutException as error:
            raise LanguageModelFailed(f"Ollama at {self.base_url} does not answer in time.") from error
        except (httpx.HTTPError, httpx.InvalidURL, ConnectionError) as error:
            raise LanguageModelFailed(f"Ollama at {self.base_url} cannot be reached: {error or type(error).__name__}") from error
        except (ValueError, AttributeError, TypeError) as error:  # how the client reports lines that are not Ollama's
            raise LanguageModelFailed(f"What answers at {self.base_url} does not speak Ollama's protocol.") from error
