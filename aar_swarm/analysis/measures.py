"""The measures of a crisis: what summary.json says. Every definition stands here, at the function that computes it.

Prices in ticks and money in minor units inside; money in currency (minor units × tick_size) in what is returned.
A quantity that does not apply is None, never 0.
"""

from typing import Any

import numpy as np
import polars as pl

from aar_swarm.agents.base import Rule
from aar_swarm.agents.holder import book_impact
from aar_swarm.analysis.tables import TOP
from aar_swarm.execution import coordinated_cost
from aar_swarm.scenario import Scenario
from exchange.clock import MS
from exchange.engine import Engine
from exchange.state import Array
from exchange.types import EventKind, Phase, Side, Trigger
from exchange.wire import MessageKind, TopOfBook

_BPS = 10_000
_SELL = int(Side.SELL)
CROWD = "crowd"
"""The name that a scenario gives to the group whose exit is studied."""
RECORDING = "background"
"""The name of the group that sends a recorded day."""
_EXHAUSTED_SHARE = 0.1
_BELIEFS = ("horizon_s", "steps", "permanent_share", "recovery_s")
"""Settings of the crowd's strategy from which the coordinated exit is computed."""
_SELL_WINDOW_NS, _PRICE_WINDOW_NS = 100 * MS, 1000 * MS


class Session:
    """One instrument's session as arrays, and the moments that measures refer to."""

    def __init__(self, scenario: Scenario, groups: list[str], commands: Array, events: Array, tops: Array) -> None:
        self.scenario = scenario
        self.groups = np.array(groups)
        self.commands = commands
        self.events = events
        self.tops = tops
        self.opened_ns = self._time_of(EventKind.SESSION_OPENED)
        self.signal_ns = self._time_of(EventKind.SIGNAL_PUBLISHED)
        self.signal_sequence = self._first(EventKind.SIGNAL_PUBLISHED, "sequence")
        self.close_sequence = self._first(EventKind.SESSION_CLOSED, "sequence") or len(commands) + 1
        self.fills = events[events["kind"] == EventKind.ORDER_FILLED]

    def _first(self, kind: EventKind, field: str) -> int | None:
        found = self.events[self.events["kind"] == kind]
        return int(found[field][0]) if len(found) else None

    def _time_of(self, kind: EventKind) -> int | None:
        return self._first(kind, "time_ns")

    def mid_before(self, sequence: int) -> float | None:
        """The mid after the last command before `sequence`; the last trade's price if a side is empty; or None."""
        if sequence < 2:
            return None
        top = self.tops[sequence - 2]
        if top["bid_lots"] and top["ask_lots"]:
            return float(top["bid_ticks"] + top["ask_ticks"]) / 2
        earlier = self.fills[self.fills["sequence"] < sequence]
        return float(earlier["price_ticks"][-1]) if len(earlier) else None

    def holdings(self, before_sequence: int) -> tuple[np.ndarray, np.ndarray]:
        """(cash, lots) of every account before a command, from the events alone."""
        accounts = len(self.groups)
        past = self.events[self.events["sequence"] < before_sequence]
        cash, lots = np.zeros(accounts, np.int64), np.zeros(accounts, np.int64)
        deposit = past[past["kind"] == EventKind.CASH_DEPOSITED]
        np.add.at(cash, deposit["account"], deposit["quantity_lots"])
        deposit = past[past["kind"] == EventKind.POSITION_DEPOSITED]
        np.add.at(lots, deposit["account"], deposit["quantity_lots"])
        fills = past[past["kind"] == EventKind.ORDER_FILLED]
        sign = np.where(fills["side"] == _SELL, -1, 1)
        for party, direction in (("account", sign), ("maker_account", -sign)):
            np.add.at(lots, fills[party], direction * fills["quantity_lots"])
            np.add.at(cash, fills[party], -direction * fills["quantity_lots"] * fills["price_ticks"])
        return cash, lots


def measure(
    session: Session, rows: Array, latency: pl.DataFrame, timings: Array
) -> tuple[dict[str, Any], pl.DataFrame]:
    """The measures of one session, and who lost what. rows: the agents' scoreboard, one row an account."""
    events = session.events
    kinds = events["kind"]
    summary: dict[str, Any] = {
        "commands": len(session.commands),
        "events": len(events),
        "trades": int((kinds == EventKind.ORDER_FILLED).sum()),
        "rejects": int(np.isin(kinds, (EventKind.ORDER_REJECTED, EventKind.CANCEL_REJECTED)).sum()),
        "halted": bool((kinds == EventKind.INSTRUMENT_HALTED).any()),
        **_price_fall(session),
        **_stampede(session),
        **_window_extremes(session),
        **_trip(session, rows, timings),
        **_latencies(latency, session),
        "liquidations": None,
        "bad_debt": None,
        "killed_processes": None,
        "kill_to_last_dead_ms": None,
    }
    losses = loss_table(session)
    summary["loss_total"] = _total_loss(losses)
    crowd = losses.filter(pl.col("participants") == CROWD)
    summary["loss_crowd"] = round(float(crowd["loss"][0]), 2) if len(crowd) else None
    summary.update(_exit_costs(session, rows))
    return summary, losses


