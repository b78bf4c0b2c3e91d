"""A recorded day as ordinary orders: the commands of one participant that make our book the exchange's.

Owns: what each message becomes, which of our orders stands for which of the exchange's, and what is done about
orders that the file never shows. Must not: read files, look at a clock or draw a number; the same day gives the same
flow.

What the file shows is its window: the best `levels` levels of each side. The rule for what lies beyond it: a message
may change only what was inside the window; where the window grows outwards over prices that were out of sight, the
book file is the only witness, and our orders there are made to agree with it (an order placed for what is missing, a
cancel of what is too much). Inside the window nothing is ever copied, so agreement there is earned by the messages.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from aar_swarm.lobster.book import Book
from aar_swarm.lobster.files import EMPTY_PRICE, Day, LobsterError, MessageType
from exchange.types import MAX_PRICE_LEVELS, MAX_QUANTITY_LOTS, CommandKind, OrderType, Side

FLOW_COLUMNS = (
    "time_ns",  # since the first row of the day
    "row",  # the row of the day it comes from (of a run of executions the last); -1: the opening book
    "last",  # 1: with this the row is done, and the book should be books[row]
    "kind",
    "order_id",  # of a PLACE_ORDER: 1, 2, 3, …; of a CANCEL_ORDER 0
    "target_order_id",  # of a CANCEL_ORDER
    "side",
    "order_type",
    "price_ticks",
    "quantity_lots",  # of a CANCEL_ORDER: how much to take off, 0 for all
)
FLOW = np.dtype([(name, np.int64) for name in FLOW_COLUMNS])
PRICE_LEVELS_MULTIPLE = 64
OUT_OF_SIGHT = 1 << 62  # the edge of a window that shows the whole side


@dataclass
class Counts:
    """How the day became the flow: what the file said, and where it left something to be decided."""

    messages: dict[int, int] = field(default_factory=dict)
    """Rows by message type."""
    opening_orders: int = 0
    aggressors: int = 0
    executions: int = 0
    executions_of_another_order: int = 0
    """Rows of executions where price-time priority hits (at least in part) another order than the exchange's did;
    orders we never saw being added are not told apart."""
    cancels_of_unknown_order: int = 0
    """Of an order from before the open or from outside the window: taken from an order that stands for several."""
    cancels_of_filled_order: int = 0
    """Of an order of which our book has less than the exchange's: the rest is taken from others at the price."""
    lots_not_found: int = 0
    """Cancelled or executed at the exchange, absent in our book."""
    limits_matched: int = 0
    """Resting at the exchange, but matched (at least in part) on entering our book."""
    levels_revealed: int = 0
    """Prices that came into the window with more than we had there: an order was placed for the difference."""
    levels_reduced: int = 0
    """Prices that came into the window with less than we had there: the difference was cancelled."""


@dataclass(frozen=True)
class Conversion:
    flow: np.ndarray
    """FLOW records, in order."""
    counts: Counts


def order_flow(day: Day, tick: int = 100) -> np.ndarray:
    """The day's commands, as FLOW records; `convert` gives the counts too.

    Args: tick: in dollars x 10,000, so 100 is one cent. One share is one lot.
    Raises: LobsterError if a visible price is not a whole number of ticks, with its row.
    """
    return convert(day, tick).flow


