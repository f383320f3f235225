"""The listener gives one row per frame, the same rows in whatever pieces the sound comes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from gpuserver.domain import Floats, Speech, TimedViseme, Viseme
from gpuserver.musetalk.warp.mouth_listener import MouthListener
from gpuserver.musetalk.warp.mouth_shape import Part

RATE = 24_000


def vowel(seconds: float, first: float, second: float, rate: int = RATE) -> Floats:
    """A buzz of 120 Hz with two formants (Hz)."""
    pulses = np.zeros(int(seconds * rate))
    pulses[:: rate // 120] = 1.0
    sound = np.zeros_like(pulses)
    t = np.arange(int(0.03 * rate)) / rate
    for formant, gain in ((first, 1.0), (second, 0.4)):
        sound += gain * np.convolve(pulses, np.exp(-t * 300) * np.sin(2 * np.pi * formant * t))[: len(pulses)]
    return np.asarray(sound / np.abs(sound).max() * 0.5, np.float32)


def spoken(seconds: float = 2.0, rate: int = RATE) -> Speech:
    """ "ah", silence, "ee", with the visemes a voice would give."""
    part = seconds / 3
    sound = np.concatenate([vowel(part, 750, 1200, rate), np.zeros(int(part * rate)), vowel(part, 300, 2300, rate)])
    visemes = tuple(TimedViseme(v, i * part, (i + 1) * part) for i, v in enumerate((Viseme.AA, Viseme.SIL, Viseme.IH)))
    return Speech((sound * 32767).astype(np.int16), rate, "ah ee", visemes)


def rows_of(*pieces: Speech) -> Floats:
    listener = MouthListener()
    return np.concatenate([*(listener.hear(piece) for piece in pieces), listener.finish()])


def cut(speech: Speech, size: int) -> list[Speech]:
    """Pieces of `size` samples; a viseme over a cut is cut too."""
    pieces = []
    for begin in range(0, len(speech.pcm), size):
        start, end = begin / speech.sample_rate, min(begin + size, len(speech.pcm)) / speech.sample_rate
        inside = None
        if speech.visemes is not None:
            inside = tuple(
                TimedViseme(v.viseme, max(v.start, start) - start, min(v.end, end) - start)
                for v in speech.visemes
                if v.start < end and v.end > start
            )
        pieces.append(Speech(speech.pcm[begin : begin + size], speech.sample_rate, "", inside))
    return pieces


@pytest.mark.parametrize("driven_by", ["visemes", "sound"])
@pytest.mark.parametrize("samples", [1, 959, 960, 961, 24_000, 33_333])
def test_a_sentence_has_one_row_per_frame(driven_by: str, samples: int) -> None:
    visemes = (TimedViseme(Viseme.AA, 0, samples / RATE),) if driven_by == "visemes" else None
    rows = rows_of(Speech(np.zeros(samples, np.int16), RATE, "", visemes))
    assert len(rows) == math.ceil(samples * 25 / RATE)
    assert np.isfinite(rows).all()


@pytest.mark.parametrize("driven_by", ["visemes", "sound"])
@pytest.mark.parametrize("rate", [16_000, 22_050, 24_000])
@pytest.mark.parametrize("size", [480, 1_111, 12_000])
def test_pieces_give_the_same_rows_as_the_whole(driven_by: str, rate: int, size: int) -> None:
    speech = spoken(rate=rate)
    if driven_by == "sound":
        speech = replace(speech, visemes=None)
    np.testing.assert_allclose(rows_of(*cut(speech, size)), rows_of(speech), atol=1e-5)


def test_the_sound_alone_is_answered_within_120_ms() -> None:
    listener = MouthListener()
    rows = sum(len(listener.hear(piece)) for piece in cut(replace(spoken(), visemes=None), 480))
    assert rows >= (2.0 - 0.120) * 25 - 1


def test_an_open_vowel_opens_and_silence_closes_when_the_sound_drives() -> None:
    opening = rows_of(replace(spoken(3.0), visemes=None))[:, Part.OPENING]
    assert opening[8:20].mean() > opening[58:70].mean() + 0.05  # ah against ee
    assert opening[30:45].max() < 0.005


def test_ee_is_wider_than_ah_when_the_sound_drives() -> None:
    width = rows_of(replace(spoken(3.0), visemes=None))[:, Part.WIDTH]
    assert width[58:70].mean() > width[8:20].mean() + 0.03


def test_a_soft_voice_after_a_loud_one_opens_less() -> None:
    loud = spoken(3.0)
    pcm = loud.pcm.copy()
    pcm[len(pcm) // 2 :] //= 8
    softer = rows_of(replace(loud, pcm=pcm))[60:70, Part.OPENING].mean()
    assert softer < 0.9 * rows_of(loud)[60:70, Part.OPENING].mean()


def test_a_changed_sample_rate_within_a_sentence_is_an_error() -> None:
    listener = MouthListener()
    listener.hear(spoken())
    with pytest.raises(ValueError, match="sample rate"):
        listener.hear(spoken(rate=16_000))


def test_a_sentence_without_sound_has_no_rows() -> None:
    assert len(MouthListener().finish()) == 0
