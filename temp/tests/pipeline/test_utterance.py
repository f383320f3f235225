import itertools

import numpy as np
import pytest
from fakes import FakeEngine, FakeListener, loud

from gpuserver.domain import Floats, Speech, TimedViseme, Viseme
from gpuserver.pipeline.utterance import SLICE_SECONDS, Utterance, cut_at_word, estimated_seconds, slices

RATE = 24_000
FRAME = RATE // 25


def speech(value: int, frames: float = 1.0) -> Speech:
    return Speech(loud(value, int(FRAME * frames)), RATE, "")


def test_every_frame_of_sound_meets_its_own_row() -> None:
    utterance = Utterance("some words", FakeEngine())
    frames = [frame for value in range(100, 1100, 100) for frame in utterance.hear(speech(value))] + utterance.finish()
    assert [frame.features[0] for frame in frames] == list(range(100, 1100, 100))
    middles = [int(frame.sound[960]) for frame in frames]
    assert middles == pytest.approx(list(range(100, 1100, 100)), abs=40)


def test_a_frame_is_given_as_soon_as_its_sound_and_its_row_exist() -> None:
    utterance = Utterance("some words", FakeEngine())
    given = [len(utterance.hear(speech(1000))) for _ in range(5)]
    assert sum(given) >= 3  # the fake listener looks one frame ahead, the resampler less


def test_a_sentence_is_heard_as_a_whole_with_its_last_frame() -> None:
    utterance = Utterance("just a few words", FakeEngine())
    frames = [frame for _ in range(30) for frame in utterance.hear(speech(1000))] + utterance.finish()
    heard = [frame.heard for frame in frames]
    assert heard == sorted(heard)
    assert heard[-1] == len("just a few words")
    assert heard[len(heard) // 2] == pytest.approx(8, abs=1)


def test_resting_lips_make_up_for_rows_that_are_missing() -> None:
    class Deaf(FakeListener):
        def hear(self, speech: Speech) -> Floats:
            return np.zeros((0, 1), np.float32)

        def finish(self) -> Floats:
            return np.zeros((0, 1), np.float32)

    class DeafEngine(FakeEngine):
        def listener(self) -> FakeListener:
            return Deaf()

        def rest(self) -> Floats:
            return np.full(1, -1, np.float32)

    utterance = Utterance("word", DeafEngine())
    assert utterance.hear(speech(1000, 2.0)) == []
    assert [frame.features[0] for frame in utterance.finish()] == [-1, -1]


def test_a_network_hears_a_sentence_as_a_whole() -> None:
    class Network(FakeListener):
        blocking = True

    class NetworkEngine(FakeEngine):
        def listener(self) -> FakeListener:
            return Network()

    sentence = speech(1000, 100.0)  # 4 s
    assert len(list(slices(sentence, Utterance("word", NetworkEngine()).slice_seconds))) == 1
    assert len(list(slices(sentence, Utterance("word", FakeEngine()).slice_seconds))) == 17


def test_a_sentence_without_sound_has_no_frames() -> None:
    assert Utterance("word", FakeEngine()).finish() == []


def test_a_chinese_sentence_takes_longer_than_its_number_of_characters_suggests() -> None:
    assert estimated_seconds("月亮绕着地球转") > 3 * estimated_seconds("abcdefg")


@pytest.mark.parametrize(
    ("heard", "said"),
    [(0, ""), (3, ""), (5, "Hello"), (6, "Hello,"), (7, "Hello,"), (9, "Hello,"), (12, "Hello, world"), (99, "Hello, world!")],
)
def test_what_was_heard_ends_with_a_whole_word(heard: int, said: str) -> None:
    assert cut_at_word("Hello, world!", heard) == said


def test_chinese_is_cut_between_any_two_characters() -> None:
    assert cut_at_word("月亮绕着地球转。", 3) == "月亮绕"


def test_a_long_piece_is_cut_without_losing_a_sample_or_a_viseme() -> None:
    sound = np.arange(RATE, dtype=np.int16)
    visemes = (TimedViseme(Viseme.PP, 0.0, 0.1), TimedViseme(Viseme.AA, 0.1, 0.9), TimedViseme(Viseme.SIL, 0.9, 1.0))
    cut = list(slices(Speech(sound, RATE, "text", visemes), SLICE_SECONDS))
    assert np.array_equal(np.concatenate([piece.pcm for piece in cut]), sound)
    assert max(piece.seconds for piece in cut) <= SLICE_SECONDS
    begin, joined = 0.0, []
    for piece in cut:
        assert piece.visemes is not None
        assert piece.visemes[-1].end == pytest.approx(piece.seconds)
        joined += [(each.viseme, begin + each.start, begin + each.end) for each in piece.visemes]
        begin += piece.seconds
    assert all(end == pytest.approx(start) for (_, _, end), (_, start, _) in itertools.pairwise(joined))
    assert {viseme: sum(end - start for each, start, end in joined if each is viseme) for viseme, _, _ in joined} == pytest.approx(
        {Viseme.PP: 0.1, Viseme.AA: 0.8, Viseme.SIL: 0.1}
    )


def test_a_piece_without_visemes_stays_without() -> None:
    assert all(piece.visemes is None for piece in slices(speech(1000, 20.0), SLICE_SECONDS))