def _price_fall(session: Session) -> dict[str, Any]:
    """drawdown_bps: from the mid just before the signal to the lowest trade after it; trough_ms: signal → that trade.

    exhausted_ms: signal → the bids within 1 % of the mid are first below a tenth of what they were at the signal.
    """
    nothing = {"reference_ticks": None, "drawdown_bps": None, "trough_ms": None, "exhausted_ms": None}
    if session.signal_sequence is None or session.signal_ns is None:
        return nothing
    reference = session.mid_before(session.signal_sequence)
    after = session.fills[session.fills["sequence"] > session.signal_sequence]
    if reference is None or not len(after):
        return {**nothing, "reference_ticks": reference}
    lowest = int(np.argmin(after["price_ticks"]))
    fall = max(0.0, reference - float(after["price_ticks"][lowest]))
    depth = session.tops["bid_depth_lots"]
    at_signal = depth[session.signal_sequence - 2]
    later = slice(session.signal_sequence, session.close_sequence - 1)
    empty = np.flatnonzero(depth[later] < _EXHAUSTED_SHARE * at_signal)
    exhausted_ns = session.tops["time_ns"][later][empty[0]] - session.signal_ns if len(empty) else None
    return {
        "reference_ticks": reference,
        "drawdown_bps": round(fall / reference * _BPS, 2),
        "trough_ms": round((int(after["time_ns"][lowest]) - session.signal_ns) / MS, 3),
        "exhausted_ms": None if exhausted_ns is None else round(int(exhausted_ns) / MS, 3),
    }


def _stampede(session: Session) -> dict[str, Any]:
    """How many started to leave, and over how long their first exit orders arrived (first → last)."""
    exits = session.commands[np.isin(session.commands["rule"], (Rule.EXIT, Rule.EXIT_OVERDUE))]
    if not len(exits) or session.signal_ns is None:
        return {"agents_exiting": 0, "stampede_first_ms": None, "stampede_last_ms": None}
    _, first = np.unique(exits["account"], return_index=True)
    arrivals = exits["received_ns"][first]
    return {
        "agents_exiting": len(first),
        "stampede_first_ms": round((int(arrivals.min()) - session.signal_ns) / MS, 3),
        "stampede_last_ms": round((int(arrivals.max()) - session.signal_ns) / MS, 3),
    }


def _window_extremes(session: Session) -> dict[str, int | None]:
    """What a breaker would have seen: most lots sold aggressively within 100 ms, largest fall within 1 s, in bps.

    A breaker is set from these of a run that it must not stop (`--breaker off`).
    """
    fills = session.fills
    if not len(fills):
        return {"most_sold_lots_100ms": None, "largest_fall_bps_1s": None}
    times, prices = fills["time_ns"], fills["price_ticks"]
    sold = np.cumsum(np.where(fills["side"] == _SELL, fills["quantity_lots"], 0))
    before = np.searchsorted(times, times - _SELL_WINDOW_NS, side="right")
    within = sold - np.concatenate([[0], sold])[before]
    first = np.searchsorted(times, times - _PRICE_WINDOW_NS, side="left")
    largest = 0.0
    high: list[int] = []  # positions of falling prices: the front is the window's high
    head = 0
    for at, price in enumerate(prices.tolist()):
        while len(high) > head and prices[high[-1]] <= price:
            high.pop()
        high.append(at)
        while high[head] < first[at]:
            head += 1
        largest = max(largest, 1 - price / int(prices[high[head]]))
    return {"most_sold_lots_100ms": int(within.max()), "largest_fall_bps_1s": round(largest * _BPS)}


