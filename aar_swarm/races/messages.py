"""The inbound messages of one instrument, as a race study needs them: each with what became of it.

Owns what of a journal counts as a take or as a cancel, at which price, and whether it succeeded. Must not know what a
race is.
"""

from typing import NamedTuple

import numpy as np
import polars as pl

from aar_swarm.analysis.tables import from_records
from exchange import book
from exchange.engine import Engine, apply_commands, events_bound
from exchange.jit import helper, kernel
from exchange.journal import Journal
from exchange.state import Array
from exchange.types import EVENT, NO_BID, CommandKind, EventKind, OrderType, Phase, Reason, Side, _record

TAKE, CANCEL = 1, 2

MESSAGE = _record(
    "sequence",
    "time_ns",  # when the venue received it
    "outbound_ns",  # when the first answer to it was handed to the sockets; 0: not known
    "account",
    "kind",  # TAKE: an order that could take; CANCEL: an attempt to withdraw one
    "book",  # the Side whose resting orders it is about: SELL for a buy order and for the cancel of an ask
    "price_ticks",  # of a take: the worst that it accepts, 0 or price_levels if any; of a cancel: its order's
    "lots",  # of a take: filled; of a cancel: taken off
    "best_ticks",  # of a take: the best price that it got, NOTHING without a fill
    "worst_ticks",
    "marketable",  # 1: a take that could trade with the book that it met
    "expired",  # 1: a take without a fill that could not rest (IOC, FOK, MARKET)
    "bid_ticks",  # the best when it came; NOTHING: none
    "ask_ticks",
)
"""A replace that loses its priority is two: the cancel of the old order, then a take by the new one."""

ORDER_NAME = _record("account", "order_id", "side", "price_ticks")
"""An order under one of its names, as accepted or replaced."""

FILLED_ORDER = _record("account", "order_id", "sequence")
"""An order that a fill ended, under its name of then."""

TOTALS = _record("filled_lots", "filled_value", "open_ns")
"""Of continuous trading: fills of these messages (value: ticks × lots), and how long it lasted."""

NOTHING = -1

_PLACE, _CANCEL_ORDER = int(CommandKind.PLACE_ORDER), int(CommandKind.CANCEL_ORDER)
_REPLACE, _MASS = int(CommandKind.REPLACE_ORDER), int(CommandKind.MASS_CANCEL)
_ACCEPTED, _FILLED = int(EventKind.ORDER_ACCEPTED), int(EventKind.ORDER_FILLED)
_REJECTED, _CANCELLED = int(EventKind.ORDER_REJECTED), int(EventKind.ORDER_CANCELLED)
_CANCEL_REJECTED, _REPLACED = int(EventKind.CANCEL_REJECTED), int(EventKind.ORDER_REPLACED)
_BUY, _SELL = int(Side.BUY), int(Side.SELL)
_CONTINUOUS = int(Phase.CONTINUOUS)
_MARKET, _POST_ONLY = int(OrderType.MARKET), int(OrderType.POST_ONLY)
_UNKNOWN_ORDER, _LOST_PRIORITY = int(Reason.UNKNOWN_ORDER), int(Reason.LOST_PRIORITY)
_BY_OWNER, _BY_MASS, _BY_REPLACE = int(Reason.BY_OWNER), int(Reason.MASS_CANCEL), int(Reason.REPLACED)
_IOC_REMAINDER, _NO_LIQUIDITY = int(Reason.IOC_REMAINDER), int(Reason.NO_LIQUIDITY)
_FOK_UNFILLABLE, _SELF_TRADE = int(Reason.FOK_UNFILLABLE), int(Reason.SELF_TRADE)


class Stream(NamedTuple):
    """One instrument's messages in continuous trading."""

    messages: Array
    """MESSAGE[n], by time."""
    levels: int
    """price_levels: prices are from 1 to levels − 1."""
    left_out: int
    """Cancels of names that no fill had ended: never there, withdrawn before, or called otherwise since. Nobody won."""
    totals: Array
    """TOTALS[1]."""

    def at_best(self) -> int:
        """How many were about the best price that they met: orders at or beyond it, cancels at it."""
        rows = self.messages
        asks = rows["book"] == _SELL
        bid, ask, price = rows["bid_ticks"], rows["ask_ticks"], rows["price_ticks"]
        best = np.where(asks, ask, bid)
        joins = np.where(asks, price >= bid, (price <= ask) | (ask == NOTHING))
        takes = rows["kind"] == TAKE
        return int((np.where(takes, (rows["marketable"] == 1) | joins, (price == best) & (best != NOTHING))).sum())


