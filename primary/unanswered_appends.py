"""What one primary owes answers to, by append and by session. Pure."""

from __future__ import annotations


class UnansweredAppends:
    """Appends that a primary was given and has not answered. A session that it owes nothing leaves no trace."""

    def __init__(self) -> None:
        self._session_ids: dict[int, str] = {}
        self._counts: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._session_ids)

    @property
    def request_ids(self) -> list[int]:
        """Which ones, rising."""
        return sorted(self._session_ids)

    def has_session(self, session_id: str) -> bool:
        """Whether there are any of a session."""
        return session_id in self._counts

    def add(self, request_id: int, session_id: str) -> None:
        """It was given one more; one that has the id of another takes its place."""
        self.remove(request_id)
        self._session_ids[request_id] = session_id
        self._counts[session_id] = self._counts.get(session_id, 0) + 1

    def remove(self, request_id: int) -> str | None:
        """It owes an answer no more.

        Returns:
            The append's session; None: no answer was owed.
        """
        session_id = self._session_ids.pop(request_id, None)
        if session_id is not None:
            self._counts[session_id] -= 1
            if not self._counts[session_id]:
                del self._counts[session_id]
        return session_id