def _trip(session: Session, rows: Array, timings: Array) -> dict[str, Any]:
    """The breaker's verdict. trip_to_last_notified_ms: receipt of the triggering command → the last agent has read the
    notice; None if any agent that was alive has not. trades_after_trip: fills of the instrument after the halt."""
    halts = np.flatnonzero(session.events["kind"] == EventKind.INSTRUMENT_HALTED)
    if not len(halts):
        return {"trip": None, "trades_after_trip": None, "agents_notified": None, "trip_to_last_notified_ms": None}
    halt = session.events[halts[0]]
    sequence = int(halt["sequence"])
    timed = sequence <= len(timings)
    heard = rows["halt_heard_ns"][rows["halt_heard_ns"] > 0]
    deaf = int((rows["ready_ns"] > 0).sum()) - len(heard)
    last_ms = (int(heard.max()) - int(halt["time_ns"])) / MS if len(heard) and not deaf else None
    return {
        "trip": {
            "trigger": Trigger(int(halt["reason"])).name,
            "observed": int(halt["value"]),
            "threshold": int(halt["threshold"]),
            "window_ns": int(halt["window_ns"]),
            "sequence": sequence,
            "received_ns": int(halt["time_ns"]),
            "matched_ns": int(timings["matched_ns"][sequence - 1]) if timed else None,
            "since_signal_ms": None
            if session.signal_ns is None
            else round((int(halt["time_ns"]) - session.signal_ns) / MS, 3),
        },
        "trades_after_trip": int((session.events["kind"][halts[0] + 1 :] == EventKind.ORDER_FILLED).sum()),
        "agents_notified": len(heard),
        "trip_to_last_notified_ms": None if last_ms is None else round(last_ms, 3),
    }


def _latencies(latency: pl.DataFrame, session: Session) -> dict[str, int | None]:
    """decision, transit and venue time, ns, over the whole session; transit once more before and after the signal."""
    parts = {name: latency[f"{name}_ns"] for name in ("decision", "transit", "venue")}
    if session.signal_ns is not None:
        calm = pl.col("received_ns") < session.signal_ns
        parts["transit_calm"] = latency.filter(calm)["transit_ns"]
        parts["transit_stampede"] = latency.filter(~calm)["transit_ns"]
    found: dict[str, int | None] = {}
    for name, values in parts.items():
        for label, quantile in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)):
            value = values.quantile(quantile, "nearest")
            found[f"{name}_ns_{label}"] = None if value is None else int(value)
    return found


def loss_table(session: Session) -> pl.DataFrame:
    """Who lost what, by kind of participant, in currency; positive is a loss.

    loss = what cash and shares were worth just before the signal (or the opening, without one) less what they are worth
    before the close, both at the mid of that moment (the last trade's price where a side is empty). A recorded day is
    left out: what its account was endowed with is nobody's.
    """
    start = session.signal_sequence or int(session.commands["sequence"][0]) + 1
    tick = session.scenario.instrument.tick_size
    opening = float(session.scenario.instrument.opening_ticks)
    first = session.mid_before(start) or opening
    last = session.mid_before(session.close_sequence) or first
    cash_0, lots_0 = session.holdings(start)
    cash_1, lots_1 = session.holdings(session.close_sequence)
    loss = ((cash_0 + lots_0 * first) - (cash_1 + lots_1 * last)) * tick
    after = session.fills[session.fills["sequence"] >= start]
    selling = after["side"] == _SELL
    sold, bought = np.zeros(len(loss), np.int64), np.zeros(len(loss), np.int64)
    np.add.at(sold, np.where(selling, after["account"], after["maker_account"]), after["quantity_lots"])
    np.add.at(bought, np.where(selling, after["maker_account"], after["account"]), after["quantity_lots"])
    frame = pl.DataFrame(
        {"participants": session.groups, "loss": loss, "positive": np.maximum(loss, 0), "sold": sold, "bought": bought}
    )
    frame = frame.filter(pl.col("participants") != RECORDING)
    return frame.group_by("participants", maintain_order=True).agg(
        pl.len().cast(pl.Int64).alias("agents"),
        pl.col("loss").sum(),
        pl.col("loss").mean().alias("loss_per_agent"),
        pl.col("sold").sum().alias("sold_lots"),
        pl.col("bought").sum().alias("bought_lots"),
        pl.col("loss").max().alias("worst_loss"),
        pl.col("positive").sum().alias("losers_loss"),
    )


def _total_loss(losses: pl.DataFrame) -> float:
    """The losses of all who lost, without what others gained."""
    return round(float(losses["losers_loss"].sum()), 2)


