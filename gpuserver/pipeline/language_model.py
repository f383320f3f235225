"""Chooses the language model that answers, by the setting LLM."""

from __future__ import annotations

from typing import Protocol

from gpuserver.config import Settings
from gpuserver.domain import LanguageModel
from gpuserver.pipeline.llm_echo import EchoModel


class ReportingModel(LanguageModel, Protocol):
    """A LanguageModel that also says for /health how it is."""

    def status(self) -> dict[str, object]: ...


def make_language_model(settings: Settings) -> ReportingModel:
    """The model that LLM names. aclose() it when the process ends."""
    return EchoModel()
