"""A page of shared memory on which a host's kill switch posts the venue's notices, and which every agent can read.

Owns the page's layout, and what an agent has to remember so that it takes each notice once: from here or from its own
subscription, whichever comes first. One process writes, once a run; nothing is locked. A slot carries a check word, so
that a reader never takes one that is half written.

All notices are posted in their order, but only a halt makes an agent read here: then it takes what its subscription
has not brought up to that halt, so that it hears the halt in its place. What nobody posts (no relay, or a dead one)
comes by subscription as ever.
"""

from collections import deque

from exchange import wire
from exchange.types import EventKind

POSTED_KINDS = (
    EventKind.INSTRUMENT_HALTED,
    EventKind.SESSION_OPENED,
    EventKind.SIGNAL_PUBLISHED,
    EventKind.SESSION_CLOSED,
    EventKind.PHASE_CHANGED,
)
"""The notices that every agent subscribes to."""
SLOTS = 64
"""Notices that are kept. A halt is posted within milliseconds, so no agent is so far behind; what was overwritten comes
by subscription."""

_POSTED, _HALT, _HEAD = 0, 1, 8  # how many were posted; how many when the latest halt was; where the slots begin
_FIELDS = len(wire.Notice._fields)
_SLOT_WORDS = _FIELDS + 1
_MASK = (1 << 62) - 1
BYTES = 8 * (_HEAD + SLOTS * _SLOT_WORDS)


def _check(number: int, values: tuple[int, ...]) -> int:
    return hash((number, *values)) & _MASK  # of integers: the same in every process


class NoticeWriter:
    """The relay's end. words: int64, BYTES long, zeros at first."""

    def __init__(self, words: "memoryview[int]") -> None:
        self._words = words

    def post(self, notice: wire.Notice) -> None:
        """Put it up; a halt is seen by every agent's next look."""
        words = self._words
        number = words[_POSTED]
        at = _HEAD + number % SLOTS * _SLOT_WORDS
        for offset, value in enumerate((*notice, _check(number, notice))):
            words[at + offset] = value
        words[_POSTED] = number + 1
        if notice.kind == EventKind.INSTRUMENT_HALTED:
            words[_HALT] = number + 1


class NoticeReader:
    """An agent's end. What was posted before it was made is not its concern."""

    def __init__(self, words: "memoryview[int]") -> None:
        self._words = words
        self._taken = words[_POSTED]
        self._heard: deque[wire.Notice] = deque(maxlen=2 * SLOTS)  # by subscription; perhaps not looked at here yet
        self._ahead: deque[wire.Notice] = deque(maxlen=SLOTS)  # taken here; the subscription will bring them again

    def is_behind(self) -> bool:
        """Whether a halt is up that `take` has not gone past. One look at memory: cheap enough before every order."""
        return self._words[_HALT] > self._taken

    def take(self) -> list[wire.Notice]:
        """The notices up to the latest halt that the agent has not heard, in their order; each is given once."""
        found = self._unheard()
        self._taken = self._words[_HALT]
        self._ahead.extend(found)
        return found

    def halts_ahead(self) -> list[wire.Notice]:
        """The halts among what `take` would give, without taking them."""
        return [notice for notice in self._unheard() if notice.kind == EventKind.INSTRUMENT_HALTED]

    def is_new(self, notice: wire.Notice) -> bool:
        """Whether a notice of POSTED_KINDS that the subscription brings has not been taken here; call it for each."""
        if notice in self._ahead:
            self._ahead.remove(notice)
            return False
        self._heard.append(notice)
        return True

    def _unheard(self) -> list[wire.Notice]:
        until = self._words[_HALT]
        posted = (self._read(number) for number in range(max(self._taken, until - SLOTS), until))
        return [notice for notice in posted if notice is not None and notice not in self._heard]

    def _read(self, number: int) -> wire.Notice | None:
        """None if it was overwritten meanwhile."""
        at = _HEAD + number % SLOTS * _SLOT_WORDS
        *values, check = self._words[at : at + _SLOT_WORDS]
        notice = wire.Notice(*values)
        return notice if check == _check(number, notice) else None
