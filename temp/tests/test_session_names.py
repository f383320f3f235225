"""Ids and numbers of sessions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuserver.player_wire import LAST_NUMBER
from gpuserver.session_names import MOST_WORKERS, new_number, new_session_id, worker_of_id, worker_of_number


@given(worker=st.integers(1, MOST_WORKERS))
def test_names_tell_the_worker(worker: int) -> None:
    assert worker_of_id(new_session_id(worker)) == worker
    assert worker_of_number(new_number(worker)) == worker
    assert 0 < new_number(worker) <= LAST_NUMBER


def test_names_differ() -> None:
    assert len({new_session_id(3) for _ in range(100)}) == 100
    assert len({new_number(3) for _ in range(100)}) == 100


def test_an_id_without_a_worker_names_none() -> None:
    assert worker_of_id(new_session_id()) is None
    assert 0 < new_number() <= LAST_NUMBER


@pytest.mark.parametrize(
    "session_id", ["", "w1", "w1-", "w1-short", "w0-" + "a" * 22, "w65-" + "a" * 22, "W1-" + "a" * 22, "w1-" + "/" * 22]
)
def test_what_no_router_names_is_of_no_worker(session_id: str) -> None:
    assert worker_of_id(session_id) is None
