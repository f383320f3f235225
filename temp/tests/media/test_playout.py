import asyncio

import numpy as np
import pytest
from fakes import CROP_LUMA, fake_avatar, fake_crop, loud, mouth_luma
from hypothesis import given
from hypothesis import strategies as st
from virtual_time import in_virtual_time

from gpuserver.domain import FRAME_SECONDS, Generation, Played, TalkingFrame
from gpuserver.media.playout import AHEAD_FRAMES, HOLD_TICKS, MEMORY_TICKS, PlayedFrame, Playout

AVATAR = fake_avatar(6)
EPOCH = 100.0


class Clock:
    """A clock that shows what it is told."""

    def __init__(self) -> None:
        self.now = EPOCH

    def __call__(self) -> float:
        return self.now


def playout() -> Playout:
    return Playout(AVATAR, Clock())


def talking(stage: Playout, generation: Generation, value: int = 1000, heard: int = 0) -> TalkingFrame:
    """A frame that was booked now; its sound is a constant."""
    position = stage.book(generation)
    frame = AVATAR.frame_at(position)
    return TalkingFrame(generation, position, frame, fake_crop(frame), loud(value), heard)


async def put(stage: Playout, generation: Generation, count: int, first: int = 1000) -> None:
    for number in range(count):
        await stage.put(talking(stage, generation, first + number, heard=number + 1))


# ---------------------------------------------------------------- the clock


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_the_pieces_of_all_playouts_are_due_at_the_same_moments(one: float, other: float) -> None:
    first, second = Playout(AVATAR, lambda: one), Playout(AVATAR, lambda: other)
    apart = (second.epoch - first.epoch) * 50
    assert abs(apart - round(apart)) < 1e-3
    assert -1e-6 < one - first.epoch < 0.02 + 1e-6


# ---------------------------------------------------------------- idle


def test_idle_shows_the_avatars_own_pictures_forth_and_back_in_silence() -> None:
    stage = playout()
    played = [stage.tick(number) for number in range(12)]
    assert all(each.picture is AVATAR.frame_at(number).picture for number, each in enumerate(played))
    assert not any(each.sound.any() for each in played)


def test_a_tick_is_the_same_for_both_tracks_in_either_order() -> None:
    stage = playout()
    assert stage.tick(0) is stage.tick(0)
    stage.tick(3)
    assert stage.tick(1).picture is AVATAR.frame_at(1).picture


def test_a_tick_that_is_forgotten_is_silent_and_changes_nothing() -> None:
    stage = playout()
    stage.tick(MEMORY_TICKS + 5)
    assert not stage.tick(2).sound.any()
    assert stage.tick(MEMORY_TICKS + 6).position == MEMORY_TICKS + 6


def test_a_stage_that_nobody_watched_for_a_day_goes_on_at_once() -> None:
    stage = playout()
    assert stage.tick(2_160_000).position == 2_160_000


# ---------------------------------------------------------------- speech


@in_virtual_time
async def test_speech_that_begins_before_anybody_watches_is_played_from_its_beginning() -> None:
    clock = Clock()
    stage, generation = Playout(AVATAR, clock), Generation(1)
    clock.now += 60.01  # tick 1500 was due 10 ms ago
    await put(stage, generation, 3)
    played = [stage.tick(number) for number in range(1500, 1504)]
    assert [int(each.sound[0]) for each in played] == [1000, 1001, 1002, 0]
    assert [each.position for each in played] == [1500, 1501, 1502, 1503]


@in_virtual_time
async def test_speech_begins_at_the_next_position_of_the_loop_and_idle_goes_on_where_it_ends() -> None:
    stage, generation = playout(), Generation(1)
    for number in range(4):
        stage.tick(number)
    await put(stage, generation, 3)
    assert [stage.tick(number).position for number in range(4, 10)] == [4, 5, 6, 7, 8, 9]


@in_virtual_time
async def test_every_frame_is_shown_with_its_own_sound() -> None:
    stage, generation = playout(), Generation(1)
    await put(stage, generation, 5)
    assert [int(stage.tick(number).sound[0]) for number in range(6)] == [1000, 1001, 1002, 1003, 1004, 0]


