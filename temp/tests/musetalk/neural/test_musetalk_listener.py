from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from gpuserver.domain import Floats, Pcm, Speech
from gpuserver.musetalk.neural import whisper_features as whisper
from gpuserver.musetalk.neural.musetalk_listener import MuseTalkListener, at_16_khz, rest_row

WIDTH = 2


class LocalEar:
    """Its steps know what they hear and nothing else: the mean of the 4 mel frames that all of their sound is needed for."""

    width = WIDTH

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def steps(self, mel: Floats, begin: int, end: int) -> Floats:
        assert 0 <= begin <= end <= whisper.SEGMENT_STEPS
        self.calls.append((begin, end))
        padded = np.pad(mel.mean(axis=0), (2, 2), mode="edge")
        heard = np.array([padded[2 * step : 2 * step + 5].mean() for step in range(begin, end)], np.float32)
        return (
            np.broadcast_to(heard.reshape(-1, 1, 1), (end - begin, whisper.LAYERS, WIDTH))
            + np.arange(whisper.LAYERS, dtype=np.float32)[:, None]
        )


def noise(samples: int, seed: int = 1) -> Pcm:
    return np.random.default_rng(seed).normal(0, 3000, samples).astype(np.int16)


def heard(pieces: Sequence[Pcm], rate: int = 16_000, ear: LocalEar | None = None) -> Floats:
    listener = MuseTalkListener(ear or LocalEar())
    rows = [listener.hear(Speech(pcm, rate, "")) for pcm in pieces]
    return np.concatenate([*rows, listener.finish()])


def offline(pcm: Pcm) -> Floats:
    """The rows that upstream makes of a whole sound."""
    ear = LocalEar()
    return np.array(list(whisper.feature_rows(at_16_khz(pcm, 16_000), lambda mel: ear.steps(mel[0], 0, 1500)[None])))


@pytest.mark.parametrize(
    ("samples", "pictures"), [(0, 0), (1, 1), (519, 1), (520, 1), (639, 1), (640, 1), (641, 2), (2120, 4), (51_200, 80)]
)
def test_every_begun_picture_gets_a_row(samples: int, pictures: int) -> None:
    assert heard([noise(samples)]).shape == (pictures, whisper.TOKENS, WIDTH)


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 24_000, 44_100, 48_000])
def test_sound_may_have_any_rate(rate: int) -> None:
    samples = rate * 2 + 7
    assert len(heard([noise(samples)], rate)) == 51


def test_a_sentence_heard_whole_has_upstreams_rows() -> None:
    pcm = noise(51_200)
    assert np.array_equal(heard([pcm]), offline(pcm))


def test_a_sentence_heard_whole_is_one_call_of_whisper() -> None:
    ear = LocalEar()
    assert len(heard([noise(51_200)], ear=ear)) == 80
    assert ear.calls == [(0, 160)]


def test_a_last_part_of_a_picture_is_shown_though_upstream_drops_it() -> None:
    pcm = noise(51_201)
    rows = heard([pcm])
    assert np.array_equal(rows[:80], offline(pcm))
    assert len(rows) == 81
    assert not rows[80][-6 * whisper.LAYERS :].any()


@pytest.mark.parametrize("size", [100, 640, 4321, 16_000])
def test_pieces_of_any_size_give_the_same_rows_for_what_was_heard_at_once(size: int) -> None:
    """But for the loudest frame of the window, which limits how quiet the quietest may be: here all are equally loud."""
    pcm = noise(63 * 640)
    pieces = [pcm[at : at + size] for at in range(0, len(pcm), size)]
    np.testing.assert_allclose(heard(pieces), offline(pcm), atol=2e-3)


def test_a_row_comes_as_soon_as_its_look_ahead_is_there() -> None:
    listener = MuseTalkListener(LocalEar())
    assert len(listener.hear(Speech(noise(2119), 16_000, ""))) == 0  # 132.5 ms are 2120 samples
    assert len(listener.hear(Speech(noise(1), 16_000, ""))) == 1


def test_short_pieces_are_collected_to_five_pictures_a_call() -> None:
    ear = LocalEar()
    heard([noise(160, seed) for seed in range(100)], ear=ear)  # 1 s
    assert len(ear.calls) <= 7


def test_only_new_steps_are_asked_for() -> None:
    ear = LocalEar()
    heard([noise(8000), noise(8000), noise(8000)], ear=ear)
    ends = [0, 24, 49]  # the steps whose sound is complete after 0, 0.5 and 1 s
    assert [begin for begin, _ in ear.calls] == ends


def test_a_long_sentence_is_heard_in_windows_of_30_seconds_that_overlap() -> None:
    ear = LocalEar()
    pcm = noise(61 * 16_000)
    rows = heard([pcm], ear=ear)
    assert len(rows) == 61 * 25
    assert len(ear.calls) == 4  # to 30 s, 45 s, 60 s, 61 s
    np.testing.assert_allclose(rows[740:760], offline(pcm)[740:760], atol=0.2)  # upstream hears silence at 30 s


def test_ten_minutes_in_one_piece_have_all_their_rows() -> None:
    assert len(heard([noise(600 * 8000)], 8000)) == 15_000


def test_rows_are_views_that_share_their_steps() -> None:
    listener = MuseTalkListener(LocalEar())
    rows = listener.hear(Speech(noise(16_000), 16_000, ""))
    assert rows.strides[0] == 2 * whisper.LAYERS * WIDTH * 4
    assert not rows.flags.writeable


def test_the_rate_stays_the_same_within_a_sentence() -> None:
    listener = MuseTalkListener(LocalEar())
    listener.hear(Speech(noise(100), 16_000, ""))
    with pytest.raises(ValueError, match="changes from 16000 to 24000 Hz"):
        listener.hear(Speech(noise(100), 24_000, ""))


def test_a_sentence_without_sound_has_no_rows() -> None:
    assert len(MuseTalkListener(LocalEar()).finish()) == 0


def test_rest_is_silence_as_whisper_hears_it() -> None:
    row = rest_row(LocalEar())
    assert row.shape == (whisper.TOKENS, WIDTH)
    np.testing.assert_allclose(row[:: whisper.LAYERS], -1.5)
