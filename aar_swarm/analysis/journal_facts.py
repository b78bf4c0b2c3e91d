"""What the journal says an agent could have known: signals, the tops of the books, its own position and cash.

Owns how a value that an order cites is looked up: was it so at any time within the last seconds before the agent heard
what made it decide? Reads a replay; judges nobody.
"""

from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from aar_swarm.agents.decision import Fact, Input
from aar_swarm.agents.public_value import path
from aar_swarm.analysis.ledger import TRANSFERS, is_kind
from aar_swarm.analysis.tables import trace_tops
from exchange.clock import SECOND
from exchange.journal import Journal
from exchange.state import Array
from exchange.types import EventKind, Side

RECENT_NS = 3 * SECOND
"""How old what an agent has seen or was told may be: a slow publication, and a queue of as long on a busy machine."""
MAIN = 0
CASH = -1
_EVER = np.iinfo(np.int64).min


class _Held(NamedTuple):
    """When a value began to hold and when it ended, in order."""

    starts: list[int]
    ends: list[int]


class Series:
    """A value over time, by value: whether it was so within a window is one look-up."""

    def __init__(self, times_ns: Array, values: Array) -> None:
        """times_ns must not decrease; a value holds until the next one."""
        self.held: dict[float, _Held] = {}
        if not len(values):
            return
        changes = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
        starts = times_ns[changes].tolist()
        for value, start, end in zip(values[changes].tolist(), starts, [*starts[1:], None], strict=True):
            held = self.held.setdefault(value, _Held([], []))
            held.starts.append(start)
            held.ends.append(np.iinfo(np.int64).max if end is None else end)

    def was(self, value: float, from_ns: int, until_ns: int) -> bool:
        """Whether it had that value at any time from … until."""
        held = self.held.get(value)
        if held is None:
            return False
        last = bisect_right(held.starts, until_ns) - 1
        return last >= 0 and held.ends[last] >= from_ns


def moves(events: Array, multipliers: Array, collateral: int, debt: int) -> Array:
    """What each event gives an account of cash (instrument −1) or lots, a row each, in the order of the events.

    Args: collateral, debt: instruments of the lending pool, −1: none.
    """
    found: list[Array] = []

    def add(of: Array, account: Array, instrument: Array | int, amount: Array) -> None:
        at = np.flatnonzero(of)
        columns = (at, events["time_ns"][at], account, instrument, amount)
        found.append(np.stack(np.broadcast_arrays(*columns), axis=1))

    def those(*kinds: EventKind) -> tuple[Array, Array]:
        of = is_kind(events, *kinds)
        return of, events[of]

    for kind, sign in ((EventKind.CASH_DEPOSITED, 1), (EventKind.CASH_WITHDRAWN, -1)):
        of, part = those(kind)
        add(of, part["account"], CASH, sign * part["quantity_lots"])
    of, part = those(EventKind.POSITION_DEPOSITED)
    add(of, part["account"], part["instrument"], part["quantity_lots"])
    of, part = those(*TRANSFERS)
    worth = part["quantity_lots"] * part["price_ticks"] * multipliers[part["instrument"]]
    took = np.where(part["side"] == Side.BUY, 1, -1)
    # Who trades with itself is told of its order that took first.
    for account, signs in ((part["account"], took), (part["maker_account"], -took)):
        add(of, account, part["instrument"], signs * part["quantity_lots"])
        add(of, account, CASH, -signs * worth)
    of, part = those(EventKind.FEE_CHARGED)
    add(of, part["account"], CASH, -part["value"])
    of, part = those(EventKind.BAD_DEBT_BOOKED)
    of, part = of & (events["instrument"] < 0), part[part["instrument"] < 0]
    add(of, part["account"], CASH, part["value"] + part["threshold"])
    for kind, sign in (
        (EventKind.COLLATERAL_DEPOSITED, -1),
        (EventKind.COLLATERAL_WITHDRAWN, 1),
        (EventKind.BORROWED, 1),
        (EventKind.REPAID, -1),
    ):
        of, part = those(kind)
        add(of, part["account"], part["instrument"], sign * part["quantity_lots"])
    of, part = those(EventKind.LOAN_LIQUIDATED)
    add(of, part["account"], debt, -part["quantity_lots"])
    add(of, part["account"], collateral, part["leaves_lots"])
    for kind, sign in ((EventKind.REDEEMED, -1), (EventKind.MINTED, 1)):
        of, part = those(kind)
        add(of, part["account"], part["instrument"], sign * part["quantity_lots"])
        add(of, part["account"], CASH, -sign * part["quantity_lots"] * part["price_ticks"])
    rows = np.concatenate(found)
    return rows[np.argsort(rows[:, 0], kind="stable")]