@in_virtual_time
async def test_the_mouth_fades_in_over_four_frames_and_out_over_four_more() -> None:
    stage, generation = playout(), Generation(1)
    await put(stage, generation, 5)
    played = [stage.tick(number) for number in range(10)]
    mouths = [mouth_luma(each.picture) for each in played]
    assert mouths[0] < mouths[1] < mouths[2] < mouths[3] == mouths[4] == CROP_LUMA
    assert CROP_LUMA > mouths[5] > mouths[6] > mouths[7] > mouths[8]
    assert all(played[number].picture is AVATAR.frame_at(number).picture for number in (8, 9))


@in_virtual_time
async def test_a_frame_that_is_booked_while_nobody_watches_is_due_with_the_next_tick() -> None:
    clock, generation = Clock(), Generation(1)
    stage = Playout(AVATAR, clock)
    clock.now += 10
    positions = [stage.book(generation) for _ in range(2)]
    assert [stage.due(position) - EPOCH for position in positions] == pytest.approx([10.0, 10.04])


@in_virtual_time
async def test_the_sound_track_gets_both_halves_of_a_frame() -> None:
    stage, generation = playout(), Generation(1)
    frame = talking(stage, generation)
    frame.sound[960:] = 7
    await stage.put(frame)
    assert (stage.sound(0) == 1000).all()
    assert (stage.sound(1) == 7).all()
    assert len(stage.sound(0)) == len(stage.sound(1)) == 960


@in_virtual_time
async def test_the_loop_holds_for_a_booked_frame_and_shows_it_without_a_jump() -> None:
    stage, generation = playout(), Generation(1)
    stage.tick(0)
    frame = talking(stage, generation)
    held = [stage.tick(number).position for number in (1, 2)]
    await stage.put(frame)
    assert [*held, stage.tick(3).position] == [0, 0, 1]


@in_virtual_time
async def test_the_loop_does_not_hold_forever_and_a_late_frame_is_carried_to_where_it_is() -> None:
    stage, generation = playout(), Generation(1)
    stage.tick(0)
    frame = talking(stage, generation)
    idle = [stage.tick(number).position for number in range(1, HOLD_TICKS + 4)]
    await stage.put(frame)
    late = stage.tick(HOLD_TICKS + 4)
    assert idle == [0] * HOLD_TICKS + [1, 2, 3]
    assert late.position == 4
    assert int(late.sound[0]) == 1000
    assert late.picture[0, 0] == AVATAR.frame_at(4).picture[0, 0]


@in_virtual_time
async def test_after_a_late_frame_the_next_booking_is_for_where_the_loop_will_be() -> None:
    stage, generation = playout(), Generation(1)
    stage.tick(0)
    frame = talking(stage, generation)
    for number in range(1, HOLD_TICKS + 4):
        stage.tick(number)
    await stage.put(frame)
    assert stage.book(generation) == 5


@in_virtual_time
async def test_a_frame_is_due_when_its_position_is_shown() -> None:
    stage, generation = playout(), Generation(1)
    for number in range(5):
        stage.tick(number)
    assert stage.due(stage.book(generation)) == pytest.approx(EPOCH + 5 * FRAME_SECONDS)
    assert stage.due(stage.book(generation)) == pytest.approx(EPOCH + 6 * FRAME_SECONDS)


@in_virtual_time
async def test_a_few_left_out_ticks_can_still_be_heard() -> None:
    stage, generation = playout(), Generation(1)
    await put(stage, generation, 6)
    stage.tick(4)
    assert [int(stage.tick(number).sound[0]) for number in range(6)] == [1000, 1001, 1002, 1003, 1004, 1005]


@in_virtual_time
async def test_a_stalled_caller_loses_frames_but_sound_and_picture_stay_together() -> None:
    stage, generation = playout(), Generation(1)
    await put(stage, generation, 20)
    stage.tick(0)
    played = stage.tick(15)
    assert int(played.sound[0]) == 1015
    assert played.position == 15


@in_virtual_time
async def test_put_waits_while_a_second_of_frames_is_ahead() -> None:
    stage, generation = playout(), Generation(1)
    await put(stage, generation, AHEAD_FRAMES)
    waiting = asyncio.create_task(stage.put(talking(stage, generation)))
    await asyncio.sleep(0)
    assert not waiting.done()
    stage.tick(0)
    await waiting


@in_virtual_time
async def test_a_frame_that_was_not_booked_is_an_error() -> None:
    stage, generation = playout(), Generation(1)
    frame = talking(stage, generation)
    await stage.put(frame)
    with pytest.raises(ValueError, match="not booked"):
        await stage.put(frame)


