"""The run's tables, all made from the journal (by replay) and the venue's timings. Shapes only; no measures."""

import numpy as np
import polars as pl

from aar_swarm.agents.base import Rule
from exchange import book
from exchange.engine import Engine, apply_commands, events_bound
from exchange.jit import kernel
from exchange.journal import Journal
from exchange.state import Array
from exchange.types import EVENT, NO_BID, ORDER_COMMANDS, EventKind, Side, _record

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
    """One row a fill, with both sides named."""
    fills = events[events["kind"] == EventKind.ORDER_FILLED]
    selling = fills["side"] == _SELL
    return pl.DataFrame(
        {
            "sequence": fills["sequence"],
            "time_ns": fills["time_ns"],
            "price_ticks": fills["price_ticks"],
            "quantity_lots": fills["quantity_lots"],
            "buyer": np.where(selling, fills["maker_account"], fills["account"]),
            "seller": np.where(selling, fills["account"], fills["maker_account"]),
            "taker_sells": selling,
        }
    )


def decisions_table(commands: Array, groups: list[str]) -> pl.DataFrame:
    """One row a participant's command: who decided what, by which rule, on what, and when.

    groups: the kind of participant, by account.
    """
    mine = commands[np.isin(commands["kind"], ORDER_COMMANDS)]
    names = {int(rule): rule.name for rule in Rule}
    known = (mine["account"] >= 0) & (mine["account"] < len(groups))
    return from_records(mine).with_columns(
        pl.Series(
            "participants", [groups[a] if k else "?" for a, k in zip(mine["account"].tolist(), known, strict=True)]
        ),
        pl.Series("rule", [names.get(rule, str(rule)) for rule in mine["rule"].tolist()]),
    )


def latency_table(commands: Array, timings: Array) -> pl.DataFrame:
    """One row a participant's command: decision, transit and venue time apart, ns.

    decision: heard → sent, by the agent's clock. transit: sent → received; venue: received → reports handed to the
    sockets. Agent and venue share one clock on one host; across hosts transit carries the clocks' offset.
    """
    count = min(len(commands), len(timings))
    commands, timings = commands[:count], timings[:count]
    mine = np.isin(commands["kind"], ORDER_COMMANDS)
    commands, timings = commands[mine], timings[mine]
    return pl.DataFrame(
        {
            "sequence": commands["sequence"],
            "account": commands["account"],
            "received_ns": commands["received_ns"],
            "decision_ns": commands["sent_ns"] - commands["heard_ns"],
            "transit_ns": commands["received_ns"] - commands["sent_ns"],
            "match_ns": timings["matched_ns"] - commands["received_ns"],
            "venue_ns": timings["acknowledged_ns"] - commands["received_ns"],
        }
    )
