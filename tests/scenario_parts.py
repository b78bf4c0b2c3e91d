"""What the scenarios are written with: a small exchange, commands, and the events that they must give."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from exchange.config import BreakerConfig, EngineConfig, InstrumentConfig
from exchange.types import BreakerAction, CommandKind, EventKind, OrderType, Phase, Reason, SelfTrade, Side, Trigger
from tests.oracle_records import Command, Event

BUY, SELL = Side.BUY, Side.SELL
LIMIT, IOC, MARKET = OrderType.LIMIT, OrderType.IOC, OrderType.MARKET
FOK, POST_ONLY = OrderType.FOK, OrderType.POST_ONLY
CASH = 10_000
LOTS = 100
MS = 1_000_000

Breaker = BreakerConfig


def market(**settings: Any) -> InstrumentConfig:
    return InstrumentConfig(**{"price_levels": 128, "max_quantity_lots": 100, **settings})


def exchange(*instruments: InstrumentConfig, **settings: Any) -> EngineConfig:
    return EngineConfig(**{"instruments": instruments or (market(),), "accounts": 4, "max_orders": 100, **settings})


@dataclass(frozen=True)
class Scenario:
    name: str
    commands: Sequence[Command]
    expected: Sequence[Event]
    exchange: EngineConfig = field(default_factory=exchange)

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


def replace(
    account: int,
    order_id: int,
    target_order_id: int,
    quantity_lots: int,
    price_ticks: int,
    order_type: int = LIMIT,
    *,
    at: int = 0,
    instrument: int = 0,
) -> Command:
    return Command(
        sequence=0,
        kind=CommandKind.REPLACE_ORDER,
        account=account,
        instrument=instrument,
        order_id=order_id,
        target_order_id=target_order_id,
        order_type=order_type,
        price_ticks=price_ticks,
        quantity_lots=quantity_lots,
        received_ns=at,
    )


def mass_cancel(account: int, instrument: int, side: int, *, at: int = 0) -> Command:
    return Command(0, CommandKind.MASS_CANCEL, account, instrument, side=side, received_ns=at)


def log_on(account: int, self_trade: int = SelfTrade.OFF, cancel_on_disconnect: int = 0) -> Command:
    return operator(CommandKind.LOG_ON, account, -1, cancel_on_disconnect + 2 * self_trade)


def log_off(account: int, *, at: int = 0) -> Command:
    return operator(CommandKind.LOG_OFF, account, -1, at=at)


def set_limit(account: int, limit: int, amount: int, *, at: int = 0) -> Command:
    return operator(CommandKind.SET_LIMIT, account, limit, amount, at=at)


def timer(at: int, instrument: int = 0) -> Command:
    return operator(CommandKind.TIMER, -1, instrument, at=at)


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
    reason: Reason = Reason.NONE,
) -> Event:
    """taker is (account, order_id, side), maker (account, order_id)."""
    kind = EventKind.ORDER_FILLED
    return Event(sequence, kind, at, 0, *taker, price, lots, leaves, *maker, maker_leaves, reason=reason)


def crossed(
    sequence: int,
    bid: tuple[int, int],
    price: int,
    lots: int,
    leaves: int,
    ask: tuple[int, int],
    ask_leaves: int,
    *,
    at: int = 0,
) -> Event:
    """One match of an uncrossing."""
    return filled(sequence, (*bid, BUY), price, lots, leaves, ask, ask_leaves, at=at, reason=Reason.AUCTION)


def auction_ended(
    sequence: int, price: int = 0, volume: int = 0, imbalance: int = 0, reference: int = 0, *, at: int = 0
) -> Event:
    kind = EventKind.AUCTION_ENDED
    return Event(
        sequence, kind, at, 0, -1, price_ticks=price, quantity_lots=volume, value=imbalance, threshold=reference
    )


def phase(sequence: int, new: Phase, ends: int = 0, *, at: int = 0, instrument: int = 0) -> Event:
    return Event(sequence, EventKind.PHASE_CHANGED, at, instrument, -1, value=new, threshold=ends)


def replaced(
    sequence: int,
    order: tuple[int, int, int],
    old: int,
    price: int,
    total: int,
    leaves: int,
    *,
    lost_priority: bool = False,
    at: int = 0,
) -> Event:
    """order is (account, its new name, side)."""
    reason = Reason.LOST_PRIORITY if lost_priority else Reason.NONE
    return Event(
        sequence, EventKind.ORDER_REPLACED, at, 0, *order, price, total, leaves_lots=leaves, reason=reason, value=old
    )


def repeated(
    sequence: int,
    account: int,
    order_id: int,
    lots: int,
    leaves: int,
    first: int,
    reason: Reason = Reason.NONE,
    *,
    at: int = 0,
    instrument: int = 0,
) -> Event:
    """lots, first and reason: those of the first time."""
    return Event(
        sequence,
        EventKind.ORDER_REPEATED,
        at,
        instrument,
        account,
        order_id,
        quantity_lots=lots,
        leaves_lots=leaves,
        reason=reason,
        value=first,
    )


def limit_set(sequence: int, account: int, limit: int, amount: int, *, at: int = 0) -> Event:
    return Event(sequence, EventKind.LIMIT_SET, at, account=account, reason=limit, value=amount)


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
    evidence: int,
    *,
    action: BreakerAction = BreakerAction.HALT,
    at: int = 0,
) -> Event:
    """evidence: the sequence with which the window begins."""
    return Event(
        sequence,
        EventKind.INSTRUMENT_HALTED,
        at,
        0,
        *taker,
        price,
        lots,
        leaves,
        maker_order_id=evidence,
        maker_leaves_lots=action,
        reason=trigger,
        value=observed,
        threshold=threshold,
        window_ns=window,
    )


def session(sequence: int, kind: EventKind, *, at: int = 0) -> Event:
    return Event(sequence, kind, at, account=-1)
