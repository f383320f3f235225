import gc
import os
from pathlib import Path

import numpy as np
import pytest

from gpuserver.musetalk.render_service.slots import Layout, create_slots, map_slots

LAYOUT = Layout(width=6, paint_slots=3, hear_slots=2)
NAME = "gpuserver-faces"


def _mapped() -> int:
    gc.collect()
    return Path("/proc/self/maps").read_text().count(NAME)


def test_both_sides_see_the_same_and_no_slot_touches_another() -> None:
    ours, descriptor = create_slots(LAYOUT)
    theirs = map_slots(LAYOUT, descriptor)
    os.close(descriptor)
    names = ("stale", "latents", "rows", "pictures", "mels", "states")
    for number, name in enumerate(names, 1):
        view = getattr(ours, name)
        for slot in range(len(view)):
            view[slot] = 10 * number + slot
    for number, name in enumerate(names, 1):
        view = getattr(theirs, name)
        assert [(int(view[slot].min()), int(view[slot].max())) for slot in range(len(view))] == [
            (10 * number + slot, 10 * number + slot) for slot in range(len(view))
        ]
    assert theirs.latents.dtype == np.float16 and theirs.rows.shape == (3, 50, 6)


def test_neither_side_can_take_the_memory_away_under_the_other() -> None:
    _, descriptor = create_slots(LAYOUT)
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, 0)
    os.close(descriptor)


def test_memory_of_another_size_is_refused() -> None:
    _, descriptor = create_slots(LAYOUT)
    with pytest.raises(ValueError):
        map_slots(Layout(width=7, paint_slots=3, hear_slots=2), descriptor)
    os.close(descriptor)


def test_it_has_no_name_and_is_gone_with_the_last_who_looks_at_it() -> None:
    files, before = set(Path("/dev/shm").iterdir()), _mapped()
    slots, descriptor = create_slots(LAYOUT)
    os.close(descriptor)
    assert _mapped() == before + 1
    assert set(Path("/dev/shm").iterdir()) == files
    del slots
    assert _mapped() == before
