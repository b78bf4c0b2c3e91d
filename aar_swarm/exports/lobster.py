"""LOBSTER's message file and 10-level book file of one instrument of a run.

Rows are what happened to orders that could be seen: added (1), reduced (2), deleted (3), executed (4), executed in an
auction (6: one row for each side, with its order, so that the book follows), and halts (7: price −1; 0 when quotes are
taken again, 1 when trading resumes). A row has its order's own price. An order that trades on its way in makes no row
of its own before its remainder rests, as in LOBSTER. A replace that keeps its place is a reduction, any other a
deletion and a new order. Times are seconds since the run's first command; prices are currency × 10,000.
"""

from pathlib import Path

import numpy as np
import polars as pl

from aar_swarm.exports.orders import Order, Orders, Step, rests_after, steps
from aar_swarm.lobster.files import EMPTY_PRICE, MESSAGE, MESSAGE_COLUMNS, MessageType
from exchange.clock import SECOND
from exchange.errors import ConfigurationError
from exchange.jit import kernel
from exchange.journal import Journal
from exchange.state import Array
from exchange.types import EventKind, Phase, Reason, Side

LEVELS = 10
_HALTED, _QUOTES, _TRADES = -1, 0, 1
_TRADING = (Phase.CONTINUOUS, Phase.BATCH)


class _Rows:
    """The rows so far, and the orders that they are about."""

    def __init__(self, price_unit: int) -> None:
        self.rows: list[tuple[int, int, int, int, int, int]] = []
        self._orders = Orders()
        self._price_unit = price_unit
        self._time_ns = 0

    def take(self, step: Step, time_ns: int) -> None:
        self._time_ns = time_ns
        entering: Order | None = None
        order_type = int(step.command["order_type"])
        for event in step.events:
            kind = int(event["kind"])
            if kind == EventKind.ORDER_ACCEPTED:
                entering = self._orders.accepted(event, order_type)
            elif kind == EventKind.ORDER_REPLACED:
                entering = self._replace(event, order_type)
            elif kind == EventKind.ORDER_FILLED:
                self._fill(event)
            elif kind == EventKind.ORDER_CANCELLED:
                self._cancel(event)
            elif kind == EventKind.PHASE_CHANGED:
                self._change_phase(step.phase, int(event["value"]))
        if entering is not None and rests_after(entering, step):
            entering.resting = True
            self._add(MessageType.ADD, entering, entering.leaves_lots)

    def _add(self, kind: MessageType, order: Order, lots: int) -> None:
        if lots > 0:
            direction = 1 if order.side == Side.BUY else -1
            price = order.price_ticks * self._price_unit
            self.rows.append((self._time_ns, int(kind), order.number, lots, price, direction))

    def _replace(self, event: np.void, order_type: int) -> Order | None:
        """Returns the order that enters anew, if it lost its place."""
        old, new = self._orders.replaced(event, order_type)
        if old is new:
            leaves = int(event["leaves_lots"])
            self._add(MessageType.REDUCE, new, new.leaves_lots - leaves)
            new.leaves_lots = leaves
            return None
        if old is not None:
            self._add(MessageType.DELETE, old, old.leaves_lots)
        return new

    def _fill(self, event: np.void) -> None:
        lots = int(event["quantity_lots"])
        kind = MessageType.CROSS if event["reason"] == Reason.AUCTION else MessageType.EXECUTE
        for account, name in (("account", "order_id"), ("maker_account", "maker_order_id")):
            order = self._orders.named(int(event[account]), int(event[name]))
            if order is not None:  # a liquidation has none
                order.leaves_lots -= lots
                if order.resting:
                    self._add(kind, order, lots)

    def _cancel(self, event: np.void) -> None:
        order = self._orders.named(int(event["account"]), int(event["order_id"]))
        if order is None:
            return
        leaves = int(event["leaves_lots"])
        if order.resting:
            self._add(MessageType.REDUCE if leaves else MessageType.DELETE, order, int(event["quantity_lots"]))
        order.leaves_lots = leaves

    def _change_phase(self, before: int, now: int) -> None:
        if now == Phase.HALTED:
            self._say_halt(_HALTED)
        elif before == Phase.HALTED and now == Phase.AUCTION:
            self._say_halt(_QUOTES)
        elif now in _TRADING and before in (Phase.HALTED, Phase.AUCTION):
            self._say_halt(_TRADES)

    def _say_halt(self, what: int) -> None:
        self.rows.append((self._time_ns, int(MessageType.HALT), 0, 0, what, -1))


