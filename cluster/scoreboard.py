"""A table in shared memory, one row an agent, which outlives the agent that wrote it.

Owns the rows' layout and the mapping. The host makes it, the zygote maps it, forked agents inherit the mapping; each
agent writes its own row only, the host reads all of them whenever it likes. It is anonymous memory (memfd): no file
is left behind however its users end. It must not interpret any field beyond the three base fields. Behind the rows is
the page of notice_board.py, so that every process of the host has that too.

There are no locks: one field (an aligned 64-bit word) is always read whole, a row need not be. So write `state` last.
"""

import fcntl
import mmap
import os
from collections.abc import Sequence
from enum import IntEnum

import numpy as np

from cluster import notice_board


class AgentState(IntEnum):
    """How far an agent has come. STARTED and FAILED are set for it; READY and FINISHED it may set itself."""

    ABSENT = 0
    """The row has not been used."""
    STARTED = 1
    """Forked; its function has been called."""
    READY = 2
    """It has said that it can act (connected, subscribed, …)."""
    FINISHED = 3
    """Its function has returned 0."""
    FAILED = 4
    """Its function has raised, or has returned another exit code. An agent that was killed keeps its last state."""


BASE_FIELDS = [("agent_id", "i8"), ("pid", "i8"), ("state", "i8")]
"""What every row starts with."""

MAX_ROWS = 1 << 17
"""Bound on the agents of one host; it also bounds what a zygote can have to report at once."""


def row_dtype(fields: Sequence[tuple[str, str]]) -> np.dtype:
    """The dtype of a row from (name, format) pairs: BASE_FIELDS first, then any int64 fields.

    Errors: ValueError if they do not start so or are not all int64.
    """
    dtype = np.dtype([(str(name), str(form)) for name, form in fields])
    expected = tuple(name for name, _ in BASE_FIELDS)
    if (dtype.names or ())[: len(expected)] != expected:
        raise ValueError(f"a scoreboard's rows must start with the fields {expected}, not {dtype.names}")
    wrong = [name for name in dtype.names or () if dtype[name] != np.dtype(np.int64)]
    if wrong:
        raise ValueError(f"scoreboard fields must be int64; these are not: {', '.join(wrong)}")
    return dtype


class Scoreboard:
    """The mapped table. `rows` is a view of the shared memory, one record per agent."""

    def __init__(self, fd: int, dtype: np.dtype, capacity: int) -> None:
        """Map a table made by `create`, here or in another process; takes ownership of fd.

        Errors: ValueError if fd is not a table of this dtype and capacity.
        """
        rows_bytes = dtype.itemsize * capacity
        size_bytes = rows_bytes + notice_board.BYTES
        if os.fstat(fd).st_size != size_bytes:
            raise ValueError(f"scoreboard of {os.fstat(fd).st_size} bytes; {capacity} rows need {size_bytes}")
        self.fd = fd
        self._map = mmap.mmap(fd, size_bytes)
        self.rows: np.ndarray = np.frombuffer(self._map, dtype, capacity)
        self.notices: memoryview[int] = memoryview(self._map)[rows_bytes:].cast("q")

    @classmethod
    def create(cls, dtype: np.dtype, capacity: int) -> "Scoreboard":
        """A new table of zeros (every row ABSENT).

        Args: dtype: from `row_dtype`; capacity: rows, 1 … MAX_ROWS.
        Errors: ValueError for a capacity out of range.
        """
        if not 1 <= capacity <= MAX_ROWS:
            raise ValueError(f"scoreboard capacity must be 1 … {MAX_ROWS} rows, not {capacity}")
        fd = os.memfd_create("aar-scoreboard", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, dtype.itemsize * capacity + notice_board.BYTES)
        # No holder of the descriptor can shrink the table under the others (which would end them with SIGBUS).
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        return cls(fd, dtype, capacity)

    def counts(self) -> dict[AgentState, int]:
        """How many rows are in each state now. An agent that was killed is counted under its last state."""
        found = np.bincount(np.clip(self.rows["state"], 0, max(AgentState)), minlength=len(AgentState))
        return {state: int(found[state]) for state in AgentState}

    def close(self) -> None:
        """Give up the descriptor and this object's mapping. Rows handed out earlier stay valid; idempotent."""
        if self.fd < 0:
            return
        os.close(self.fd)
        self.fd = -1
        self.rows = self.rows.copy()
        self.notices.release()
        try:
            self._map.close()
        except BufferError:  # somebody still holds a row: the mapping goes when that does
            pass