@helper
def _is_known_end(reason):
    """Whether an order that was accepted and filled nothing lost to others, and was not stopped by a rule."""
    return reason == _IOC_REMAINDER or reason == _NO_LIQUIDITY or reason == _FOK_UNFILLABLE


@helper
def _row(messages, count, command, outbound_ns, kind, side, price, bid, ask):
    row = messages[count]
    row["sequence"] = command["sequence"]
    row["time_ns"] = command["received_ns"]
    row["outbound_ns"] = outbound_ns
    row["account"] = command["account"]
    row["kind"] = kind
    row["book"] = side
    row["price_ticks"] = price
    row["lots"] = 0
    row["best_ticks"] = NOTHING
    row["worst_ticks"] = NOTHING
    row["marketable"] = 0
    row["expired"] = 0
    row["bid_ticks"] = bid
    row["ask_ticks"] = ask
    return row


@kernel
def _read(state, commands, outbound_ns, events, instrument, messages, names, filled_orders, totals):
    """Replay, and write each message that counts; returns the numbers of messages, of names and of filled orders."""
    count = 0
    gone = 0
    named = 0
    bids = 2 * instrument
    asks = bids + 1
    levels = state.instruments[instrument]["price_levels"]
    participants = state.counters[0]["participants"]
    opened_ns = 0
    for at in range(commands.shape[0]):
        command = commands[at]
        kind = command["kind"]
        now = command["received_ns"]
        account = command["account"]
        open_before = state.instruments[instrument]["phase"] == _CONTINUOUS
        bid = np.int64(NOTHING)
        ask = np.int64(NOTHING)
        if book.best(state, bids) != NO_BID:
            bid = book.best(state, bids)
        if book.best(state, asks) < levels:
            ask = book.best(state, asks)
        mine = account >= 0 and account < participants and (command["instrument"] == instrument or kind == _MASS)
        asked = mine and (kind == _PLACE or kind == _CANCEL_ORDER or kind == _REPLACE or kind == _MASS)
        old_price = np.int64(NOTHING)
        old_side = np.int64(0)
        old_leaves = np.int64(0)
        if asked and (kind == _REPLACE or kind == _CANCEL_ORDER):
            slot = book.find(state, account, command["target_order_id"])
            if slot != 0:
                old_price = np.int64(state.orders[slot]["price_ticks"])
                old_side = np.int64(state.orders[slot]["book"]) & 1
                old_leaves = state.orders[slot]["leaves_lots"]
        _, written = apply_commands(state, commands, at, at + 1, events)
        for number in range(written):
            event = events[number]
            if event["kind"] == _FILLED and event["instrument"] == instrument:
                if event["maker_leaves_lots"] == 0:
                    filled_orders[gone]["account"] = event["maker_account"]
                    filled_orders[gone]["order_id"] = event["maker_order_id"]
                    filled_orders[gone]["sequence"] = event["sequence"]
                    gone += 1
                if event["leaves_lots"] == 0 and event["order_id"] != 0:
                    filled_orders[gone]["account"] = event["account"]
                    filled_orders[gone]["order_id"] = event["order_id"]
                    filled_orders[gone]["sequence"] = event["sequence"]
                    gone += 1
        if asked:
            by_itself = False
            side = np.int64(NOTHING)  # of an order that takes; NOTHING: none was accepted
            limit = np.int64(0)
            filled = np.int64(0)
            best = np.int64(NOTHING)
            worst = np.int64(NOTHING)
            ended = np.int64(0)
            for number in range(written):
                event = events[number]
                what = event["kind"]
                own = event["account"] == account and event["instrument"] == instrument
                if own and (what == _ACCEPTED or what == _REPLACED):
                    names[named]["account"] = account
                    names[named]["order_id"] = event["order_id"]
                    names[named]["side"] = event["side"]
                    names[named]["price_ticks"] = event["price_ticks"]
                    named += 1
                    if what == _ACCEPTED or event["reason"] == _LOST_PRIORITY:
                        side = event["side"]
                        limit = event["price_ticks"]
                if not open_before:
                    continue
                if own and what == _FILLED and event["reason"] == 0:
                    if best == NOTHING:
                        best = event["price_ticks"]
                    worst = event["price_ticks"]
                    filled += event["quantity_lots"]
                    totals[0]["filled_lots"] += event["quantity_lots"]
                    totals[0]["filled_value"] += event["quantity_lots"] * event["price_ticks"]
                elif own and what == _CANCELLED:
                    reason = event["reason"]
                    by_itself = by_itself or reason == _SELF_TRADE
                    if reason == _BY_OWNER or reason == _BY_MASS or reason == _BY_REPLACE:
                        price = event["price_ticks"]
                        row = _row(messages, count, command, outbound_ns[at], CANCEL, event["side"], price, bid, ask)
                        row["lots"] = event["quantity_lots"]
                        count += 1
                    elif event["order_id"] == command["order_id"]:
                        ended = reason
                elif own and what == _REPLACED:
                    # At the same price its owner did not withdraw, but for what it took off.
                    lots = old_leaves if event["price_ticks"] != old_price else old_leaves - event["leaves_lots"]
                    if lots > 0:
                        row = _row(messages, count, command, outbound_ns[at], CANCEL, old_side, old_price, bid, ask)
                        row["lots"] = lots
                        count += 1
                elif (
                    event["account"] == account
                    and event["reason"] == _UNKNOWN_ORDER
                    and (what == _CANCEL_REJECTED or (what == _REJECTED and kind == _REPLACE))
                ):
                    # Too late; its price is looked up afterwards, by the name that is kept in best_ticks.
                    row = _row(messages, count, command, outbound_ns[at], CANCEL, NOTHING, NOTHING, bid, ask)
                    row["best_ticks"] = command["target_order_id"]
                    count += 1
            stopped = filled == 0 and (by_itself or (ended != 0 and not _is_known_end(ended)))
            if open_before and side != NOTHING and command["order_type"] != _POST_ONLY and not stopped:
                buying = side == _BUY
                if command["order_type"] == _MARKET:
                    limit = levels if buying else np.int64(0)
                row = _row(messages, count, command, outbound_ns[at], TAKE, _SELL if buying else _BUY, limit, bid, ask)
                row["lots"] = filled
                row["best_ticks"] = best
                row["worst_ticks"] = worst
                row["expired"] = 1 if filled == 0 and ended != 0 else 0
                if buying:
                    row["marketable"] = 1 if ask != NOTHING and limit >= ask else 0
                else:
                    row["marketable"] = 1 if bid != NOTHING and limit <= bid else 0
                count += 1
        if open_before != (state.instruments[instrument]["phase"] == _CONTINUOUS):
            if open_before:
                totals[0]["open_ns"] += now - opened_ns
            opened_ns = now
    if commands.shape[0] > 0 and state.instruments[instrument]["phase"] == _CONTINUOUS:
        totals[0]["open_ns"] += commands[commands.shape[0] - 1]["received_ns"] - opened_ns
    return count, named, gone


