"""Lips made from word boundaries, as edge-tts announces them, against the exact ones of hibari's phoneme durations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from gpuserver.domain import Floats, Pcm, Speech, TimedViseme, Viseme
from gpuserver.musetalk.warp.mouth_listener import MouthListener
from gpuserver.musetalk.warp.mouth_shape import Part
from gpuserver.pipeline.english_g2p import EnglishG2p
from gpuserver.pipeline.hibari_model import SAMPLE_RATE, HibariModel
from gpuserver.pipeline.pronunciation import Pronunciation
from gpuserver.pipeline.viseme_track import VisemeTrack

# Neighbouring sounds all look different, so that the exact visemes can be counted off word by word.
SENTENCE = "Bob gave us two maps of the moon."
VISEMES_OF_WORDS = (3, 4, 2, 2, 4, 2, 2, 3)


@pytest.fixture(scope="module")
def english() -> EnglishG2p:
    return EnglishG2p()


def rows(pcm: Pcm, visemes: tuple[TimedViseme, ...] | None) -> Floats:
    listener = MouthListener()
    return np.concatenate([listener.hear(Speech(pcm, SAMPLE_RATE, SENTENCE, visemes)), listener.finish()])


def word_times(visemes: Sequence[TimedViseme], counts: Sequence[int]) -> list[tuple[float, float]]:
    """Where each word begins and ends, if its visemes number so many."""
    sounds = [timed for timed in visemes if timed.viseme is not Viseme.SIL]
    assert sum(counts) == len(sounds)
    times, at = [], 0
    for count in counts:
        times.append((sounds[at].start, sounds[at + count - 1].end))
        at += count
    return times


def test_width_and_rounding_of_the_lips_follow_the_words(english: EnglishG2p) -> None:
    spoken = HibariModel(english).speak(SENTENCE)
    assert spoken is not None
    times = word_times(spoken.visemes, VISEMES_OF_WORDS)
    pronunciation, track = Pronunciation(english), VisemeTrack()
    for word, (start, end) in zip(SENTENCE.split(), times, strict=True):
        track.announce(start, pronunciation.word(word, "en", end - start))
    exact = rows(spoken.pcm, spoken.visemes)
    by_words = rows(spoken.pcm, track.take(len(spoken.pcm) / SAMPLE_RATE, ending=True))

    def follows(part: Part) -> float:
        return float(np.corrcoef(exact[:, part], by_words[:, part])[0, 1])

    assert follows(Part.OPENING) > 0.8
    assert follows(Part.WIDTH) > 0.9
    assert follows(Part.ROUNDING) > 0.9
