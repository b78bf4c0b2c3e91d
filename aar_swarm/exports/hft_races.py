"""The log format that the programs of Aquilina, Budish and O'Neill (2022) read: every message in and out, one a row.

One instrument of a run; rows by time. Every account is a user and a firm of its own. UniqueOrderID ties all messages
of an order together, whatever it was called since; MEOrderID is the journal sequence of the command that entered it.
An inbound message has the venue's time of receipt, an outbound one the time when answers to that command were handed
to the sockets. Prices are in the currency. The date and the time of day are those of the run's start by the wall
clock, carried on by the venue's own.
"""

import csv
import heapq
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from aar_swarm.exports.orders import Order, Orders, Step, steps
from exchange.clock import SECOND
from exchange.journal import Journal
from exchange.state import Array
from exchange.types import NO_BID, NOBODY, CommandKind, EventKind, OrderType, Phase, Reason, Side

COLUMNS = (
    *("Symbol", "Date", "SessionID", "UserID", "FirmID", "ClientOrderID", "OrigClientOrderID", "MEOrderID"),
    *("UniqueOrderID", "MessageTimestamp", "MessageType", "Side", "QuoteRelated", "RegularHour", "OrderType", "TIF"),
    *("OrderQty", "DisplayQty", "LeavesQty", "LimitPrice", "StopPrice", "BidSize", "AskSize", "BidPrice", "AskPrice"),
    *("ExecType", "TradeMatchID", "TradeInitiator", "OrderStatus", "ExecutedPrice", "ExecutedQty", "AuctionTrade"),
    *("OpenAuctionTrade", "CancelRejectReason"),
)
_INBOUND = {
    CommandKind.PLACE_ORDER: "New_Order",
    CommandKind.CANCEL_ORDER: "Cancel_Request",
    CommandKind.REPLACE_ORDER: "Cancel_Replace_Request",
    CommandKind.MASS_CANCEL: "Other_Inbound",
}
_ORDER_TYPE = {OrderType.MARKET: "Market", OrderType.POST_ONLY: "Passive_Only"}
_TIF = {OrderType.IOC: "IOC", OrderType.MARKET: "IOC", OrderType.FOK: "FOK"}
_EXPIRED = (Reason.IOC_REMAINDER, Reason.NO_LIQUIDITY, Reason.FOK_UNFILLABLE, Reason.AUCTION_REMAINDER)
_SIDE = {Side.BUY: "Bid", Side.SELL: "Ask"}