def read(recorded: Journal, outbound_ns: Array, instrument: int = 0) -> Stream:
    """The messages of a journal. Replays it: some 0.2 µs a command.

    Args: outbound_ns: int64[n]: of each command, when the first answer to it was handed to the sockets; 0: not known.
    """
    engine = Engine(recorded.config)
    commands = recorded.commands
    orders = int(np.isin(commands["kind"], (_PLACE, _REPLACE)).sum())
    messages = np.zeros(len(commands) + 2 * orders + 1, MESSAGE)  # a replace is two; a mass cancel, one an order
    names = np.zeros(2 * orders + 1, ORDER_NAME)
    totals = np.zeros(1, TOTALS)
    events = np.zeros(events_bound(engine.state), EVENT)
    filled = np.zeros(2 * orders + 1, FILLED_ORDER)
    arrays = (messages, names, filled, totals)
    count, named, gone = _read(engine.state, commands, outbound_ns, events, instrument, *arrays)
    messages = messages[:count].copy()
    late = np.flatnonzero((messages["kind"] == CANCEL) & (messages["book"] == NOTHING))
    columns = ("account", "best_ticks", "sequence")
    tried = pl.DataFrame({name: messages[name][late] for name in columns}).rename({"best_ticks": "order_id"})
    by = ["account", "order_id"]
    known = (
        tried.join(from_records(names[:named]), on=by, how="left", maintain_order="left")
        .join(from_records(filled[:gone]), on=by, how="left", maintain_order="left", suffix="_filled")
        .with_columns(lost=(pl.col("sequence_filled") < pl.col("sequence")) & (pl.col("price_ticks") > 0))
        .fill_null(NOTHING)
    )
    lost = known["lost"].fill_null(False).to_numpy()
    messages["best_ticks"][late] = NOTHING
    messages["book"][late] = np.where(lost, known["side"].to_numpy(), NOTHING)
    messages["price_ticks"][late] = known["price_ticks"].to_numpy()
    kept = messages["book"] != NOTHING
    levels = recorded.config.instruments[instrument].price_levels
    return Stream(messages[kept], levels, int((~kept).sum()), totals)
