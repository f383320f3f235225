"""The hibari model: English text in, 24 kHz sound and exactly timed visemes out. Plain CPU work, no asyncio.

hibari predicts how long every phoneme lasts on its way to the sound; adding that tensor to the graph's outputs costs nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gpuserver.domain import Floats
from gpuserver.pipeline.english_g2p import EnglishG2p
from gpuserver.pipeline.phonemes import TimedPhoneme, has_sound, visemes
from gpuserver.pipeline.speech_worker import SpokenPiece

SAMPLE_RATE = 24_000
STEP_SECONDS = 0.025  # durations come in steps of 600 samples
STEP = round(STEP_SECONDS * SAMPLE_RATE)

# The sound runs two steps ahead of the durations: low-energy closures of p and b, and the loudness of vowels, both lie 50-55 ms
# before the phoneme that the durations name (median over six sentences).
AHEAD_STEPS = 2
LEAD_STEPS = 1  # of the 300 ms of silence that open every sentence, what the first sound's onset needs

GAIN = 1.3  # the loudest peaks of the voice are near 0.6 of full scale
QUIET = 0.001  # -60 dB of full scale: below it, nothing is heard
CLOSING_SECONDS = 0.1  # how long the lips show a last sound that is silent, like the p of "stop"

# ModelProto.graph.output.name = "/Clip_output_0", serialised: bytes that follow a protobuf message are merged into it.
DURATION_OUTPUT = b"\x3a\x12\x62\x10\x0a\x0e/Clip_output_0"


class HibariModel:
    """Loads the voice inside the hibari-tts wheel; 1 s and 100 MB, the dictionaries included. Not thread-safe."""

    def __init__(self, g2p: EnglishG2p | None = None) -> None:
        import onnxruntime  # type: ignore[import-untyped]
        from hibari.tts import Hibari  # type: ignore[import-untyped]

        self._hibari: Any = Hibari(g2p=g2p or EnglishG2p())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        graph = Path(self._hibari.model_path).read_bytes() + DURATION_OUTPUT
        self._session: Any = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._symbols: dict[int, str] = {number: symbol for symbol, number in self._hibari.vocab.items()}
        self.speak("Zlorp: a word outside the dictionary loads the rest.")

    def speak(self, text: str, *, rate: float = 1.0, pause: float = 0.35) -> SpokenPiece | None:
        """Speak a sentence or a part of one, followed by `pause` seconds of silence. None if there is nothing to say in it."""
        parts = [self._utter(phonemes, rate) for phonemes in self._hibari.phonemize(text) if has_sound(phonemes)]
        if not parts:
            return None
        sounds, tracks = zip(*parts, strict=True)
        sound, phonemes = _end_with_pause(np.concatenate(sounds), [phoneme for track in tracks for phoneme in track], pause)
        pcm = np.clip(sound * (GAIN * 32767), -32768, 32767).astype(np.int16)
        return SpokenPiece(pcm, SAMPLE_RATE, visemes(phonemes))

    def _utter(self, phonemes: str, rate: float) -> tuple[Floats, list[TimedPhoneme]]:
        """The sound (float32, SAMPLE_RATE) of one phoneme string and its phonemes, both of the same length."""
        from hibari import dsp  # type: ignore[import-untyped]

        ids = self._hibari.ids(phonemes)
        *spectrum, durations = self._session.run(None, {"ids": np.array([ids], np.int64), "speed": np.array([rate], np.float32)})
        sound: Floats = dsp.synth(*(part[0] for part in spectrum), np.random.default_rng(0))
        steps = np.ravel(durations).astype(int)
        surplus = max(0, steps[0] - AHEAD_STEPS - LEAD_STEPS)
        steps[0] = max(0, steps[0] - AHEAD_STEPS - surplus)
        steps[-1] += len(sound) // STEP - surplus - steps.sum()
        symbols = [self._symbols.get(number, "") for number in ids]
        track = [TimedPhoneme(symbol, count * STEP_SECONDS) for symbol, count in zip(symbols, steps.tolist(), strict=True)]
        return sound[surplus * STEP :], track


def _end_with_pause(sound: Floats, track: list[TimedPhoneme], pause: float) -> tuple[Floats, list[TimedPhoneme]]:
    """Cut or lengthen the silence at the end to `pause` seconds; the last phoneme ends where its sound does."""
    loud = np.flatnonzero(np.abs(sound) > QUIET)
    quiet_from = (int(loud[-1]) + 1 if len(loud) else 0) / SAMPLE_RATE
    last = max(index for index, phoneme in enumerate(track) if phoneme.is_sound)
    start = sum(phoneme.seconds for phoneme in track[:last])
    end = min(start + track[last].seconds, max(quiet_from, start + CLOSING_SECONDS))
    samples = round((max(end, quiet_from) + pause) * SAMPLE_RATE)
    sound = np.pad(sound[:samples], (0, max(0, samples - len(sound))))
    ending = [TimedPhoneme(track[last].symbol, end - start), TimedPhoneme("", samples / SAMPLE_RATE - end)]
    return sound, [*track[:last], *ending]
