"""In which order messages come to the engine: as they arrived, at once; or after having been held for a while.

Owns the queue of what is held: its rules (speed bump, hold-and-release), its order (a binary heap by release time), and
what it counts. Compiled, called by the loop alone, which takes what is due from here before any later message. Holds
decoded commands of sessions, so that what a message may do was checked when it arrived.

A speed bump delays every order (IEX: 350 µs), or only those that could take (EDGA's proposal: 4 ms); both as in the
market designs that Aquilina, Budish and O'Neill (2022) discuss. Hold-and-release orders messages by when they were sent
plus what their link is modelled to take, within a bounded hold: one that came late by chance is put where it would have
been. A session's own messages never overtake each other.
"""

from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from exchange.config import Config
from exchange.jit import helper
from exchange.state import Array
from exchange.types import NEVER, CommandKind, OrderType, _record

MAX_HOLD_NS = 1_000_000_000
HELD_MESSAGES = 1 << 14
"""What can be held at once; more are refused (TOO_FAST), not released early."""

_PLACE, _REPLACE = int(CommandKind.PLACE_ORDER), int(CommandKind.REPLACE_ORDER)
_POST_ONLY = int(OrderType.POST_ONLY)
_NEVER = int(NEVER)

HOLD = _record(
    "armed",  # 0: everything goes at once
    "bump_ns",
    "takers_only",
    "hold_ns",
    "waiting",  # held now
    "next_ns",  # when the first of them is due; NEVER if there is none
    "held",  # ever
    "late",  # by hold-and-release: arrived after they were due, so that they could not be put into their place
)

HELD = _record("release_ns", "number", "account", "session", "arrived_ns", "commands")
"""A message: when it is due, in which order it came, whose it is, in which of its sessions, how many commands it is."""


class SequencingConfig(Config):
    """Times in ns. Nothing set: in the order of arrival, at once."""

    speed_bump_ns: Annotated[int, Field(ge=0, le=MAX_HOLD_NS)] = 0
    speed_bump_on: Literal["all", "takers"] = "all"
    """"takers": only orders and replacements that are not post-only."""
    hold_ns: Annotated[int, Field(ge=0, le=MAX_HOLD_NS)] = 0
    """Hold-and-release: every message is released so long after it was sent, plus its link's delay; 0: by arrival."""
    link_delays_ns: tuple[Annotated[int, Field(ge=0, le=MAX_HOLD_NS)], ...] = ()
    """Of each account, what its messages are modelled to take to the venue; none: 0 for all."""

    @model_validator(mode="after")
    def _one_of_them(self) -> "SequencingConfig":
        if self.speed_bump_ns and self.hold_ns:
            raise ValueError("speed_bump_ns and hold_ns are two ways to sequence: set one of them")
        return self

    @property
    def capacity(self) -> int:
        """Messages that can be held at once."""
        return HELD_MESSAGES if self.speed_bump_ns or self.hold_ns else 0


class Hold(NamedTuple):
    """The queue's memory."""

    rules: Array  # HOLD[1]
    slots: Array  # HELD[n]
    words: Array  # int64[2n, 16]: of each slot, an explanation and an order, or one command
    heap: Array  # int64[n]: slots, the first due at the root
    spare: Array  # int64[n]: a stack of free slots
    released: Array  # int64[A]: until when the latest message of each account is held
    delays: Array  # int64[A]


def new_hold(config: SequencingConfig, accounts: int, words: int) -> Hold:
    """words: of a command's record. Raises: ValueError: not one delay an account."""
    size = max(config.capacity, 1)
    delays = np.zeros(accounts, np.int64)
    if len(config.link_delays_ns) > accounts:
        raise ValueError(f"{len(config.link_delays_ns)} link_delays_ns for {accounts} accounts")
    delays[: len(config.link_delays_ns)] = config.link_delays_ns
    hold = Hold(
        rules=np.zeros(1, HOLD),
        slots=np.zeros(size, HELD),
        words=np.zeros((2 * size, words), np.int64),
        heap=np.zeros(size, np.int64),
        spare=np.arange(size, dtype=np.int64),
        released=np.zeros(accounts, np.int64),
        delays=delays,
    )
    hold.rules["armed"] = config.capacity > 0
    hold.rules["bump_ns"] = config.speed_bump_ns
    hold.rules["takers_only"] = config.speed_bump_on == "takers"
    hold.rules["hold_ns"] = config.hold_ns
    hold.rules["next_ns"] = NEVER
    return hold


@helper
def release_time(hold, command, now):
    """When a command that arrived now is due; now: at once."""
    rules = hold.rules[0]
    account = command["account"]
    due = now
    if rules["hold_ns"] > 0:
        # Sent in the future, or it does not say when: as if it were sent now. Within the bound a claim is believed.
        sent = command["sent_ns"] + hold.delays[account] if command["sent_ns"] > 0 else now
        if now - sent > rules["hold_ns"]:
            rules["late"] += 1
        else:
            due = min(sent, now) + rules["hold_ns"]
    elif rules["bump_ns"] > 0:
        kind = command["kind"]
        takes = (kind == _PLACE or kind == _REPLACE) and command["order_type"] != _POST_ONLY
        if takes or rules["takers_only"] == 0:
            due = now + rules["bump_ns"]
    return max(due, hold.released[account])


@helper
def _is_before(hold, one, other):
    first, second = hold.slots[one], hold.slots[other]
    return first["release_ns"] < second["release_ns"] or (
        first["release_ns"] == second["release_ns"] and first["number"] < second["number"]
    )


@helper
def _put(hold, slot):
    """Into the heap."""
    rules = hold.rules[0]
    at = rules["waiting"]
    rules["waiting"] += 1
    while at > 0 and _is_before(hold, slot, hold.heap[(at - 1) // 2]):
        hold.heap[at] = hold.heap[(at - 1) // 2]
        at = (at - 1) // 2
    hold.heap[at] = slot
    rules["next_ns"] = hold.slots[hold.heap[0]]["release_ns"]


@helper
def has_room(hold):
    return hold.rules[0]["waiting"] < hold.heap.shape[0]


@helper
def keep(hold, words, first, commands, account, session, arrived_ns, release_ns):
    """Hold words[first:first + commands] until release_ns; there must be room."""
    rules = hold.rules[0]
    slot = hold.spare[rules["waiting"]]
    held = hold.slots[slot]
    rules["held"] += 1
    held["release_ns"] = release_ns
    held["number"] = rules["held"]
    held["account"] = account
    held["session"] = session
    held["arrived_ns"] = arrived_ns
    held["commands"] = commands
    for at in range(commands):
        for word in range(words.shape[1]):
            hold.words[2 * slot + at, word] = words[first + at, word]
    hold.released[account] = release_ns
    _put(hold, slot)


@helper
def take_first(hold):
    """Take the first out of the heap; returns its slot, whose content stays until the next `keep`."""
    rules = hold.rules[0]
    slot = hold.heap[0]
    rules["waiting"] -= 1
    left = rules["waiting"]
    hold.spare[left] = slot
    last = hold.heap[left]
    at = 0
    while 2 * at + 1 < left:
        child = 2 * at + 1
        if child + 1 < left and _is_before(hold, hold.heap[child + 1], hold.heap[child]):
            child += 1
        if not _is_before(hold, hold.heap[child], last):
            break
        hold.heap[at] = hold.heap[child]
        at = child
    hold.heap[at] = last
    rules["next_ns"] = hold.slots[hold.heap[0]]["release_ns"] if left > 0 else _NEVER
    return slot
