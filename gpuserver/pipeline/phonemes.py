"""Phonemes of an English voice become visemes: what the lips show while each of them sounds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gpuserver.domain import TimedViseme, Viseme

# A pause shorter than this does not bring the lips back to rest: the gap between two words is no pause.
SHORTEST_PAUSE = 0.080

# Misaki's English alphabet (IPA with capitals for diphthongs), https://github.com/hexgrad/misaki/blob/main/EN_PHONES.md,
# and the further IPA letters a lexicon of loan words may use.
_BY_VISEME: dict[Viseme, str] = {
    Viseme.PP: "pbm",
    Viseme.FF: "fvɸβʋ",
    Viseme.TH: "θð",
    Viseme.DD: "tdɾTʈɖʣʦ",
    Viseme.KK: "kɡghxqcɟɣχçʔŋɴɰ",
    Viseme.CH: "ʧʤʃʒʂꭧʝɕʥʨSjʎ",
    Viseme.SS: "sz",
    Viseme.NN: "nlɲɳ",
    Viseme.RR: "ɹrɻɽʁ",
    Viseme.AA: "aɑɐʌæ",
    Viseme.E: "eɛəɜᵊɚœø",
    Viseme.IH: "iɪɨᵻy",
    Viseme.OH: "oɔɒɤ",
    Viseme.OU: "uʊwɯɥᵝ",
}

# A diphthong is a movement from one vowel to another.
_DIPHTHONGS: dict[str, tuple[Viseme, Viseme]] = {
    "A": (Viseme.E, Viseme.IH),  # day
    "I": (Viseme.AA, Viseme.IH),  # my
    "O": (Viseme.OH, Viseme.OU),  # go (American)
    "Q": (Viseme.E, Viseme.OU),  # go (British)
    "W": (Viseme.AA, Viseme.OU),  # now
    "Y": (Viseme.OH, Viseme.IH),  # boy
}

_VISEMES: dict[str, tuple[Viseme, ...]] = {
    **{symbol: (viseme,) for viseme, symbols in _BY_VISEME.items() for symbol in symbols},
    **_DIPHTHONGS,
}

_STRESS = frozenset("ˈˌ")  # belongs to the sound that follows
_LENGTH = frozenset("ːʰʲ̃")  # belongs to the sound before


@dataclass(frozen=True, slots=True)
class TimedPhoneme:
    """A symbol of the voice's alphabet and how long it lasts. Symbols that are no sound (space, comma, padding) are gaps."""

    symbol: str
    seconds: float

    @property
    def is_sound(self) -> bool:
        return self.symbol in _VISEMES


def has_sound(phonemes: str) -> bool:
    """Whether anything in it is spoken; punctuation alone is not."""
    return any(symbol in _VISEMES for symbol in phonemes)


def visemes(phonemes: Iterable[TimedPhoneme]) -> tuple[TimedViseme, ...]:
    """The visemes of a piece of speech: in order, touching, from 0 to the sum of all durations.

    A gap of at least SHORTEST_PAUSE is SIL; a shorter one lengthens the sound before it. A diphthong gives two visemes of half
    its length. Equal neighbours are joined.
    """
    spans: list[tuple[Viseme, float]] = []
    for shown, seconds in _spans(phonemes):
        if spans and spans[-1][0] == shown:
            spans[-1] = (shown, spans[-1][1] + seconds)
        else:
            spans.append((shown, seconds))
    timed, start = [], 0.0
    for shown, seconds in spans:
        timed.append(TimedViseme(shown, start, start + seconds))
        start += seconds
    return tuple(timed)


def _spans(phonemes: Iterable[TimedPhoneme]) -> list[tuple[Viseme, float]]:
    """Visemes and durations before equal neighbours are joined."""
    spans: list[tuple[Viseme, float]] = []
    gap = stress = 0.0  # durations seen and not yet given to a viseme
    for phoneme in phonemes:
        if phoneme.symbol in _STRESS:
            stress += phoneme.seconds
        elif phoneme.symbol in _LENGTH and spans and not gap:
            spans[-1] = (spans[-1][0], spans[-1][1] + phoneme.seconds)
        elif not phoneme.is_sound:
            gap, stress = gap + stress + phoneme.seconds, 0.0
        else:
            _close_gap(spans, gap)
            parts = _VISEMES[phoneme.symbol]
            spans += [(part, (stress + phoneme.seconds) / len(parts)) for part in parts]
            gap = stress = 0.0
    _close_gap(spans, gap + stress)
    return spans


def _close_gap(spans: list[tuple[Viseme, float]], gap: float) -> None:
    if gap <= 0:
        return
    if spans and gap < SHORTEST_PAUSE:
        spans[-1] = (spans[-1][0], spans[-1][1] + gap)
    else:
        spans.append((Viseme.SIL, gap))
