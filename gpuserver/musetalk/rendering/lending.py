"""12.5 mouths a second: every second frame of an answer carries on the mouth of the frame before.

The lent mouth is not pasted as it is: the compositor adds what it changed in its own frame to the next one, so the head goes on moving
at 25 fps and only the lips hold still for 40 ms. The alternatives look worse: a second engine for every second frame changes
skin and teeth 12 times a second, and the source's own mouth in between would flap.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

from gpuserver.domain import FRAME_SECONDS, AvatarFrame, Generation
from gpuserver.musetalk.rendering.schedule import Crop, Pending

_NEXT_FRAME = 1.5 * FRAME_SECONDS  # what is due later than this is not the frame after


@dataclass(frozen=True, slots=True, eq=False)
class _Lender:
    """The last mouth of a generation that was drawn, or is being drawn."""

    frame: AvatarFrame
    due: float
    crop: Crop


class Lending:
    """Remembers the last drawn mouth of each generation. Not thread-safe."""

    def __init__(self) -> None:
        self._lenders: WeakKeyDictionary[Generation, _Lender] = WeakKeyDictionary()

    def lends(self, pending: Pending) -> bool:
        """Whether the frame before lends its mouth: the future is then settled together with that one's. Else it is to be drawn."""
        job = pending.job
        lender = self._lenders.pop(job.generation, None)
        is_itself = lender is not None and lender.crop is pending.future  # put back by a device that was lost
        if lender is not None and not is_itself and 0 <= job.due - lender.due < _NEXT_FRAME:
            lender.crop.add_done_callback(lambda crop: _lend(crop, lender.frame, pending.future))
            return True
        self._lenders[job.generation] = _Lender(job.frame, job.due, pending.future)
        return False

    def forget(self) -> None:
        self._lenders.clear()


def _lend(crop: Crop, frame: AvatarFrame, borrower: Crop) -> None:
    """What came of the lender's mouth comes of the borrower's."""
    if error := crop.exception():
        borrower.set_exception(error)
        return
    mouth = crop.result()
    borrower.set_result(None if mouth is None else replace(mouth, drawn_on=frame))
