"""The run's tables, all made from the journal (by replay) and the venue's timings. Shapes only; no measures."""

import numpy as np
import polars as pl

from aar_swarm.agents.base import Rule
from aar_swarm.analysis.ledger import TRANSFERS
from exchange import book
from exchange.clock import MS
from exchange.engine import Engine, apply_commands, events_bound
from exchange.jit import kernel
from exchange.journal import Journal
from exchange.state import Array
from exchange.types import DECISION_COMMANDS, EVENT, NO_BID, NOBODY, EventKind, Reason, Side, SystemAccount, _record

TOP = _record(
    "sequence", "time_ns", "bid_ticks", "bid_lots", "ask_ticks", "ask_lots", "bid_depth_lots", "ask_depth_lots"
)
"""The top of one book after one command; bid_ticks 0 and ask_ticks = price_levels: none; depth as TopOfBook has it."""

_SELL = int(Side.SELL)


def from_records(records: Array) -> pl.DataFrame:
    """A structured array as a frame, a column a field."""
    return pl.DataFrame({name: np.ascontiguousarray(records[name]) for name in records.dtype.names or ()})


@kernel
def _trace(state, commands, events, instrument, tops):
    """Apply all commands one by one and write the top of one book after each; returns how many were written."""
    for at in range(commands.shape[0]):
        apply_commands(state, commands, at, at + 1, events)
        row = tops[at]
        bids = 2 * instrument
        asks = bids + 1
        bid = book.best(state, bids)
        ask = book.best(state, asks)
        levels = state.instruments[instrument]["price_levels"]
        row["sequence"] = commands[at]["sequence"]
        row["time_ns"] = commands[at]["received_ns"]
        row["bid_ticks"] = bid
        row["bid_lots"] = state.levels[bids][bid]["quantity_lots"] if bid != NO_BID else 0
        row["ask_ticks"] = ask
        row["ask_lots"] = state.levels[asks][ask]["quantity_lots"] if ask < levels else 0
        middle = (bid + ask) // 2
        if bid == NO_BID:
            middle = ask
        elif ask == levels:
            middle = bid
        row["bid_depth_lots"] = book.depth_within(state, bids, middle - middle // 100)
        row["ask_depth_lots"] = book.depth_within(state, asks, middle + middle // 100)
    return commands.shape[0]


def trace_tops(recorded: Journal, instrument: int = 0) -> Array:
    """TOP[n]: the top of the book after each command of a journal."""
    engine = Engine(recorded.config)
    events = np.zeros(events_bound(engine.state), EVENT)
    tops = np.zeros(len(recorded.commands), TOP)
    _trace(engine.state, recorded.commands, events, instrument, tops)
    return tops


def trades_table(events: Array) -> pl.DataFrame:
    """One row a fill, with both sides named; accounts from the participants' number on are the venue's own."""
    fills = events[events["kind"] == EventKind.ORDER_FILLED]
    selling = fills["side"] == _SELL
    return pl.DataFrame(
        {
            "sequence": fills["sequence"],
            "time_ns": fills["time_ns"],
            "instrument": fills["instrument"],
            "price_ticks": fills["price_ticks"],
            "quantity_lots": fills["quantity_lots"],
            "buyer": np.where(selling, fills["maker_account"], fills["account"]),
            "seller": np.where(selling, fills["account"], fills["maker_account"]),
            "taker_sells": selling,
        }
    )


def decisions_table(commands: Array, groups: list[str]) -> pl.DataFrame:
    """One row a participant's command, order or request: who decided what, by which rule, on what, and when.

    groups: the kind of participant, by account.
    """
    mine = commands[np.isin(commands["kind"], DECISION_COMMANDS)]
    names = {int(rule): rule.name for rule in Rule}
    return from_records(mine).with_columns(
        pl.Series("participants", _named(mine["account"], groups)),
        pl.Series("rule", [names.get(rule, str(rule)) for rule in mine["rule"].tolist()]),
    )


def _named(accounts: Array, groups: list[str]) -> list[str]:
    """The kind of participant of each account; behind them the venue's own accounts."""
    names = [*groups, *(account.name.lower() for account in SystemAccount)]
    return [names[account] if 0 <= account < len(names) else "?" for account in accounts.tolist()]


_STEPS = (
    EventKind.MARGIN_CALLED,
    EventKind.LIQUIDATION_STARTED,
    EventKind.FEE_CHARGED,
    EventKind.POSITION_TAKEN_OVER,
    EventKind.DELEVERAGED,
    EventKind.BAD_DEBT_BOOKED,
    EventKind.LIQUIDATION_ENDED,
    EventKind.LOAN_LIQUIDATED,
)


_TEXTS = ("event", "participants", "side", "counterparties", "reason")
_LIQUIDATIONS = {
    name: pl.Float64 if name == "time_ms" else pl.String if name in _TEXTS else pl.Int64
    for name in (
        "sequence", "time_ms", "event", "account", "participants", "instrument", "side", "price_ticks",
        "quantity_lots", "leaves_lots", "counterparty", "counterparties", "reason", "value", "threshold",
    )
}  # fmt: skip


def liquidations_table(events: Array, groups: list[str], zero_ns: int) -> pl.DataFrame:
    """One row an event of a liquidation, in the order in which it happened.

    Of margin accounts: called, started, each fill (reason LIQUIDATION), fee, take-over, deleveraging, bad debt and
    end; the insurance fund's own sales (reason FUND_SALE); of loans: LOAN_LIQUIDATED and bad debt. time_ms is since
    zero_ns. `account` is the one being liquidated, but of a LOAN_LIQUIDATED the liquidator, of a fund's sale the
    fund; `counterparty` is who bought, took over, was deleveraged or owed the loan (−1: nobody); participants and
    counterparties are their groups. side is null where no lots change hands at a price. value, threshold and
    leaves_lots are the event's own (docs/money.md).
    """
    traded = np.isin(events["reason"], (Reason.LIQUIDATION, Reason.FUND_SALE))
    steps = np.isin(events["kind"], _STEPS) | ((events["kind"] == EventKind.ORDER_FILLED) & traded)
    found = events[steps]
    moving = np.isin(found["kind"], TRANSFERS)
    return pl.DataFrame(
        {
            "sequence": found["sequence"],
            "time_ms": (found["time_ns"] - zero_ns) / MS,
            "event": [EventKind(kind).name for kind in found["kind"].tolist()],
            "account": found["account"],
            "participants": _named(found["account"], groups),
            "instrument": found["instrument"],
            "side": [Side(side).name if moves else None for side, moves in zip(found["side"], moving, strict=True)],
            "price_ticks": found["price_ticks"],
            "quantity_lots": found["quantity_lots"],
            "leaves_lots": found["leaves_lots"],
            "counterparty": found["maker_account"],
            "counterparties": [
                None if account == NOBODY else name
                for account, name in zip(found["maker_account"], _named(found["maker_account"], groups), strict=True)
            ],
            "reason": [Reason(reason).name for reason in found["reason"].tolist()],
            "value": found["value"],
            "threshold": found["threshold"],
        },
        schema=_LIQUIDATIONS,
    )


def latency_table(commands: Array, timings: Array) -> pl.DataFrame:
    """One row a participant's command: decision, transit and venue time apart, ns.

    decision: heard → sent, by the agent's clock. transit: sent → arrived; hold: arrived → received (a speed bump, or
    hold-and-release); venue: received → reports handed to the sockets. Agent and venue share one clock on one host;
    across hosts transit carries the clocks' offset.
    """
    count = min(len(commands), len(timings))
    commands, timings = commands[:count], timings[:count]
    mine = np.isin(commands["kind"], DECISION_COMMANDS)
    commands, timings = commands[mine], timings[mine]
    return pl.DataFrame(
        {
            "sequence": commands["sequence"],
            "account": commands["account"],
            "received_ns": commands["received_ns"],
            "decision_ns": commands["sent_ns"] - commands["heard_ns"],
            "transit_ns": timings["arrived_ns"] - commands["sent_ns"],
            "hold_ns": commands["received_ns"] - timings["arrived_ns"],
            "match_ns": timings["matched_ns"] - commands["received_ns"],
            "venue_ns": timings["acknowledged_ns"] - commands["received_ns"],
        }
    )
