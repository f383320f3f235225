"""The service and its workers in one process: who is painted when, what is bounded, and what happens when either side misbehaves."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Event

import numpy as np
import pytest
from fakes import FakeEngine
from render_service_rig import MEMORY_FULL, PATIENCE, FakeFaces, ServiceRig, prepared_job

from gpuserver.domain import FaceCrop, Generation, Speech
from gpuserver.errors import DeviceFull, DeviceLost, NoDevice
from gpuserver.musetalk.neural.musetalk_listener import MuseTalkListener, rest_row
from gpuserver.musetalk.render_service.messages import AskStatus, Hear, Join, Message, Outcome, Paint, Painted, Share, Status, encode
from gpuserver.musetalk.render_service.service import PAINT_SLOTS, Painter
from gpuserver.musetalk.renderer import Device, Renderer


@pytest.fixture
def rig() -> Iterator[ServiceRig]:
    rig = ServiceRig()
    yield rig
    rig.close()


@pytest.fixture
def gated() -> Iterator[ServiceRig]:
    """Its engine paints nothing before the gate is opened."""
    rig = ServiceRig(FakeFaces(gated=True))
    yield rig
    rig.close()


def luma(future: Future[FaceCrop | None]) -> int:
    crop = future.result(PATIENCE)
    assert crop is not None
    return int(crop.y[2, 2])


# ---------------------------------------------------------------- what is painted when


def test_a_batch_spans_the_workers_and_the_earliest_due_goes_first(gated: ServiceRig) -> None:
    one, other = gated.join(), gated.join()
    futures = gated.occupy(one)
    for due in (-1.0, -3.0, -5.0):
        futures.append(one.submit(prepared_job(100 - due, due)))
        futures.append(other.submit(prepared_job(200 - due, due - 1)))
    gated.await_orders(6)
    gated.engine.gate.set()
    wait(futures, PATIENCE)
    assert gated.engine.batches == [[1], [2], [205, 105, 203, 103], [201, 101]]


def test_a_turns_first_frames_go_before_what_another_worker_has_ahead(gated: ServiceRig) -> None:
    one, other = gated.join(), gated.join()
    futures = gated.occupy(one)
    futures += [one.submit(prepared_job(10 + due, float(due))) for due in range(-7, -1)]
    futures.append(other.submit(prepared_job(99, -6.5, opening=True)))
    gated.await_orders(7)
    gated.engine.gate.set()
    wait(futures, PATIENCE)
    assert gated.engine.batches[2] == [99, 3, 4, 5]


def test_a_face_is_pasted_into_the_frame_it_was_ordered_for(rig: ServiceRig) -> None:
    engine = rig.join()
    futures = [engine.submit(prepared_job(level)) for level in (60, 120, 180)]
    lumas = [luma(future) for future in futures]
    assert lumas == sorted(lumas) and len(set(lumas)) == 3


def test_what_is_interrupted_in_a_worker_is_not_painted(gated: ServiceRig) -> None:
    engine = gated.join()
    gated.occupy(engine)
    interrupted, going_on = Generation(1), Generation(2)
    stale = [engine.submit(prepared_job(50, generation=interrupted)) for _ in range(3)]
    interrupted.cancel()
    wanted = engine.submit(prepared_job(80, generation=going_on))
    gated.await_orders(4)
    gated.engine.gate.set()
    assert luma(wanted)
    assert all(future.cancelled() for future in stale)
    assert gated.engine.batches[2:] == [[80]]


def test_a_slot_whose_face_was_stale_is_as_good_as_new(gated: ServiceRig) -> None:
    engine = gated.join()
    gated.occupy(engine)
    interrupted = Generation(1)
    stale = engine.submit(prepared_job(50, generation=interrupted))
    interrupted.cancel()
    engine.submit(prepared_job(80))
    gated.engine.gate.set()
    wait([stale], PATIENCE)
    assert stale.cancelled()
    for _ in range(PAINT_SLOTS):
        assert engine.wait_for_room()
        assert luma(engine.submit(prepared_job(80)))


def test_a_worker_has_so_many_faces_on_their_way_and_no_more(gated: ServiceRig) -> None:
    engine = gated.join()
    futures = [engine.submit(prepared_job(50)) for _ in range(PAINT_SLOTS)]
    assert engine.max_batch == 0
    with ThreadPoolExecutor(1) as waiting:
        room = waiting.submit(engine.wait_for_room)
        assert not room.done()
        gated.engine.gate.set()
        assert room.result(PATIENCE)
    assert wait(futures, PATIENCE).not_done == set()
    assert engine.max_batch == PAINT_SLOTS


def test_a_worker_counts_mouths_and_leaves_the_batches_to_the_process(rig: ServiceRig) -> None:
    renderer = Renderer(FakeEngine())
    renderer.start()
    renderer.add_devices([Device(rig.join())], lambda job: True)
    wait([renderer.submit(prepared_job(80)) for _ in range(40)], PATIENCE)
    stats = renderer.stats()
    renderer.close()
    assert (stats.drawn, stats.batches, stats.failed, stats.devices_lost) == (40, 0, 0, 0)
    assert sum(len(batch) for batch in rig.engine.batches) == 40
    assert stats.engines[0].frames_per_second == 450.0


# ---------------------------------------------------------------- what can go wrong with a face or a sound


def test_a_face_without_numbers_is_none_and_one_bad_job_harms_no_other_worker(rig: ServiceRig) -> None:
    one, other = rig.join(), rig.join()
    nothing, failed, fine = one.submit(prepared_job(np.nan)), one.submit(prepared_job(66)), other.submit(prepared_job(80))
    assert nothing.result(PATIENCE) is None
    with pytest.raises(RuntimeError, match="its log says why"):
        failed.result(PATIENCE)
    assert luma(fine)


def test_sound_is_heard_as_by_the_ear_itself(rig: ServiceRig) -> None:
    engine = rig.join()
    sound = Speech((np.sin(np.arange(48_000) / 20) * 9000).astype(np.int16), 16_000, "")
    there, here = engine.listener(), MuseTalkListener(rig.engine.ear)
    heard, expected = ([*listener.hear(sound), *listener.finish()] for listener in (there, here))
    assert len(heard) == 75
    np.testing.assert_array_equal(heard, expected)
    np.testing.assert_array_equal(engine.rest(), rest_row(rig.engine.ear))


def test_many_sentences_are_heard_at_a_time(rig: ServiceRig) -> None:
    client = rig.join()._client
    mels = [np.full((80, 3000), level, np.float32) for level in range(12)]
    with ThreadPoolExecutor(12) as hearing:
        heard = list(hearing.map(lambda mel: client.steps(mel, 3, 7), mels))
    assert [float(steps[0, 0, 1]) for steps in heard] == list(range(12))
    assert [float(steps[3, 0, 0]) for steps in heard] == [6.0] * 12


def test_a_device_without_memory_for_a_sound_is_told_apart_from_a_fault(rig: ServiceRig) -> None:
    engine = rig.join()
    for error, expected in ((MEMORY_FULL, DeviceFull), (ZeroDivisionError("a bug"), RuntimeError)):
        rig.engine.ear.error = error
        with pytest.raises(expected):
            engine.listener().hear(Speech(np.ones(16_000, np.int16), 16_000, ""))
    rig.engine.ear.error = None
    assert len(engine.listener().hear(Speech(np.ones(16_000, np.int16), 16_000, "")))


# ---------------------------------------------------------------- who comes and goes


def test_workers_share_what_the_device_can_do(rig: ServiceRig) -> None:
    one = rig.joined()
    assert one.receive() == Share(450.0)
    other = rig.joined()
    assert one.receive() == other.receive() == Share(225.0)
    other.close()
    assert one.receive() == Share(450.0)
    one.close()


def test_with_every_sentence_the_share_is_what_was_measured_meanwhile(rig: ServiceRig) -> None:
    engine = rig.join()
    assert engine.frames_per_second == 450.0
    rig.service._renderer._devices[0].speed.note(10_000, 100.0)
    engine.listener().hear(Speech(np.ones(16_000, np.int16), 16_000, ""))
    assert engine.frames_per_second == pytest.approx(100.0, rel=0.01)


def test_what_a_worker_that_has_gone_has_ordered_is_dropped(gated: ServiceRig) -> None:
    gone, stays = gated.join(), gated.join()
    gated.occupy(stays)
    left_behind = [gone.submit(prepared_job(50)) for _ in range(6)]
    gated.await_orders(6)
    gone.close()
    assert all(isinstance(future.exception(PATIENCE), DeviceLost) for future in left_behind)
    one_visitor = gated.joined()
    while one_visitor.receive() != Share(225.0):  # said when the service has noticed that one of three has gone
        pass
    wanted = stays.submit(prepared_job(80))
    gated.await_orders(1)
    gated.engine.gate.set()
    assert luma(wanted)
    assert gated.engine.batches[2:] == [[80]]
    one_visitor.close()


def test_faces_and_sounds_are_in_work_until_they_are_answered(gated: ServiceRig) -> None:
    engine = gated.join()
    futures = gated.occupy(engine)
    assert gated.standstill.in_work == 2
    engine.listener().hear(Speech(np.ones(16_000, np.int16), 16_000, ""))
    assert gated.standstill.in_work == 2
    gated.engine.gate.set()
    wait(futures, PATIENCE)
    assert gated.standstill.in_work == 0


def test_a_device_that_is_lost_is_said_once_and_takes_its_process_and_the_jobs_with_it(rig: ServiceRig) -> None:
    engine = rig.join()
    rig.engine.lost = True
    futures = [engine.submit(prepared_job(50)) for _ in range(3)]
    assert rig.lost.get(timeout=PATIENCE) == "The fake device fell off the bus."
    assert not any(future.done() for future in futures)
    rig.end()
    assert [type(future.exception(PATIENCE)) for future in futures] == [DeviceLost] * 3
    assert rig.lost.empty()
    rig.start_again()


def test_what_cannot_be_loaded_is_told_to_every_worker_with_its_reason() -> None:
    def load() -> list[Painter]:
        raise NoDevice("torch sees no GPU.", advice="Buy one.")

    rig = ServiceRig(load=load)
    for _ in range(2):
        with pytest.raises(NoDevice) as caught:
            rig.join()
        assert (caught.value.detail, caught.value.advice) == ("torch sees no GPU.", "Buy one.")
    rig.close()


def test_a_process_that_cannot_even_hear_silence_is_not_joined(rig: ServiceRig) -> None:
    rig.engine.ear.error = MEMORY_FULL
    with pytest.raises(DeviceFull):
        rig.join()
    rig.engine.ear.error = None
    assert luma(rig.join().submit(prepared_job(80)))


def test_who_answers_something_else_is_no_renderer(rig: ServiceRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rig.service, "_entertain", lambda channel: channel.send(Share(1.0)))
    with pytest.raises(NoDevice, match="it answers with Share"):
        rig.join()


def test_workers_wait_until_the_networks_are_loaded_and_the_status_does_not() -> None:
    loaded, engine = Event(), FakeFaces()

    def load() -> list[Painter]:
        assert loaded.wait(PATIENCE)
        return [Painter(engine, 450.0)]

    rig = ServiceRig(engine, load)
    with ThreadPoolExecutor(1) as joining:
        worker = joining.submit(rig.join)
        assert _status(rig)["state"] == "loading"
        assert not worker.done()
        loaded.set()
        assert luma(worker.result(PATIENCE).submit(prepared_job(80)))
    status = _status(rig)
    assert status.items() >= {"state": "ready", "workers": 1, "painted": 1, "batches": 1, "frames_per_second": 450.0}.items()
    rig.close()


def _status(rig: ServiceRig) -> dict[str, object]:
    channel = rig.connect()
    channel.send(AskStatus())
    status = channel.receive()
    channel.close()
    assert isinstance(status, Status)
    return status.values


# ---------------------------------------------------------------- who does not keep to the protocol

FIRST = [Paint(0, 0.0, False), Painted(0, Outcome.DONE)]
LATER = [Join(), Paint(-1, 0.0, False), Paint(PAINT_SLOTS, 0.0, False), Hear(99, 0, 1), Hear(0, -1, 1), Hear(0, 2, 1), Hear(0, 0, 1501)]


@pytest.mark.parametrize("message", FIRST, ids=repr)
def test_who_does_not_begin_as_agreed_is_shown_out(rig: ServiceRig, message: Message) -> None:
    stranger = rig.connect()
    stranger.send(message)
    assert stranger.receive() is None
    stranger.close()


@pytest.mark.parametrize("message", LATER, ids=repr)
def test_who_asks_for_what_there_is_not_is_shown_out_and_the_others_stay(rig: ServiceRig, message: Message) -> None:
    worker, stranger = rig.join(), rig.joined()
    stranger.send(message)
    while stranger.receive() is not None:
        pass
    stranger.close()
    assert luma(worker.submit(prepared_job(80)))


def test_a_slot_cannot_be_used_twice_at_a_time(gated: ServiceRig) -> None:
    stranger = gated.joined()
    for _ in range(2):
        stranger.send(Paint(0, 0.0, False))
    while (message := stranger.receive()) is not None:
        assert message != Painted(0, Outcome.DONE)
    stranger.close()


@pytest.mark.parametrize("noise", [b"\xff\xff\xff\xff", b"\x00\x00\x00\x02{}", b"GET / HTTP/1.1\r\n\r\n", encode(Join())[:7]], ids=range(4))
def test_noise_on_the_socket_harms_nobody(rig: ServiceRig, noise: bytes) -> None:
    worker, stranger = rig.join(), rig.connect()
    stranger._socket.sendall(noise)
    stranger._socket.shutdown(1)
    assert stranger.receive() is None
    stranger.close()
    assert luma(worker.submit(prepared_job(80)))


def test_the_socket_is_for_this_user_alone(rig: ServiceRig) -> None:
    assert rig.path.stat().st_mode & 0o777 == 0o600
    assert rig.path.parent.stat().st_mode & 0o777 == 0o700
