"""Lips stay on the sound at a receiver that goes by our reports, also when every picture comes late."""

from __future__ import annotations

import numpy as np
import pytest

from bench.lip_sync import lags


@pytest.mark.parametrize(("late", "pictures"), [(0.0, 20), (0.3, 6)])
async def test_a_picture_is_due_with_its_sound_however_late_it_was_encoded(late: float, pictures: int) -> None:
    found = np.array(await lags(late, pictures=pictures))
    assert abs(found.mean()) < 0.010, "6.5 ms are the Opus decoder's"
    assert np.abs(found).max() < 0.040
