"""eSpeak NG through ctypes: text of many languages in, 22 kHz sound and its phonemes out. Plain CPU work, no asyncio.

The functions and structures are those of speak_lib.h, https://github.com/espeak-ng/espeak-ng/blob/1.52.0/src/include/espeak-ng/speak_lib.h
"""

from __future__ import annotations

import ctypes
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpuserver.domain import Pcm
from gpuserver.pipeline.phonemes import TimedPhoneme, has_sound, visemes
from gpuserver.pipeline.speech_worker import SpokenPiece

_AUDIO_OUTPUT_SYNCHRONOUS = 2
_INITIALIZE = 0x0001 | 0x0002 | 0x8000  # phoneme events, named in IPA; an error returns instead of ending the process
_BUFFER_MS = 200
_CHARS_UTF8 = 1
_PARAMETER_RATE = 1
_EVENT_LIST_TERMINATED, _EVENT_PHONEME = 0, 7

NORMAL_RATE = 165  # words per minute


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # ms
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_SynthCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class EspeakModel:
    """The library keeps its state in globals of its own: one EspeakModel per process, used from one thread."""

    def __init__(self) -> None:
        import espeakng_loader  # type: ignore[import-untyped]

        self._library: Any = ctypes.CDLL(espeakng_loader.get_library_path())
        data = str(espeakng_loader.get_data_path()).encode()
        self.sample_rate = int(self._library.espeak_Initialize(_AUDIO_OUTPUT_SYNCHRONOUS, _BUFFER_MS, data, _INITIALIZE))  # Hz
        if self.sample_rate <= 0:
            raise OSError("eSpeak NG finds no data.")
        self._library.espeak_Synth.argtypes = (
            ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p,
        )  # fmt: skip
        self._callback = _SynthCallback(self._receive)  # the library keeps the bare pointer
        self._library.espeak_SetSynthCallback(self._callback)
        self._sound = bytearray()
        self._starts: list[tuple[int, str]] = []  # first sample and name of every phoneme

    def speak(self, text: str, voice: str, *, rate: float = 1.0, pause: float = 0.35) -> SpokenPiece | None:
        """Speak in the language that `voice` names, followed by `pause` seconds of silence. None if there is nothing to say.

        Raises OSError where the library refuses the voice or the text.
        """
        self._sound.clear()
        self._starts.clear()
        self._check(self._library.espeak_SetVoiceByName(voice.encode()), f"knows no voice {voice}")
        self._check(self._library.espeak_SetParameter(_PARAMETER_RATE, round(NORMAL_RATE * rate), 0), f"cannot speak at {rate}")
        encoded = text.replace("\0", " ").encode()
        self._check(self._library.espeak_Synth(encoded, len(encoded) + 1, 0, 0, 0, _CHARS_UTF8, None, None), "cannot speak this text")
        if not any(has_sound(name) for _, name in self._starts):
            return None
        pcm: Pcm = np.concatenate([np.frombuffer(self._sound, "<i2"), np.zeros(round(pause * self.sample_rate), np.int16)])
        return SpokenPiece(pcm, self.sample_rate, visemes(timed_phonemes(self._starts, len(pcm), self.sample_rate)))

    def _receive(self, samples: Any, count: int, events: Any) -> int:
        """Called by the library with every piece of sound; 0 asks for the next one."""
        if samples and count > 0:
            self._sound += ctypes.string_at(samples, count * 2)
        number = 0
        while events[number].type != _EVENT_LIST_TERMINATED:
            if events[number].type == _EVENT_PHONEME:
                name = unicodedata.normalize("NFD", events[number].id.string.decode(errors="ignore"))
                self._starts.append((events[number].sample, name))
            number += 1
        return 0

    @staticmethod
    def _check(result: int, complaint: str) -> None:
        if result != 0:
            raise OSError(f"eSpeak NG {complaint} (error {result}).")


def timed_phonemes(starts: Sequence[tuple[int, str]], samples: int, sample_rate: int) -> list[TimedPhoneme]:
    """The phonemes that cover `samples` of sound. starts: first sample and IPA name of each; a name like "(en)" is no sound.

    A name of several letters, like "tɕ" or "ˈoʊ", shares its time out among those that are sounds.
    """
    track = [TimedPhoneme("", starts[0][0] / sample_rate)] if starts else []
    ends = [start for start, _ in starts[1:]] + [samples]
    for (start, name), end in zip(starts, ends, strict=True):
        seconds = max(0, end - start) / sample_rate
        sounds = [] if name.startswith("(") else [letter for letter in name if has_sound(letter)]
        track += [TimedPhoneme(sound, seconds / len(sounds)) for sound in sounds] or [TimedPhoneme("", seconds)]
    return track