class _Writer:
    """Makes the rows of one command after the other."""

    def __init__(self, symbol: str, start: np.datetime64, first_ns: int, tick_size: float, levels: int) -> None:
        self._symbol = symbol
        self._start = start
        self._first_ns = first_ns
        self._tick_size = tick_size
        self._levels = levels
        self._orders = Orders()
        self._matches = 0
        self._opened = False

    def rows(self, step: Step, answered_ns: int, before: np.void | None, after: np.void) -> Iterator[dict[str, Any]]:
        command = step.command
        received_ns, kind = int(command["received_ns"]), int(command["kind"])
        regular = {"RegularHour": str(step.phase == Phase.CONTINUOUS)}
        out = regular | self._quotes(after)
        inbound = None
        if kind in _INBOUND and command["account"] != NOBODY:
            inbound = self._base(received_ns, int(command["account"])) | regular | self._quotes(before)
            inbound |= {"MessageType": _INBOUND[CommandKind(kind)], "ClientOrderID": int(command["order_id"]) or ""}
            inbound |= self._asked(command, kind)
        answers = []
        self._opened = self._opened or step.phase in (Phase.CONTINUOUS, Phase.BATCH, Phase.HALTED)
        for event in step.events:
            answers += [row | out for row in self._answers(event, step, answered_ns)]
        if inbound is not None:
            order = self._orders.named(int(command["account"]), int(command["order_id"]))
            repeated = (step.events["kind"] == EventKind.ORDER_REPEATED).any()
            if kind == CommandKind.PLACE_ORDER and order is None and answers:  # it was rejected
                order = self._orders.refused(command, int(command["order_type"]))
                for row in answers:
                    row["UniqueOrderID"] = order.number
            if kind in (CommandKind.PLACE_ORDER, CommandKind.REPLACE_ORDER) and order is not None and not repeated:
                inbound |= self._identity(order) | {"Side": _SIDE.get(order.side, "")}  # type: ignore[call-overload]
            yield inbound
        yield from answers

    def _base(self, time_ns: int, account: int) -> dict[str, Any]:
        since_ns = time_ns - self._first_ns
        date, time = str(self._start + np.timedelta64(since_ns // SECOND, "s")).split("T")
        row: dict[str, Any] = dict.fromkeys(COLUMNS, "")
        return row | {
            "Symbol": self._symbol,
            "Date": date,
            "SessionID": account,
            "UserID": account,
            "FirmID": account,
            "MessageTimestamp": f"{date} {time}.{since_ns % SECOND:09d}",
            "QuoteRelated": "False",
            "AuctionTrade": "False",
            "OpenAuctionTrade": "False",
        }

    def _price(self, ticks: int) -> Any:
        return round(ticks * self._tick_size, 10) if ticks > 0 else ""

    def _quotes(self, top: np.void | None) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if top is not None and top["bid_ticks"] != NO_BID:
            found |= {"BidPrice": self._price(int(top["bid_ticks"])), "BidSize": int(top["bid_lots"])}
        if top is not None and top["ask_ticks"] < self._levels:
            found |= {"AskPrice": self._price(int(top["ask_ticks"])), "AskSize": int(top["ask_lots"])}
        return found

    def _asked(self, command: np.void, kind: int) -> dict[str, Any]:
        """What an inbound message asks for, and which order it is about."""
        if kind == CommandKind.MASS_CANCEL:
            return {}
        about: dict[str, Any] = {}
        if kind != CommandKind.PLACE_ORDER:
            about["OrigClientOrderID"] = int(command["target_order_id"])
            order = self._orders.named(int(command["account"]), int(command["target_order_id"]))
            if order is not None:
                about |= self._identity(order) | {"Side": _SIDE[Side(order.side)]}
                about |= {"LimitPrice": self._price(order.price_ticks)}
        if kind == CommandKind.CANCEL_ORDER:
            return about
        if kind == CommandKind.PLACE_ORDER:
            about["Side"] = _SIDE.get(Side(int(command["side"])), "") if command["side"] in (0, 1) else ""
        lots = int(command["quantity_lots"])
        return about | {
            "OrderType": _ORDER_TYPE.get(command["order_type"], "Limit"),
            "TIF": _TIF.get(command["order_type"], "GoodTill"),
            "OrderQty": lots,
            "DisplayQty": lots,
            "LimitPrice": self._price(int(command["price_ticks"])),
        }

    def _identity(self, order: Order) -> dict[str, Any]:
        return {"UniqueOrderID": order.number, "MEOrderID": order.entered_by}

    def _answers(self, event: np.void, step: Step, time_ns: int) -> Iterator[dict[str, Any]]:
        kind, account, name = int(event["kind"]), int(event["account"]), int(event["order_id"])
        order_type = int(step.command["order_type"])
        row = self._base(time_ns, account) | {"MessageType": "Execution_Report", "ClientOrderID": name or ""}
        if kind == EventKind.ORDER_ACCEPTED:
            order = self._orders.accepted(event, order_type)
            yield row | self._state(order) | {"ExecType": "Order_Accepted"}
        elif kind == EventKind.ORDER_REPLACED:
            old, order = self._orders.replaced(event, order_type)
            if old is not order and old is not None:
                order.number, order.entered_by = old.number, old.entered_by  # UniqueOrderID ties it to what it was
                old.leaves_lots = 0
            order.leaves_lots = int(event["leaves_lots"])
            yield row | self._state(order) | {"ExecType": "Order_Replaced", "OrigClientOrderID": int(event["value"])}
        elif kind == EventKind.ORDER_CANCELLED:
            cancelled = self._orders.named(account, name)
            if cancelled is not None:
                cancelled.leaves_lots = int(event["leaves_lots"])
                how = "Order_Expired" if event["reason"] in _EXPIRED else "Order_Cancelled"
                yield row | self._state(cancelled) | {"ExecType": how}
        elif kind == EventKind.ORDER_REPEATED:
            yield row | {"MessageType": "Other_Outbound"}
        elif kind == EventKind.ORDER_REJECTED and account != NOBODY and name:
            command = step.command
            if command["kind"] == CommandKind.REPLACE_ORDER and event["reason"] == Reason.UNKNOWN_ORDER:
                row |= {"MessageType": "Cancel_Reject", "CancelRejectReason": "TLTC"}
                row["OrigClientOrderID"] = int(command["target_order_id"])
                gone = self._orders.named(account, int(command["target_order_id"]))
                yield row if gone is None else row | self._state(gone)
            else:
                yield row | {"ExecType": "Order_Rejected"}
        elif kind == EventKind.CANCEL_REJECTED:
            late = event["reason"] == Reason.UNKNOWN_ORDER
            row |= {"MessageType": "Cancel_Reject", "CancelRejectReason": "TLTC" if late else "Other"}
            row |= {"OrigClientOrderID": name, "ClientOrderID": ""}
            gone = self._orders.named(account, name)
            yield row if gone is None else row | self._state(gone)
        elif kind == EventKind.ORDER_FILLED:
            yield from self._trade(event, step, time_ns)

    def _trade(self, event: np.void, step: Step, time_ns: int) -> Iterator[dict[str, Any]]:
        """A report to each side; a liquidation's own side has no order, and is told of by its account alone."""
        self._matches += 1
        auction = event["reason"] == Reason.AUCTION
        sides = (("account", "order_id", "Aggressive"), ("maker_account", "maker_order_id", "Passive"))
        for account, name, role in sides:
            row = self._base(time_ns, int(event[account])) | {"MessageType": "Execution_Report"}
            row |= {"ClientOrderID": int(event[name]) or "", "ExecType": "Order_Executed"}
            order = self._orders.named(int(event[account]), int(event[name]))
            if order is not None:
                order.leaves_lots -= int(event["quantity_lots"])
                row |= self._state(order)
                row["OrderStatus"] = "Partial_Fill" if order.leaves_lots > 0 else "Full_Fill"
            yield row | {
                "TradeMatchID": self._matches,
                "TradeInitiator": "Other" if auction else role,
                "ExecutedPrice": self._price(int(event["price_ticks"])),
                "ExecutedQty": int(event["quantity_lots"]),
                "AuctionTrade": str(bool(auction)),
                "OpenAuctionTrade": str(bool(auction and not self._opened)),
            }

    def _state(self, order: Order) -> dict[str, Any]:
        return self._identity(order) | {
            "Side": _SIDE[Side(order.side)],
            "OrderType": _ORDER_TYPE.get(OrderType(order.order_type), "Limit"),
            "TIF": _TIF.get(OrderType(order.order_type), "GoodTill"),
            "OrderQty": order.lots,
            "DisplayQty": order.lots,
            "LeavesQty": order.leaves_lots,
            "LimitPrice": self._price(order.price_ticks),
        }


def write(
    recorded: Journal,
    events: Array,
    tops: Array,
    answered_ns: Array,
    instrument: int,
    symbol: str,
    started_utc: str,
    tick_size: float,
    path: Path,
) -> int:
    """Write one CSV; returns its number of rows.

    Args: events: EVENT[m] of the whole journal; tops: TOP[n] of the instrument; answered_ns: int64[n]: when each
    command's answers were handed to the sockets, 0: not known; started_utc: of the manifest.
    """
    day, hour = started_utc.split("-")
    start = np.datetime64(f"{day[:4]}-{day[4:6]}-{day[6:]}T{hour[:2]}:{hour[2:4]}:{hour[4:]}", "s")
    commands = recorded.commands
    first_ns = int(commands["received_ns"][0]) if len(commands) else 0
    levels = recorded.config.instruments[instrument].price_levels
    writer = _Writer(symbol, start, first_ns, tick_size, levels)
    count = 0
    waiting: list[tuple[int, int, dict[str, Any]]] = []  # answers whose time has not come: (time, number, row)
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for step in steps(commands, events, instrument):
            before = tops[step.at - 1] if step.at else None
            received_ns = int(step.command["received_ns"])
            answered = max(int(answered_ns[step.at]), received_ns)
            while waiting and waiting[0][0] < received_ns:
                table.writerow(heapq.heappop(waiting)[2])
            for row in writer.rows(step, answered, before, tops[step.at]):
                inbound = row["MessageType"] in _INBOUND.values()
                heapq.heappush(waiting, (received_ns if inbound else answered, count, row))
                count += 1
        while waiting:
            table.writerow(heapq.heappop(waiting)[2])
    return count
