import numpy as np
import pytest
from fake_network import NETWORK_LUMA, TOKENS, WIDTH, FakeNetwork, prepared_avatar
from fakes import CROP_LUMA, FakeEngine, fake_avatar, loud

from gpuserver.domain import Avatar, FaceCrop, Floats, Generation, MouthJob, PipelinedEngine, Speech
from gpuserver.musetalk.rendering.paired_engines import Pair, SpareOfPair, network_of_pair

RATE = 24_000


class RecordingEngine(FakeEngine):
    """FakeEngine with its rows kept."""

    def rows(self) -> list[float]:
        return [float(job.features[0]) for batch in self.batches for job in batch]


def speech(*loudness: int, frames: int = 10) -> Speech:
    """10 frames of each loudness."""
    return Speech(np.concatenate([loud(value, frames * RATE // 25) for value in loudness]), RATE, "")


@pytest.fixture
def network() -> FakeNetwork:
    return FakeNetwork()


@pytest.fixture
def spare() -> RecordingEngine:
    return RecordingEngine()


@pytest.fixture
def pair(network: FakeNetwork, spare: RecordingEngine) -> Pair:
    return Pair(network, spare)


def rows_of(pair: Pair, *pieces: Speech) -> Floats:
    listener = pair.listener()
    return np.concatenate([*(listener.hear(piece) for piece in pieces), listener.finish()])


def jobs(rows: Floats, avatar: Avatar) -> list[MouthJob]:
    return [MouthJob(avatar.frame_at(index), row, 0.0, Generation(1)) for index, row in enumerate(rows)]


def middle(crop: FaceCrop | None) -> int:
    assert crop is not None
    return int(crop.y[crop.y.shape[0] // 2, crop.y.shape[1] // 2])


def test_every_engine_gets_its_own_rows_back(pair: Pair, network: FakeNetwork, spare: RecordingEngine) -> None:
    work = jobs(rows_of(pair, speech(1000, 2000)), prepared_avatar())
    assert all(pair.suits_network(job) for job in work)
    assert {middle(crop) for crop in network_of_pair(network, pair).render(work)} == {NETWORK_LUMA}
    assert {middle(crop) for crop in SpareOfPair(spare).render(work)} == {CROP_LUMA}
    [drawn] = network.finished
    assert [job.features.shape for job in drawn] == [(TOKENS, WIDTH)] * 20
    assert [float(job.features[2, 1]) for job in drawn] == spare.rows() == [1000.0] * 10 + [2000.0] * 10


def test_it_does_not_matter_in_which_pieces_the_sound_comes(pair: Pair) -> None:
    whole = speech(1000, 0, 3000)
    size = 700
    pieces = [Speech(whole.pcm[at : at + size], RATE, "") for at in range(0, len(whole.pcm), size)]
    assert np.array_equal(rows_of(pair, whole), rows_of(pair, *pieces))


def test_a_pause_does_not_go_to_the_network(pair: Pair) -> None:
    work = jobs(rows_of(pair, speech(1000, 0, 1000)), prepared_avatar())
    assert [pair.suits_network(job) for job in work] == [True] * 12 + [False] * 6 + [True] * 12


def test_closed_lips_do_not_go_to_the_network_and_the_spare_engine_can_draw_them(pair: Pair, spare: RecordingEngine) -> None:
    [job] = jobs(pair.rest()[None], prepared_avatar())
    assert not pair.suits_network(job)
    SpareOfPair(spare).render([job])
    assert spare.rows() == [0.0]


def test_an_avatar_that_was_not_prepared_does_not_go_to_the_network(pair: Pair) -> None:
    assert not any(pair.suits_network(job) for job in jobs(rows_of(pair, speech(1000)), fake_avatar()))


def test_the_spare_engine_still_takes_its_own_rows(pair: Pair, spare: RecordingEngine) -> None:
    work = jobs(np.full((2, 1), 5.0, np.float32), prepared_avatar())
    SpareOfPair(spare).render(work)
    assert spare.rows() == [5.0, 5.0]
    assert not any(pair.suits_network(job) for job in work)


def test_a_device_that_is_lost_in_a_sentence_leaves_the_rest_of_it_to_the_spare_engine(pair: Pair, network: FakeNetwork) -> None:
    listener = pair.listener()
    before = listener.hear(speech(1000))
    network.lost = True
    after = np.concatenate([listener.hear(speech(2000)), listener.finish()])
    suits = [pair.suits_network(job) for job in jobs(np.concatenate([before, after]), prepared_avatar())]
    assert suits == [True] * len(before) + [False] * (20 - len(before))
    assert len(before) >= 8


def test_a_full_device_leaves_the_rest_of_a_sentence_to_the_spare_engine_and_hears_the_next_one(pair: Pair, network: FakeNetwork) -> None:
    listener = pair.listener()
    before = listener.hear(speech(1000))
    network.memory_full = True
    after = np.concatenate([listener.hear(speech(2000)), listener.finish()])
    network.memory_full = False
    assert [pair.suits_network(job) for job in jobs(after, prepared_avatar())] == [False] * (20 - len(before))
    assert not pair.deaf
    assert all(pair.suits_network(job) for job in jobs(rows_of(pair, speech(1000)), prepared_avatar()))


def test_a_device_that_cannot_hold_as_large_batches_any_more_is_not_given_them(pair: Pair, network: FakeNetwork) -> None:
    paired = network_of_pair(network, pair)
    network.max_batch = 2
    assert paired.max_batch == 2


def test_a_sentence_without_sound_has_no_rows(pair: Pair) -> None:
    assert len(pair.listener().finish()) == 0
    assert len(pair.listener().hear(speech(1000, frames=0))) == 0


def test_an_engine_on_a_device_is_still_one_in_a_pair(pair: Pair, network: FakeNetwork, spare: RecordingEngine) -> None:
    assert isinstance(network_of_pair(network, pair), PipelinedEngine)
    assert not isinstance(network_of_pair(spare, pair), PipelinedEngine)
    network.out_of_memory = 3
    assert network_of_pair(network, pair).out_of_memory == 3