class JournalFacts:
    """Of one run: `recorded` and the events of its replay."""

    def __init__(self, recorded: Journal, events: Array, opening_ticks: int) -> None:
        config = recorded.config
        self.coin = config.stablecoin.instrument if config.stablecoin else None
        signals = events[events["kind"] == EventKind.SIGNAL_PUBLISHED]
        self.signals = list(zip(signals["time_ns"].tolist(), signals["value"].tolist(), strict=True))
        opened = np.flatnonzero(events["kind"] == EventKind.SESSION_OPENED)
        self.opened_at = int(opened[0]) if len(opened) else len(events)
        self.books = {MAIN: self._book(recorded, events, MAIN, opening_ticks)}
        if config.stablecoin and self.coin is not None:
            self.books[self.coin] = self._book(recorded, events, self.coin, config.stablecoin.par_ticks)
        multipliers = np.array([instrument.multiplier for instrument in config.instruments], np.int64)
        known = path(opening_ticks, signals["value"][signals["instrument"] == MAIN].tolist())
        heard = signals["time_ns"][signals["instrument"] == MAIN]
        self.books[MAIN][Fact.VALUE] = [Series(np.concatenate([[_EVER], heard]), np.array(known))]
        lending = config.lending
        pool = (lending.collateral_instrument, lending.debt_instrument) if lending else (CASH, CASH)
        rows = moves(events, multipliers, *pool)
        order = np.lexsort((rows[:, 0], rows[:, 3], rows[:, 2]))
        self.rows = rows[order]
        self.means: dict[tuple[int, int, bool], Series] = {}

    @staticmethod
    def _book(recorded: Journal, events: Array, instrument: int, opening_ticks: int) -> dict[Fact, list[Series]]:
        tops = trace_tops(recorded, instrument)
        both = tops[(tops["bid_lots"] > 0) & (tops["ask_lots"] > 0)]
        fields = {
            Fact.BID: "bid_ticks",
            Fact.ASK: "ask_ticks",
            Fact.BID_LOTS: "bid_lots",
            Fact.ASK_LOTS: "ask_lots",
        }
        # Some agents do not look at a book with an empty side: of those the last with both.
        found = {fact: [Series(part["time_ns"], part[name]) for part in (tops, both)] for fact, name in fields.items()}
        found[Fact.TOUCH] = found[Fact.BID] + found[Fact.ASK]
        fills = events[(events["kind"] == EventKind.ORDER_FILLED) & (events["instrument"] == instrument)]
        first = np.array([_EVER]), np.array([float(opening_ticks)])
        mids = (both["bid_ticks"] + both["ask_ticks"]) / 2
        found[Fact.MID] = [
            Series(np.concatenate([first[0], both["time_ns"]]), np.concatenate([first[1], mids])),
            Series(np.concatenate([first[0], fills["time_ns"]]), np.concatenate([first[1], fills["price_ticks"]])),
        ]
        return found

    def _means(self, account: int, instrument: int, inventory: bool) -> Series:
        key = (account, instrument, inventory)
        if key not in self.means:
            rows = self.rows
            first, last = np.searchsorted(rows[:, 2], (account, account + 1))
            mine = rows[first:last]
            mine = mine[mine[:, 3] == instrument]
            amounts = np.cumsum(mine[:, 4])
            before = int(mine[mine[:, 0] < self.opened_at, 4].sum())
            zero = np.array([_EVER]), np.array([0])
            times, values = np.concatenate([zero[0], mine[:, 1]]), np.concatenate([zero[1], amounts])
            self.means[key] = Series(times, values - before if inventory else values)
        return self.means[key]

    def agrees(self, what: Input, value: float, account: int, coin: bool, heard_ns: int) -> bool:
        """Whether the value that an account cites was so, within the time in which it can have known it.

        Args: coin: the decision is about the stablecoin; heard_ns: when the account says that it heard what made it
        decide; not later than the venue received the order.
        """
        fact = what.fact
        if fact is None:
            return True
        if fact == Fact.SIGNAL:
            return any(value == bps and time_ns <= heard_ns for time_ns, bps in self.signals)
        from_ns = heard_ns - RECENT_NS if what.recent else _EVER
        instrument = self.coin if (coin or fact == Fact.COIN_MID) and self.coin is not None else MAIN
        return any(series.was(value, from_ns, heard_ns) for series in self._series(fact, account, instrument))

    def _series(self, fact: Fact, account: int, instrument: int) -> Iterator[Series]:
        if fact == Fact.CASH:
            yield self._means(account, CASH, inventory=False)
        elif fact in (Fact.POSITION, Fact.INVENTORY):
            yield self._means(account, instrument, fact == Fact.INVENTORY)
        else:
            yield from self.books[instrument][Fact.MID if fact == Fact.COIN_MID else fact]
