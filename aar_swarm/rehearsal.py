"""A strategy goes once through what the session may ask for, before it begins, with a twin that is then thrown away.

A forked process shares its parent's memory until it writes. Without this, the first decision pays for a thousand page
faults just when all agents decide at once (scripts/bench_rehearsal.py). Owns the made-up messages; sends nothing.
"""

from aar_swarm.agents.base import FILLED, HALTED, OPENED, SIGNAL, Action, Event, PlaceOrder, Request, Strategy, Timer
from exchange import clock, wire
from exchange.types import CommandKind, EventKind

_BPS = 1000
_ANSWERS = {
    CommandKind.DEPOSIT_COLLATERAL: EventKind.COLLATERAL_DEPOSITED,
    CommandKind.WITHDRAW_COLLATERAL: EventKind.COLLATERAL_WITHDRAWN,
    CommandKind.BORROW: EventKind.BORROWED,
    CommandKind.REPAY: EventKind.REPAID,
    CommandKind.LIQUIDATE: EventKind.LOAN_LIQUIDATED,
    CommandKind.REDEEM: EventKind.REDEEMED,
    CommandKind.MINT: EventKind.MINTED,
}
_TAKER = 1


def rehearse(twin: Strategy) -> None:
    """Let the twin hear, decide, and hear what becomes of what it decided."""
    market = twin.market
    prices = {market.instrument: market.opening_ticks, market.stablecoin: market.par_ticks}
    data = [_market_data(kind, market.instrument, prices) for kind in twin.listens_to]
    if market.stablecoin in twin.holdings and market.par_ticks:
        data += [_market_data(kind, market.stablecoin, prices) for kind in twin.listens_to_coin]
    heard = [event for events in data for event in events]
    public = [
        wire.Notice(int(kind), 1, 0, 0, 0, value, 0, 0, 0, 0, 0, 0)
        for kind, value in ((OPENED, 0), (SIGNAL, -_BPS), (SIGNAL, _BPS))
    ]
    events: list[Event] = [*heard, *public, Timer(0), *heard, wire.Notice(HALTED, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)]
    for event in events:
        for action in twin.handle(event, 0):
            report = _answer(action, prices)
            if report is not None:
                wire.unpack(wire.pack(*report))
                twin.handle(report, 0)


def _market_data(kind: int, instrument: int, prices: dict[int, int]) -> list[Event]:
    price, layout = prices[instrument], wire.FIELDS[kind]
    found: list[Event] = []
    for time_ns in (0, clock.SECOND):
        if layout is wire.TopOfBook:
            found.append(
                wire.TopOfBook(
                    int(kind), instrument, 1, 1, time_ns, 1, price - 1, 10, price + 1, 10, price, 0, 1000, 1000
                )
            )
        elif layout is wire.Notice:
            found.append(wire.Notice(int(kind), 1, time_ns, instrument, 0, price, 0, 0, price, 0, 0, 0))
    return found


def _answer(action: Action, prices: dict[int, int]) -> wire.Report | None:
    """All of a request, and one lot of an order, come about at the opening price."""
    if isinstance(action, PlaceOrder):
        price = prices[action.instrument]
        return wire.Report(FILLED, 1, 0, action.instrument, action.order_id, action.side, price, 1, 0, 0, _TAKER, 0)
    if isinstance(action, Request):
        kind = _ANSWERS[CommandKind(action.kind)]
        return wire.Report(int(kind), 1, 0, 0, 0, 0, 0, action.quantity_lots, 0, 0, _TAKER, 0)
    return None