@in_virtual_time
async def test_two_generations_in_sequence_keep_their_order() -> None:
    stage, first, second = playout(), Generation(1), Generation(2)
    await put(stage, first, 2, first=1000)
    await put(stage, second, 2, first=2000)
    assert [int(stage.tick(number).sound[0]) for number in range(5)] == [1000, 1001, 2000, 2001, 0]


# ---------------------------------------------------------------- accounts


@in_virtual_time
async def test_started_tells_when_the_first_sample_left() -> None:
    clock = Clock()
    stage, generation = Playout(AVATAR, clock), Generation(1)
    started = asyncio.create_task(stage.started(generation))
    await put(stage, generation, 1)
    clock.now = EPOCH + 0.5
    stage.tick(12)
    assert await started == EPOCH + 0.5


@in_virtual_time
async def test_drained_returns_after_the_last_frame_with_what_was_heard() -> None:
    stage, generation = playout(), Generation(1)
    await put(stage, generation, 3)
    drained = asyncio.create_task(stage.drained(generation))
    for number in range(2):
        stage.tick(number)
        await asyncio.sleep(0)
    assert not drained.done()
    stage.tick(2)
    played = await drained
    assert played.heard == 3
    assert played.last_audible_at == pytest.approx(EPOCH + 3 * FRAME_SECONDS)


@in_virtual_time
async def test_the_last_audible_sample_is_not_the_silence_after_it() -> None:
    stage, generation = playout(), Generation(1)
    frame = talking(stage, generation)
    frame.sound[480:] = 0
    await stage.put(frame)
    stage.tick(0)
    assert (await stage.drained(generation)).last_audible_at == pytest.approx(EPOCH + 0.01)


@in_virtual_time
async def test_a_generation_that_put_nothing_is_drained_at_once() -> None:
    assert await playout().drained(Generation(1)) == Played(0, None)


@in_virtual_time
async def test_speaking_ends_with_the_last_frame() -> None:
    stage, generation = playout(), Generation(1)
    assert not stage.speaking
    await put(stage, generation, 1)
    assert stage.speaking
    stage.tick(0)
    assert stage.speaking
    stage.tick(1)
    assert not stage.speaking


# ---------------------------------------------------------------- interruption


@in_virtual_time
async def test_an_interruption_silences_the_half_that_has_not_left_with_a_short_fade() -> None:
    stage, generation = playout(), Generation(1)
    await put(stage, generation, 5)
    assert (stage.sound(0) == 1000).all()
    stage.cancel(generation)
    rest = stage.sound(1)
    assert 900 < rest[0] <= 1000
    assert (np.diff(rest[:240].astype(int)) <= 0).all()
    assert not rest[240:].any()
    assert not stage.sound(2).any()
    assert (await stage.drained(generation)).last_audible_at == pytest.approx(EPOCH + 0.025)


@in_virtual_time
async def test_an_interruption_between_two_frames_fades_nothing_that_was_not_begun() -> None:
    stage, generation = playout(), Generation(1)
    await put(stage, generation, 5)
    stage.sound(0), stage.sound(1)
    stage.cancel(generation)
    assert not stage.sound(2).any()
    assert (await stage.drained(generation)).last_audible_at == pytest.approx(EPOCH + 0.04)


@in_virtual_time
async def test_a_sound_track_that_lags_behind_the_picture_is_silenced_too() -> None:
    stage, generation = playout(), Generation(1)
    await put(stage, generation, 5)
    stage.sound(0)
    stage.tick(3)
    stage.cancel(generation)
    assert stage.sound(1)[0] > 0
    assert not any(stage.sound(piece).any() for piece in range(2, 10))


@in_virtual_time
async def test_the_mouth_is_the_sources_own_within_four_frames_of_an_interruption() -> None:
    stage, generation = playout(), Generation(1)
    await put(stage, generation, 10)
    for number in range(5):
        stage.tick(number)
    stage.cancel(generation)
    played = [stage.tick(number) for number in range(5, 9)]
    assert [each.position for each in played] == [5, 6, 7, 8]
    assert mouth_luma(played[0].picture) > mouth_luma(played[1].picture) > mouth_luma(played[2].picture) > 50
    assert played[3].picture is AVATAR.frame_at(8).picture


@in_virtual_time
async def test_nothing_is_put_after_an_interruption_and_nobody_waits_on() -> None:
    stage, generation = playout(), Generation(1)
    await put(stage, generation, AHEAD_FRAMES)
    waiting = asyncio.create_task(stage.put(talking(stage, generation)))
    never_started = asyncio.create_task(stage.started(generation))
    await asyncio.sleep(0)
    stage.cancel(generation)
    await waiting
    assert await never_started is None
    assert stage.tick(0).generation is None
    assert generation.cancelled


