"""What speaks and what answers: the voice says a word, the language models are looked for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import aclosing

from gpuserver.config import Settings
from gpuserver.errors import VoiceFailed
from gpuserver.media.doctor.checks import Check, failed, off, ok
from gpuserver.pipeline.language_model import ReportingModel
from gpuserver.pipeline.voice import ReportingVoice
from gpuserver.wire import Finding

VOICE, MODEL = "Voice", "Language model"
SENTENCE = "All is well."


def service_checks(settings: Settings, voice: ReportingVoice, language_model: ReportingModel) -> list[Check]:
    """Of a voice and a model that have been started."""
    return [
        Check(VOICE, lambda: _voice(voice), needed=True),
        Check(MODEL, lambda: _model(settings, language_model), needed=settings.llm in {"ollama", "openai"}),
    ]


async def _voice(voice: ReportingVoice) -> Sequence[Finding]:
    began, seconds, spoke, fallback = time.monotonic(), 0.0, voice.name, None
    try:
        async with aclosing(voice.speak(SENTENCE)) as speeches:
            async for speech in speeches:
                seconds += len(speech.pcm) / speech.sample_rate
                spoke, fallback = speech.voice or spoke, speech.fallback or fallback
    except VoiceFailed as error:
        return [failed(VOICE, error.detail, error.advice, needed=True)]
    if not seconds:
        return [failed(VOICE, f"{spoke} says nothing.", "Set TTS to another voice; hibari needs no network.", needed=True)]
    if fallback is not None:
        return [failed(VOICE, fallback, "If that is not meant, see TTS and TTS_SERVICE_URL.", needed=False)]
    return [ok(VOICE, f"{spoke} speaks: {seconds:.1f} s of sound in {time.monotonic() - began:.1f} s.")]


async def _model(settings: Settings, language_model: ReportingModel) -> Sequence[Finding]:
    if settings.llm == "echo":
        return [off(MODEL, "LLM=echo: questions are repeated, not answered.")]
    outlook = await language_model.look()
    if outlook.server is None:
        advice = f"Start Ollama at {settings.ollama_base_url} (OLLAMA_BASE_URL), or set OPENAI_BASE_URL."
        return [failed(MODEL, outlook.fallback or "No language model is reachable.", advice, needed=settings.llm != "auto")]
    if outlook.fallback is not None:
        advice = f"ollama pull {settings.llm_default_model}, or name another model in LLM_DEFAULT_MODEL."
        return [failed(MODEL, outlook.fallback, advice, needed=False)]
    return [ok(MODEL, f"{outlook.model} on {outlook.server} would answer.")]
