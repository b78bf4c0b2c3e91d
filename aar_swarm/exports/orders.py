"""Follow every order of an instrument through a journal: under which names it went, and what of it rests.

Owns what the formats share. Must not know any format.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from exchange.state import Array
from exchange.types import NOBODY, CommandKind, EventKind, OrderType, Phase, Reason

_ENTERS = (EventKind.ORDER_ACCEPTED, EventKind.ORDER_REPLACED)
COLLECTING = (Phase.AUCTION, Phase.BATCH)
"""Phases in which orders wait for an uncrossing, IOCs too."""


@dataclass
class Order:
    """One order, whatever it was called since."""

    number: int
    """1, 2, 3, … in the order in which they came."""
    account: int
    side: int
    price_ticks: int
    lots: int
    """All of it, as asked for last."""
    leaves_lots: int
    order_type: int
    entered_by: int
    """Sequence of the command that did; of a replaced one, of the first."""
    resting: bool = False


class Step(NamedTuple):
    """One command and its events."""

    command: np.void
    events: Array
    at: int
    """The command's place in the journal."""
    phase: int
    """Of the instrument, before the command."""


def steps(commands: Array, events: Array, instrument: int) -> Iterator[Step]:
    """Commands that concern the instrument (events: EVENT[m], the replay of all of them), with their events."""
    begins = np.searchsorted(events["sequence"], commands["sequence"])
    ends = np.append(begins[1:], len(events))
    wanted = commands["instrument"] == instrument
    wanted |= (commands["kind"] == CommandKind.MASS_CANCEL) & (commands["instrument"] == NOBODY)
    touched = np.unique(events["sequence"][events["instrument"] == instrument])
    wanted |= np.isin(commands["sequence"], touched)
    phase = int(Phase.PRE_OPEN)
    for at in np.flatnonzero(wanted).tolist():
        its = events[begins[at] : ends[at]]
        its = its[its["instrument"] == instrument]
        yield Step(commands[at], its, at, phase)
        changed = its[its["kind"] == EventKind.PHASE_CHANGED]
        if len(changed):
            phase = int(changed["value"][-1])


class Orders:
    """All orders of an instrument, by the names that their accounts gave them."""

    def __init__(self) -> None:
        self._by_name: dict[tuple[int, int], Order] = {}
        self._count = 0

    def named(self, account: int, order_id: int) -> Order | None:
        """The order of that name, living or not."""
        return self._by_name.get((account, order_id))

    def accepted(self, event: np.void, order_type: int) -> Order:
        """A new order. Whether it rests, `rests_after` says."""
        return self._named(event, self._new(event, order_type, int(event["quantity_lots"])))

    def refused(self, event: np.void, order_type: int) -> Order:
        """One that never came to be; it has a number, and no name."""
        return self._new(event, order_type, 0)

    def replaced(self, event: np.void, order_type: int) -> tuple[Order | None, Order]:
        """An ORDER_REPLACED: the order before it, and the one that goes on: the same if it kept its place."""
        old = self.named(int(event["account"]), int(event["value"]))
        if old is not None and event["reason"] == Reason.NONE:
            old.lots = int(event["quantity_lots"])
            return old, self._named(event, old)
        if old is not None:
            old.resting = False
        return old, self._named(event, self._new(event, order_type, int(event["leaves_lots"])))

    def _new(self, event: np.void, order_type: int, leaves: int) -> Order:
        self._count += 1
        account, side, price, lots = (int(event[name]) for name in ("account", "side", "price_ticks", "quantity_lots"))
        return Order(self._count, account, side, price, lots, leaves, order_type, int(event["sequence"]))

    def _named(self, event: np.void, order: Order) -> Order:
        self._by_name[int(event["account"]), int(event["order_id"])] = order
        return order


def rests_after(order: Order, step: Step) -> bool:
    """Whether what is left of an order that entered with this command stays in the book."""
    if order.leaves_lots <= 0:
        return False
    phases = step.events["value"][step.events["kind"] == EventKind.PHASE_CHANGED]
    collected = step.phase in COLLECTING or (step.phase == Phase.HALTED and len(phases) == 0)
    return collected or order.order_type in (OrderType.LIMIT, OrderType.POST_ONLY)
