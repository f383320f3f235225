"""Many sessions and engines of known speed, in virtual time: who is drawn first, what gives way, and that the sound never does."""

import asyncio
from collections.abc import Iterable

import pytest
from fakes import FakeEngine, FakeLanguageModel, FakeVoice, fake_avatar
from simulated_renderer import SimulatedRenderer
from virtual_time import in_virtual_time, now

from gpuserver.domain import Generation
from gpuserver.media.playout import Playout
from gpuserver.messages import ServerMessage
from gpuserver.musetalk.rendering.ladder import Step
from gpuserver.pipeline.delivery import Scene
from gpuserver.pipeline.studio import Studio
from gpuserver.pipeline.turn import Line, Turn

AVATAR = fake_avatar()
FRAME = 0.04
GPU = 450.0  # frames per second
CPU = 360.0


class Student:
    """Hears and sees one answer of so many seconds, tick by tick."""

    def __init__(self, renderer: SimulatedRenderer, seconds: float):
        self.asked_at = now()
        self.first_audible: float | None = None
        self.gaps = 0  # ticks without sound between the first and the last one with
        self.events: list[ServerMessage] = []
        self.generation = Generation(1)
        self._playout = Playout(AVATAR, asyncio.get_running_loop().time)
        engine = FakeEngine()
        self._turn = Turn(
            Line("word " * round(seconds / 0.2), True, self.generation, now()),
            Studio(FakeLanguageModel(), FakeVoice(), engine, renderer),
            Scene(AVATAR, self._playout),
            self.events.append,
        )

    def interrupt(self) -> None:
        self._turn.interrupt()

    async def listen(self) -> None:
        watching = asyncio.create_task(self._watch())
        await self._turn.run()
        watching.cancel()
        await asyncio.wait([watching])

    async def _watch(self) -> None:
        silent, number = 0, 0
        while True:
            if self._playout.tick(number).sound.any():
                self.first_audible = now() if self.first_audible is None else self.first_audible
                self.gaps += silent
                silent = 0
            elif self.first_audible is not None:
                silent += 1
            number += 1
            await asyncio.sleep(max(0.0, self._playout.epoch + number * FRAME - now()))


async def speak(renderer: SimulatedRenderer, sessions: int, seconds: float, apart: float = 0.05) -> list[Student]:
    """So many students are answered, one after the other being asked."""
    students, listening = [], []
    for _ in range(sessions):
        students.append(Student(renderer, seconds))
        listening.append(asyncio.create_task(students[-1].listen()))
        await asyncio.sleep(apart)
    await asyncio.gather(*listening)
    return students


def steps(renderer: SimulatedRenderer) -> list[Step]:
    return [step for _, step in renderer.steps]


def share_late(renderer: SimulatedRenderer) -> float:
    return renderer.stats.late / renderer.stats.drawn


def longest_gap(students: Iterable[Student]) -> float:
    return max(student.gaps for student in students) * FRAME


@in_virtual_time
async def test_sixteen_sessions_speak_on_one_device_and_no_frame_is_late() -> None:
    async with SimulatedRenderer(device=GPU, devices=1, spare=CPU, seconds_to_finish=0.01) as renderer:
        students = await speak(renderer, 16, 3)
        assert share_late(renderer) < 0.01
        assert steps(renderer) == []
        assert longest_gap(students) == 0


@in_virtual_time
async def test_a_first_face_comes_at_once_while_others_have_all_their_seconds_ahead_to_draw() -> None:
    async with SimulatedRenderer(device=GPU, devices=1, spare=CPU, seconds_to_finish=0.01) as renderer:
        others = asyncio.create_task(speak(renderer, 12, 4, apart=0.0))
        await asyncio.sleep(0.1)  # the device has 12 x 25 frames before it
        student = Student(renderer, 1)
        await student.listen()
        assert student.first_audible is not None
        assert student.first_audible - student.asked_at <= 0.06 + FRAME  # and the tick that shows it
        await others


@in_virtual_time
async def test_a_little_overload_halves_the_mouths_and_leaves_the_sound_alone() -> None:
    async with SimulatedRenderer(device=GPU, devices=1, spare=CPU) as renderer:
        students = await speak(renderer, 22, 5)
        assert steps(renderer) == [Step.HALF]
        assert renderer.stats.lent > renderer.stats.drawn / 5
        assert longest_gap(students) < 0.25


@in_virtual_time
async def test_a_great_overload_goes_to_the_spare_engine() -> None:
    async with SimulatedRenderer(device=100, devices=1, spare=600) as renderer:
        students = await speak(renderer, 16, 3)
        assert steps(renderer)[:2] == [Step.HALF, Step.SPARE]
        assert longest_gap(students) < 0.6


@in_virtual_time
async def test_when_the_overload_is_over_the_mouths_come_back_step_by_step() -> None:
    async with SimulatedRenderer(device=GPU, devices=1, spare=CPU) as renderer:
        await speak(renderer, 24, 4)
        assert renderer.step is Step.HALF
        await speak(renderer, 1, 12)
        assert steps(renderer) == [Step.HALF, Step.FULL]


@in_virtual_time
async def test_an_overloaded_spare_engine_alone_halves_its_mouths_too() -> None:
    async with SimulatedRenderer(spare=150) as renderer:
        students = await speak(renderer, 8, 4)
        assert steps(renderer) == [Step.HALF]
        assert longest_gap(students) < 0.25


@in_virtual_time
async def test_two_devices_carry_twice_as_many() -> None:
    async with SimulatedRenderer(device=GPU, devices=2, spare=CPU) as renderer:
        students = await speak(renderer, 30, 2)
        assert steps(renderer) == []
        assert longest_gap(students) == 0


@in_virtual_time
async def test_a_device_that_is_lost_costs_no_session_its_sound() -> None:
    async with SimulatedRenderer(device=GPU, devices=1, spare=CPU) as renderer:
        speaking = asyncio.create_task(speak(renderer, 6, 4))
        await asyncio.sleep(2)
        renderer.lose_device()
        assert longest_gap(await speaking) == 0
        assert renderer.stats.devices_lost == 1


@in_virtual_time
async def test_interrupted_answers_are_not_drawn() -> None:
    async with SimulatedRenderer(device=50, devices=1, spare=CPU) as renderer:
        students = [Student(renderer, 5) for _ in range(4)]
        listening = [asyncio.create_task(student.listen()) for student in students]
        await asyncio.sleep(0.3)
        drawn = renderer.stats.drawn
        for student in students:
            student.interrupt()
        await asyncio.gather(*listening)
        await asyncio.sleep(5)
        assert renderer.stats.drawn <= drawn + 8  # the batch in work


@pytest.mark.parametrize("spare", [150.0, 360.0])
@in_virtual_time
async def test_what_is_drawn_ahead_is_a_second_at_most(spare: float) -> None:
    async with SimulatedRenderer(spare=spare) as renderer:
        student = Student(renderer, 4)
        listening = asyncio.create_task(student.listen())
        await asyncio.sleep(2)
        assert student.first_audible is not None
        shown = (now() - student.first_audible) / FRAME
        assert 20 <= renderer.stats.drawn - shown <= 28
        await listening