@in_virtual_time
async def test_an_interruption_leaves_the_next_generation_alone() -> None:
    stage, old, new = playout(), Generation(1), Generation(2)
    await put(stage, old, 3)
    stage.cancel(old)
    await put(stage, new, 2, first=2000)
    stage.cancel(old)
    assert [int(stage.tick(number).sound[0]) for number in range(3)] == [2000, 2001, 0]


# ---------------------------------------------------------------- any interleaving

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("book"), st.integers(1, 4)),
        st.tuples(st.just("put"), st.integers(1, 4)),
        st.tuples(st.just("tick"), st.integers(1, 3)),
        st.tuples(st.just("sound"), st.integers(1, 4)),
        st.tuples(st.just("cancel"), st.just(0)),
    ),
    max_size=60,
)


class Theatre:
    """Does any sequence of steps with one generation after the other and notes what is put, played and cancelled."""

    def __init__(self) -> None:
        self.stage = playout()
        self.generation = Generation(1)
        self.booked: list[TalkingFrame] = []
        self.expected: list[int] = []  # sound that was put and has not been played
        self.number = -1
        self.piece = -1
        self.value = 1
        self.position = -1

    def book(self, count: int) -> None:
        for _ in range(count):
            self.booked.append(talking(self.stage, self.generation, self.value))
            self.value += 1

    async def put(self, count: int) -> None:
        for _ in range(min(count, len(self.booked), AHEAD_FRAMES - len(self.expected))):
            frame = self.booked.pop(0)
            self.expected.append(int(frame.sound[0]))
            await self.stage.put(frame)

    def tick(self, count: int) -> None:
        for _ in range(count):
            self.number += 1
            played = self.stage.tick(self.number)
            assert played.position - self.position in (0, 1)
            self.position = played.position
            assert played.picture[0, 0] == AVATAR.frame_at(played.position).picture[0, 0]
            if played.generation is None:
                assert not played.sound.any()
            else:
                assert played.generation is self.generation
                assert (played.sound == self.expected.pop(0)).all()

    def sound(self, count: int) -> None:
        for _ in range(count):
            self.piece += 1
            if self.piece // 2 <= self.number:
                self.stage.sound(self.piece)

    def cancel(self, _: int) -> None:
        self.stage.cancel(self.generation)
        self.generation = Generation(self.generation.number + 1)
        self.booked.clear()
        self.expected.clear()
        later = [self.stage.tick(number) for number in range(max(0, self.number - 2), self.number + 1)]
        assert not any(each.sound[max(0, (self.piece + 1) * 960 - each.number * 1920) :][240:].any() for each in later)


@given(STEPS)
def test_sound_is_exactly_what_was_put_and_nothing_stale_is_ever_played(steps: list[tuple[str, int]]) -> None:
    async def perform() -> None:
        theatre = Theatre()
        for name, count in steps:
            done = getattr(theatre, name)(count)
            if done is not None:
                await done

    asyncio.run(perform())


# ---------------------------------------------------------------- a recording


def test_the_camera_gets_every_frame_from_its_start_to_its_stop_once_and_in_order() -> None:
    film: list[PlayedFrame] = []
    stage = playout()
    stage.tick(4)
    stage.record(film.append)
    shown = [stage.tick(number) for number in range(5, 5 + 3 * MEMORY_TICKS)]
    stage.stop_recording()
    stage.tick(100)
    assert all(one is other for one, other in zip(film, shown, strict=True))


async def test_the_camera_hears_an_interruption_as_it_was_heard() -> None:
    film: list[PlayedFrame] = []
    stage, generation = playout(), Generation(1)
    stage.record(film.append)
    await put(stage, generation, 4)
    heard = stage.sound(0)
    stage.cancel(generation)
    stage.tick(2 * MEMORY_TICKS)
    stage.stop_recording()
    assert (film[0].sound[: len(heard)] == heard).all()
    assert not film[0].sound[len(heard) + 240 :].any()


def test_ticks_that_nobody_watched_leave_nothing_in_memory() -> None:
    film: list[PlayedFrame] = []
    stage = playout()
    stage.record(film.append)
    for number in range(0, 1000, 50):
        stage.tick(number)
    assert len(film) + MEMORY_TICKS == 1 + 19 * MEMORY_TICKS
