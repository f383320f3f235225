"""The numbers by which LiveTalking's clients know their sessions."""

from __future__ import annotations

from gpuserver.errors import SessionNotFound
from gpuserver.pipeline.session import Session
from gpuserver.pipeline.sessions import SessionRegistry
from gpuserver.session_names import new_number, worker_of_id


class SessionNumbers:
    """Numbers that cannot be guessed. One whose session has ended is forgotten when the next one is given."""

    def __init__(self, registry: SessionRegistry):
        self._registry = registry
        self._ids: dict[int, str] = {}

    def give(self, session: Session) -> int:
        """A number for the session."""
        living = {each.session_id for each in self._registry.list()}
        self._ids = {number: session_id for number, session_id in self._ids.items() if session_id in living}
        number = new_number(worker_of_id(session.session_id))
        self._ids[number] = session.session_id
        return number

    def find(self, number: int) -> Session:
        """Raises SessionNotFound."""
        if (session_id := self._ids.get(number)) is None:
            raise SessionNotFound("There is no session with this sessionid.", advice="Connect again: POST /offer gives a new one.")
        return self._registry.get(session_id)