def _exit_costs(session: Session, rows: Array) -> dict[str, Any]:
    """What the exit cost all who left, against two yardsticks.

    exit_cost: implementation shortfall of everyone with a plan, against the mid just before the signal: Σ sold × (mid −
    price), and what could not be sold at that mid less the last one before the close. coordinated_cost: Almgren–Chriss
    for one planner who takes the same lots through the same book, as everyone saw it before the signal, evenly within
    the crowd's median horizon. planned_cost: the sum of what the agents expected, each alone. Both yardsticks count
    what the news takes off the price (news_cost) in full; those who sell before the market has moved pay less of it,
    so that a small crowd can do better than its plan. aar_ratio = exit_cost / coordinated_cost; illusion_ratio =
    exit_cost / planned_cost.
    """
    nothing: dict[str, Any] = dict.fromkeys(
        (
            "planned_lots",
            "sold_lots",
            "exit_cost",
            "news_cost",
            "coordinated_cost",
            "planned_cost",
            "aar_ratio",
            "illusion_ratio",
        )
    )
    leaving = np.flatnonzero(rows["planned_lots"] > 0)
    if not len(leaving) or session.signal_sequence is None:
        return nothing
    mid = session.mid_before(session.signal_sequence)
    last = session.mid_before(session.close_sequence)
    if mid is None or last is None:
        return nothing
    accounts = rows["agent_id"][leaving]
    after = session.fills[session.fills["sequence"] > session.signal_sequence]
    taker = after[(after["side"] == _SELL) & np.isin(after["account"], accounts)]
    maker = after[(after["side"] != _SELL) & np.isin(after["maker_account"], accounts)]
    sells = np.concatenate([taker, maker])
    planned_lots = int(rows["planned_lots"][leaving].sum())
    sold = int(sells["quantity_lots"].sum())
    cost = float((sells["quantity_lots"] * (mid - sells["price_ticks"])).sum()) + (planned_lots - sold) * (mid - last)
    planned = float(rows["planned_cost"][leaving].sum())
    news = -session.scenario.signal.bps / _BPS * mid * planned_lots
    alone = _coordinated(session, planned_lots, mid)
    coordinated = None if alone is None else alone + news
    tick = session.scenario.instrument.tick_size
    return {
        "planned_lots": planned_lots,
        "sold_lots": sold,
        "exit_cost": round(cost * tick, 2),
        "news_cost": round(news * tick, 2),
        "coordinated_cost": None if coordinated is None else round(coordinated * tick, 2),
        "planned_cost": round(planned * tick, 2),
        "aar_ratio": round(cost / coordinated, 4) if coordinated and coordinated > 0 else None,
        "illusion_ratio": round(cost / planned, 4) if planned > 0 else None,
    }


def _coordinated(session: Session, lots: int, mid: float) -> float | None:
    """The planner's cost by the crowd's own beliefs about the market; None if its strategy has no such beliefs."""
    assert session.signal_sequence is not None
    crowd = session.scenario.participants.get(CROWD)
    params = {name: (crowd.params if crowd else {}).get(name) for name in _BELIEFS}
    if None in params.values():
        return None
    top = session.tops[session.signal_sequence - 2]
    seen = None
    if top["bid_lots"] and top["ask_lots"]:
        seen = TopOfBook(
            kind=MessageKind.SLOW_TOP_OF_BOOK,
            instrument=0,
            number=0,
            phase=Phase.CONTINUOUS,
            last_ticks=0,
            volume_lots=0,
            **{name: int(top[name]) for name in TOP.names or ()},
        )
    horizon_s, steps = float(params["horizon_s"]), int(params["steps"])  # type: ignore[arg-type]
    impact = book_impact(
        seen,
        mid,
        float(params["permanent_share"]),  # type: ignore[arg-type]
        float(params["recovery_s"]),  # type: ignore[arg-type]
        horizon_s / steps,
    )
    return coordinated_cost(lots, horizon_s, steps, impact)


class NotConserved(AssertionError):
    """An invariant of the market does not hold: a fault of this program, never of its user."""


def check_conservation(engine: Engine, events: Array) -> None:
    """Cash and shares sum to what was deposited, and every accepted order ended in exactly one final state.

    Raises: NotConserved.
    """
    deposited = int(events["quantity_lots"][events["kind"] == EventKind.CASH_DEPOSITED].sum())
    if int(engine.state.accounts["cash"].sum()) != deposited:
        raise NotConserved("cash was made or lost")
    shares = int(events["quantity_lots"][events["kind"] == EventKind.POSITION_DEPOSITED].sum())
    if int(engine.state.positions["quantity_lots"].sum()) != shares:
        raise NotConserved("shares were made or lost")
    accepted = events[events["kind"] == EventKind.ORDER_ACCEPTED]
    taken = events[np.isin(events["kind"], (EventKind.ORDER_FILLED, EventKind.ORDER_CANCELLED))]
    made = events[events["kind"] == EventKind.ORDER_FILLED]
    parts = pl.concat(
        [
            pl.DataFrame(
                {"account": accepted["account"], "order": accepted["order_id"], "lots": accepted["quantity_lots"]}
            ),
            pl.DataFrame({"account": taken["account"], "order": taken["order_id"], "lots": -taken["quantity_lots"]}),
            pl.DataFrame(
                {"account": made["maker_account"], "order": made["maker_order_id"], "lots": -made["quantity_lots"]}
            ),
        ]
    )
    left = parts.group_by("account", "order").agg(pl.col("lots").sum())["lots"].to_numpy()
    resting = sum(int(engine.resting(number)[:, 4].sum()) for number in range(len(engine.state.instruments)))
    if (left < 0).any() or left.sum() != resting:
        raise NotConserved("an order was filled or cancelled for more, or ended with less, than it asked for")
