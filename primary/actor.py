"""A live session: its transcript in memory, changed in one place only.

An append costs the same whatever the transcript's length: one look into a hash table for the idempotency key, one
mutation to queue, and, once it is safe, a few bytes more at the end of a buffer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from agent_core.rpc.session_pb2 import Entry, Session
from primary import key_index, transcript
from primary.key_index import KeyIndex
from primary.mutation import Append
from primary.transcript import Transcript

ENTRY_OVERHEAD_BYTES = key_index.ENTRY_OVERHEAD_BYTES + transcript.ENTRY_OVERHEAD_BYTES
"""What an entry costs in memory beyond its encoded form."""
SESSION_OVERHEAD_BYTES = 6 << 10
"""What a session costs without entries: its objects, and what its last buffer holds ahead."""


@dataclass(slots=True)
class Repeated:
    """An idempotency key was used before: the entry that it made is safe, or is on its way."""

    seq: int = 0
    on_its_way: Append | None = None


class SessionActor:
    """One session's state on its primary. Every method runs on the event loop.

    Attributes:
        session: What is known of the session besides its entries; entry_count and updated_at follow along.
        shard: The shard that holds it …
        group: … and the group that the shard belongs to.
        row: The session's row in its shard; 0 until the creation is written.
        used_at: When it was last asked for anything, on the event loop's clock, in seconds.
        memory_bytes: An estimate of what it costs to keep.
        outstanding: Mutations that were queued and are not visible yet; it cannot be evicted before they are.
    """

    __slots__ = (
        "_keys",
        "_numbered",
        "_on_their_way",
        "_transcript",
        "group",
        "memory_bytes",
        "outstanding",
        "row",
        "session",
        "shard",
        "used_at",
    )

    def __init__(self, session: Session, shard: int, group: int, row: int = 0) -> None:
        self.session = session
        self.shard = shard
        self.group = group
        self.row = row
        self.used_at = 0.0
        self.memory_bytes = SESSION_OVERHEAD_BYTES
        self.outstanding = 0
        self._numbered = 0
        self._transcript = Transcript()
        self._keys = KeyIndex()
        self._on_their_way: dict[str, Append] = {}

    @property
    def visible_seq(self) -> int:
        """The seq of the last entry that readers and subscribers may see."""
        return len(self._transcript)

    @property
    def next_seq(self) -> int:
        """The seq of the next entry to be written, behind those on their way."""
        return len(self._transcript) + self._numbered + 1

    def repeated(self, idempotency_key: str) -> Repeated | None:
        """What became of an earlier append with this key; None when there was none."""
        on_its_way = self._on_their_way.get(idempotency_key)
        if on_its_way is not None:
            return Repeated(on_its_way=on_its_way)
        for seq in self._keys.candidates(idempotency_key):
            if self.entry(seq).idempotency_key == idempotency_key:
                return Repeated(seq=seq)
        return None

    def queued(self, append: Append) -> None:
        """An append was handed to the writer."""
        self.outstanding += 1
        if append.idempotency_key:
            self._on_their_way[append.idempotency_key] = append

    def number(self, append: Append) -> None:
        """The batch with this append is closed: give it its seq."""
        append.seq = self.next_seq
        self._numbered += 1

    def withdraw(self, append: Append) -> None:
        """The append was not written; if it had a seq, it was the last one given."""
        self.outstanding -= 1
        if append.seq:
            self._numbered -= 1
            append.seq = 0
        self._on_their_way.pop(append.idempotency_key, None)

    def settle(self, append: Append) -> None:
        """The append is safe and everything before it is visible: let it be seen."""
        assert append.seq == len(self._transcript) + 1, "entries become visible in order"
        self.outstanding -= 1
        self._numbered -= 1
        self._on_their_way.pop(append.idempotency_key, None)
        self._remember(
            Entry(
                seq=append.seq,
                kind=append.kind,
                payload_json=append.payload,
                created_at_ms=append.created_at_ms,
                idempotency_key=append.idempotency_key,
            )
        )

    def remember(self, entries: Iterable[Entry]) -> None:
        """Take in what the shard holds of the session, behind what is known already."""
        for entry in entries:
            self._remember(entry)

    def entry(self, seq: int) -> Entry:
        """A visible entry."""
        return Entry.FromString(self._transcript[seq - 1])

    def entries(self, after_seq: int, limit: int, limit_bytes: int) -> Sequence[Entry]:
        """Visible entries behind a cursor: at least one if there is one, else as many as both limits allow."""
        taken: list[Entry] = []
        size = 0
        for encoded in islice(self._transcript.since(after_seq), limit):
            size += len(encoded)
            if taken and size > limit_bytes:
                break
            taken.append(Entry.FromString(encoded))
        return taken

    def _remember(self, entry: Entry) -> None:
        encoded = entry.SerializeToString()
        self._transcript.append(encoded)
        self._keys.append(entry.idempotency_key)
        self.memory_bytes += len(encoded) + ENTRY_OVERHEAD_BYTES
        self.session.entry_count = len(self._transcript)
        self.session.updated_at_ms = max(self.session.updated_at_ms, entry.created_at_ms)