def price_levels_needed(flow: np.ndarray) -> int:
    """The smallest `price_levels` of an instrument that takes every price of the flow."""
    highest = int(flow["price_ticks"].max(initial=0))
    needed = (highest // PRICE_LEVELS_MULTIPLE + 1) * PRICE_LEVELS_MULTIPLE
    if needed > MAX_PRICE_LEVELS:
        raise LobsterError(f"the highest price is {highest} ticks, must be below {MAX_PRICE_LEVELS}; use a larger tick")
    return needed


def books_in_ticks(day: Day, tick: int = 100) -> np.ndarray:
    """What our book should be after each row: int64, rows x 2 (a Side) x levels x 2 (price_ticks, quantity_lots).

    Best level first; a level that is empty is (0, 0). Raises: as `order_flow`.
    """
    _check_ticks(day, tick)
    asks_and_bids = day.books.reshape(len(day.books), day.levels, 2, 2).swapaxes(1, 2)
    books = asks_and_bids[:, ::-1].copy()
    books[..., 0] = np.where(books[..., 1] > 0, books[..., 0] // tick, 0)
    return books


def convert(day: Day, tick: int = 100) -> Conversion:
    """The day's commands and how they came about. Args and errors as for `order_flow`."""
    replay = _Replay(day, tick)
    replay.open()
    for rows in _groups(day.messages):
        replay.apply(rows)
    flow = np.array(replay.actions, FLOW) if replay.actions else np.empty(0, FLOW)
    flow["last"][replay.lasts] = 1
    if flow["quantity_lots"].max(initial=0) > MAX_QUANTITY_LOTS:
        row = int(flow["row"][flow["quantity_lots"].argmax()])
        raise LobsterError(f"{day.message_name}, row {row + 1}: more than {MAX_QUANTITY_LOTS} shares in one order")
    kinds, numbers = np.unique(day.messages["type"], return_counts=True)
    replay.counts.messages = dict(zip(kinds.tolist(), numbers.tolist(), strict=True))
    return Conversion(flow, replay.counts)


def _check_ticks(day: Day, tick: int) -> None:
    if tick < 1:
        raise LobsterError(f"tick is {tick}, must be 1 or more (100 is one cent)")
    visible = day.messages["type"] <= MessageType.EXECUTE
    off = np.flatnonzero(visible & (day.messages["price"] % tick != 0))
    if len(off):
        what = f"the price {day.messages['price'][off[0]]} is not a multiple of the tick {tick}; use a smaller tick"
        raise LobsterError(f"{day.message_name}, row {off[0] + 1}: {what}")
    prices = day.books[:, ::2]
    wrong = ((prices % tick != 0) & (abs(prices) != EMPTY_PRICE)).any(axis=1)
    if wrong.any():
        what = f"a price is not a multiple of the tick {tick}; use a smaller tick"
        raise LobsterError(f"{day.book_name}, row {int(wrong.argmax()) + 1}: {what}")


def _groups(messages: np.ndarray) -> Iterator[list[int]]:
    """The rows that become one action each: every visible row, and every run of executions by one aggressor.

    A run is executions at one time against one direction. Hidden executions between them belong to the same aggressor
    and change no level, so they do not end it.
    """
    run: list[int] = []
    key = None
    columns = (messages[name].tolist() for name in ("type", "time_ns", "direction"))
    for row, (kind, time_ns, direction) in enumerate(zip(*columns, strict=True)):
        if kind > MessageType.EXECUTE:
            if kind != MessageType.EXECUTE_HIDDEN:
                key = None
            continue
        row_key = (time_ns, direction) if kind == MessageType.EXECUTE else None
        if row_key is not None and row_key == key:
            run.append(row)
            continue
        if run:
            yield run
        run, key = [row], row_key
    if run:
        yield run


class _Replay:
    """The conversion in progress: our book, which order is whose, and the actions so far."""

    def __init__(self, day: Day, tick: int) -> None:
        self.tick, self.levels, self.books = tick, day.levels, books_in_ticks(day, tick)
        self.book = Book()
        self.counts = Counts()
        self.actions: list[tuple[int, ...]] = []
        self.lasts: list[int] = []
        self.time_ns, self.row, self.order_id = 0, -1, 0
        self.ours: dict[int, int] = {}
        """The exchange's order id -> ours."""
        self.theirs: dict[int, int] = {}
        """Ours -> the exchange's; ours that stand for orders we never saw being added are not in it."""
        names = ("time_ns", "type", "order_id", "size", "price", "direction")
        self.messages = list(zip(*(day.messages[name].tolist() for name in names), strict=True))
        self.row_last_named = dict(zip(day.messages["order_id"].tolist(), range(len(self.messages)), strict=True))
        outermost = self.books[:, :, -1]
        edges = np.where(outermost[..., 1] > 0, outermost[..., 0] * np.array([-1, 1]), OUT_OF_SIGHT)
        self.edges_by_row: tuple[list[int], list[int]] = (edges[:, Side.BUY].tolist(), edges[:, Side.SELL].tolist())
        """By side, by row: the key of the outermost level that the book file shows."""
        self.edges = [OUT_OF_SIGHT, OUT_OF_SIGHT]

    def open(self) -> None:
        """Place the levels as they stood before the first message, which is taken back from the first book."""
        if not self.messages:
            return
        _, kind, _, size, price, direction = self.messages[0]
        change = -size if kind == MessageType.ADD else size if kind <= MessageType.EXECUTE else 0
        for side, sign in ((Side.BUY, -1), (Side.SELL, 1)):
            levels = self._shown(side, 0)
            if direction == -sign and change:
                key = sign * price // self.tick
                levels[key] = levels.get(key, 0) + change
            keys = sorted(key for key, lots in levels.items() if lots > 0)[: self.levels]
            for key in keys:
                self._place(side, OrderType.LIMIT, key, levels[key])
            if self.edges_by_row[side][0] != OUT_OF_SIGHT or len(keys) == self.levels:
                self.edges[side] = keys[-1] if keys else -OUT_OF_SIGHT
        self.counts.opening_orders = len(self.actions)

    def apply(self, rows: list[int]) -> None:
        """One row, or one aggressor's run of executions: its action, then what the window newly shows."""
        action_count = len(self.actions)
        time_ns, kind, order_id, size, price, direction = self.messages[rows[0]]
        self.row, self.time_ns = rows[-1], time_ns - self.messages[0][0]
        side, sign = (Side.BUY, -1) if direction == 1 else (Side.SELL, 1)
        if kind == MessageType.EXECUTE:
            # A deep run can reach prices that were out of sight when it began: its earlier rows show them in time.
            for row in rows[:-1]:
                self._look(side, row)
            self._execute(rows, side, sign)
        elif kind == MessageType.ADD:
            self._add(side, sign * price // self.tick, size, order_id)
        else:
            self._cancel(side, sign * price // self.tick, size, order_id)
        self._look(Side.BUY, self.row)
        self._look(Side.SELL, self.row)
        if len(self.actions) > action_count:
            self.lasts.append(len(self.actions) - 1)

    def _add(self, side: int, key: int, quantity: int, their_id: int) -> None:
        self._place(side, OrderType.LIMIT, key, quantity)
        self.ours[their_id], self.theirs[self.order_id] = self.order_id, their_id

    def _execute(self, rows: list[int], side: int, sign: int) -> None:
        """One immediate-or-cancel order of the other side, limited at the worst price that the run reached."""
        executed = [self.messages[row] for row in rows]
        quantity = sum(size for _, _, _, size, _, _ in executed)
        worst = max(sign * price // self.tick for _, _, _, _, price, _ in executed)
        fills = self._place(1 - side, OrderType.IOC, -worst, quantity)
        self.counts.aggressors += 1
        self.counts.executions += len(rows)
        self.counts.lots_not_found += quantity - sum(lots for _, lots in fills)
        # Compared lot by lot: one of our strangers may be filled for several of the exchange's orders.
        hit = iter([(self.theirs.get(maker, 0), lots) for maker, lots in fills])
        whose, left = next(hit, (-1, 0))
        for _, _, their_id, size, _, _ in executed:
            expected = their_id if their_id in self.ours else 0
            same = True
            while size and left:
                same &= whose == expected
                part = min(size, left)
                size, left = size - part, left - part
                if not left:
                    whose, left = next(hit, (-1, 0))
            self.counts.executions_of_another_order += not same or size > 0

    def _cancel(self, side: int, key: int, quantity: int, their_id: int) -> None:
        """Take exactly what the exchange took, from the order it names as far as we have it, so that totals agree."""
        our_id = self.ours.get(their_id)
        if our_id is None:
            self.counts.cancels_of_unknown_order += 1
            self._take_any(side, key, quantity, strangers_first=True)
            return
        leaves = self.book.at(side, key).get(our_id, 0)
        if leaves:
            self._take(side, key, our_id, min(quantity, leaves))
        if quantity > leaves:
            self.counts.cancels_of_filled_order += 1
            self._take_any(side, key, quantity - leaves, strangers_first=False)

    def _take_any(self, side: int, key: int, quantity: int, strangers_first: bool) -> None:
        """Take from the orders at a price of which the file does not say which one it was.

        Spared as long as possible are orders that a later row still names. Before them come strangers, which stand
        for orders we never saw being added, and the forgotten, which no later row names. Within each kind from the
        tail: cancels come mostly from the back of the queue, and the head keeps its priority.
        """
        level = list(self.book.at(side, key).items())[::-1]

        def preference(order: tuple[int, int]) -> int:
            their_id = self.theirs.get(order[0])
            if their_id is None:
                return 0 if strangers_first else 1
            return 2 if self.row_last_named[their_id] > self.row else 1 if strangers_first else 0

        for our_id, leaves in sorted(level, key=preference):
            if not quantity:
                return
            part = min(quantity, leaves)
            self._take(side, key, our_id, part)
            quantity -= part
        self.counts.lots_not_found += quantity

    def _shown(self, side: int, row: int) -> dict[int, int]:
        """One side of the book file after a row: key -> quantity, best first."""
        sign = -1 if side == Side.BUY else 1
        return {sign * price: lots for price, lots in self.books[row, side].tolist() if lots}

    def _look(self, side: int, row: int) -> None:
        """Where the window grew outwards with `row`, make what we have there what the book file shows."""
        edge_before, edge = self.edges[side], self.edges_by_row[side][row]
        self.edges[side] = edge
        if edge <= edge_before:
            return
        shown = self._shown(side, row)
        keys = self.book.keys[side]
        ours = keys[bisect_right(keys, edge_before) : bisect_right(keys, edge)]
        for key in sorted({key for key in shown if key > edge_before}.union(ours)):
            missing = shown.get(key, 0) - sum(self.book.at(side, key).values())
            opposite = self.book.keys[1 - side]
            if missing > 0 and not (opposite and opposite[0] <= -key):  # it must rest, never match
                self.counts.levels_revealed += 1
                self._place(side, OrderType.LIMIT, key, missing)
            elif missing < 0:
                self.counts.levels_reduced += 1
                self._take_any(side, key, -missing, strangers_first=False)

    def _place(self, side: int, order_type: int, key: int, quantity: int) -> list[tuple[int, int]]:
        self.order_id += 1
        self._act(CommandKind.PLACE_ORDER, self.order_id, 0, side, order_type, abs(key), quantity)
        fills = self.book.match(side, key, quantity)
        left = quantity - sum(lots for _, lots in fills)
        if order_type == OrderType.LIMIT:
            self.counts.limits_matched += bool(fills)
            if left:
                self.book.rest(side, key, self.order_id, left)
        return fills

    def _take(self, side: int, key: int, our_id: int, quantity: int) -> None:
        whole = quantity == self.book.at(side, key)[our_id]
        self._act(CommandKind.CANCEL_ORDER, 0, our_id, 0, 0, 0, 0 if whole else quantity)
        self.book.take(side, key, our_id, quantity)

    def _act(self, kind: int, order_id: int, target: int, side: int, order_type: int, price: int, lots: int) -> None:
        self.actions.append((self.time_ns, self.row, 0, kind, order_id, target, side, order_type, price, lots))
