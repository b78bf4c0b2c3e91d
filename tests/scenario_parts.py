"""What the scenarios are written with: a small exchange, commands, and the events that they must give."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from exchange.types import CommandKind, EventKind, OrderType, Reason, Side, Trigger
from tests.oracle_records import Command, Event

BUY, SELL = Side.BUY, Side.SELL
LIMIT, IOC, MARKET = OrderType.LIMIT, OrderType.IOC, OrderType.MARKET
CASH = 10_000
LOTS = 100


class Breaker(NamedTuple):
    """Both triggers off, unless they are given a threshold."""

    price_move_bps: int = 0
    price_window_ns: int = 0
    sell_volume_lots: int = 0
    sell_window_ns: int = 0


NO_BREAKER = Breaker()


@dataclass(frozen=True)
class Market:
    breaker: Breaker = NO_BREAKER
    price_levels: int = 128
    multiplier: int = 1
    max_quantity_lots: int = 100


PLAIN_MARKET = Market()


@dataclass(frozen=True)
class Exchange:
    instruments: Sequence[Market] = (PLAIN_MARKET,)
    accounts: int = 4
    max_orders: int = 100


@dataclass(frozen=True)
class Scenario:
    name: str
    commands: Sequence[Command]
    expected: Sequence[Event]
    exchange: Exchange = field(default_factory=Exchange)

    def all_commands(self) -> list[Command]:
        """With the nine that come first, numbered."""
        first = [Command(0, CommandKind.DEPOSIT_CASH, account, quantity_lots=CASH) for account in range(4)]
        first += [Command(0, CommandKind.DEPOSIT_POSITION, account, quantity_lots=LOTS) for account in range(4)]
        first += [Command(0, CommandKind.OPEN_SESSION)]
        commands = enumerate([*first, *self.commands], start=1)
        return [command._replace(sequence=sequence) for sequence, command in commands]


def place(
    account: int,
    order_id: int,
    side: int,
    quantity_lots: int,
    price_ticks: int = 0,
    order_type: int = LIMIT,
    *,
    at: int = 0,
    instrument: int = 0,
) -> Command:
    return Command(
        sequence=0,
        kind=CommandKind.PLACE_ORDER,
        account=account,
        instrument=instrument,
        order_id=order_id,
        side=side,
        order_type=order_type,
        price_ticks=price_ticks,
        quantity_lots=quantity_lots,
        received_ns=at,
    )


def cancel(account: int, target_order_id: int, quantity_lots: int = 0, *, at: int = 0, instrument: int = 0) -> Command:
    return Command(
        sequence=0,
        kind=CommandKind.CANCEL_ORDER,
        account=account,
        instrument=instrument,
        target_order_id=target_order_id,
        quantity_lots=quantity_lots,
        received_ns=at,
    )


def operator(kind: int, account: int = 0, instrument: int = 0, quantity_lots: int = 0, *, at: int = 0) -> Command:
    return Command(0, kind, account, instrument, quantity_lots=quantity_lots, received_ns=at)


def accepted(
    sequence: int, account: int, order_id: int, side: int, price: int, lots: int, *, at: int = 0, instrument: int = 0
) -> Event:
    kind = EventKind.ORDER_ACCEPTED
    return Event(sequence, kind, at, instrument, account, order_id, side, price, lots, leaves_lots=lots)


def rejected(
    sequence: int,
    account: int,
    order_id: int,
    side: int,
    price: int,
    lots: int,
    reason: Reason,
    *,
    at: int = 0,
    instrument: int = 0,
) -> Event:
    kind = EventKind.ORDER_REJECTED
    return Event(sequence, kind, at, instrument, account, order_id, side, price, lots, reason=reason)


def filled(
    sequence: int,
    taker: tuple[int, int, int],
    price: int,
    lots: int,
    leaves: int,
    maker: tuple[int, int],
    maker_leaves: int,
    *,
    at: int = 0,
) -> Event:
    """taker is (account, order_id, side), maker (account, order_id)."""
    return Event(sequence, EventKind.ORDER_FILLED, at, 0, *taker, price, lots, leaves, *maker, maker_leaves)


def cancelled(
    sequence: int,
    order: tuple[int, int, int],
    price: int,
    lots: int,
    reason: Reason,
    leaves: int = 0,
    *,
    at: int = 0,
    instrument: int = 0,
) -> Event:
    """order is (account, order_id, side)."""
    return Event(sequence, EventKind.ORDER_CANCELLED, at, instrument, *order, price, lots, leaves, reason=reason)


def cancel_rejected(
    sequence: int, account: int, order_id: int, lots: int, reason: Reason, *, at: int = 0, instrument: int = 0
) -> Event:
    kind = EventKind.CANCEL_REJECTED
    return Event(sequence, kind, at, instrument, account, order_id, quantity_lots=lots, reason=reason)


def halted(
    sequence: int,
    taker: tuple[int, int, int],
    price: int,
    lots: int,
    leaves: int,
    trigger: Trigger,
    observed: int,
    threshold: int,
    window: int,
    *,
    at: int = 0,
) -> Event:
    return Event(
        sequence,
        EventKind.INSTRUMENT_HALTED,
        at,
        0,
        *taker,
        price,
        lots,
        leaves,
        reason=trigger,
        value=observed,
        threshold=threshold,
        window_ns=window,
    )


def session(sequence: int, kind: EventKind, *, at: int = 0) -> Event:
    return Event(sequence, kind, at, account=-1)