def messages_of(recorded: Journal, events: Array, instrument: int, price_unit: int) -> Array:
    """MESSAGE[n]. events: EVENT[m], the replay of the whole journal; price_unit: currency × 10,000 of a tick."""
    rows = _Rows(price_unit)
    first_ns = int(recorded.commands["received_ns"][0]) if len(recorded.commands) else 0
    for step in steps(recorded.commands, events, instrument):
        rows.take(step, int(step.command["received_ns"]) - first_ns)
    return np.array(rows.rows, MESSAGE)


@kernel
def _books(messages, price_unit, lots, out):
    """Apply row by row, and write the best levels after each. lots: int64[2, levels], zeros: asks, then bids."""
    depth = out.shape[1] // 4
    top = lots.shape[1]
    best_ask = top
    best_bid = 0
    for row in range(messages.shape[0]):
        message = messages[row]
        kind = message["type"]
        if kind != 7:
            price = message["price"] // price_unit
            side = 1 if message["direction"] == 1 else 0
            if kind == 1:
                lots[side, price] += message["size"]
                if side == 0:
                    best_ask = min(best_ask, price)
                else:
                    best_bid = max(best_bid, price)
            else:
                lots[side, price] -= message["size"]
            while best_ask < top and lots[0, best_ask] == 0:
                best_ask += 1
            while best_bid > 0 and lots[1, best_bid] == 0:
                best_bid -= 1
        price = best_ask
        for level in range(depth):
            while price < top and lots[0, price] == 0:
                price += 1
            out[row, 4 * level] = price * price_unit if price < top else EMPTY_PRICE
            out[row, 4 * level + 1] = lots[0, price] if price < top else 0
            price = min(price + 1, top)
        price = best_bid
        for level in range(depth):
            while price > 0 and lots[1, price] == 0:
                price -= 1
            out[row, 4 * level + 2] = price * price_unit if price > 0 else -EMPTY_PRICE
            out[row, 4 * level + 3] = lots[1, price] if price > 0 else 0
            price = max(price - 1, 0)


def books_of(messages: Array, levels: int, price_unit: int) -> Array:
    """int64[n, 40]: the book after each row, as LOBSTER has it: ask price, ask size, bid price, bid size, by level."""
    out = np.zeros((len(messages), 4 * LEVELS), np.int64)
    _books(messages, price_unit, np.zeros((2, levels), np.int64), out)
    return out


def write(recorded: Journal, events: Array, instrument: int, tick_size: float, stem: Path) -> list[Path]:
    """Write stem_message_10.csv and stem_orderbook_10.csv; returns both paths."""
    price_unit = round(tick_size * 10_000)
    if price_unit < 1 or abs(price_unit - tick_size * 10_000) > 1e-6:
        raise ConfigurationError(
            f"a tick of {tick_size:g} cannot be written: LOBSTER's prices are whole ten-thousandths; use another format"
        )
    messages = messages_of(recorded, events, instrument, price_unit)
    books = books_of(messages, recorded.config.instruments[instrument].price_levels, price_unit)
    frame = pl.DataFrame({name: messages[name] for name in MESSAGE_COLUMNS})
    seconds = frame["time_ns"].map_elements(lambda time_ns: f"{time_ns // SECOND}.{time_ns % SECOND:09d}", pl.String)
    paths = [stem.with_name(f"{stem.name}_{kind}_{LEVELS}.csv") for kind in ("message", "orderbook")]
    frame.with_columns(seconds).write_csv(paths[0], include_header=False)
    pl.DataFrame(books).write_csv(paths[1], include_header=False)
    return paths
