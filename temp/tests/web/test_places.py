"""A fixed number of places: taken, refused, free again however a block ends."""

from __future__ import annotations

from contextlib import ExitStack, suppress

import pytest

from gpuserver.errors import TooManyWaiting
from gpuserver.web.places import Places


def test_who_finds_no_place_is_turned_away_until_one_is_free_again() -> None:
    places = Places(2, lambda: TooManyWaiting("Full."))
    for _ in range(3):
        with ExitStack() as taken:
            taken.enter_context(places.one())
            taken.enter_context(places.one())
            with pytest.raises(TooManyWaiting, match="Full"):
                taken.enter_context(places.one())


def test_a_place_is_free_after_a_failure() -> None:
    places = Places(1, lambda: TooManyWaiting("Full."))
    with suppress(OSError), places.one():
        raise OSError
    with places.one():
        pass
