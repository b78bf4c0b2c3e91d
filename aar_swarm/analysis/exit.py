"""Measures of the exit of those with a plan: what it cost against two yardsticks, and what being early was worth.

All of the main instrument. Inside: ticks × lots × multiplier, the minor unit; money in what is returned: currency.
"""

from typing import Any

import numpy as np
from scipy.stats import spearmanr

from aar_swarm.agents.base import Rule
from aar_swarm.agents.holder import book_impact
from aar_swarm.analysis.ledger import sellers_and_buyers
from aar_swarm.analysis.session import BPS, CROWD, MAIN, Session
from aar_swarm.analysis.tables import TOP
from aar_swarm.execution import coordinated_cost
from exchange.state import Array
from exchange.types import Phase
from exchange.wire import MessageKind, TopOfBook

_BELIEFS = ("horizon_s", "steps", "permanent_share", "recovery_s")
"""Settings of the crowd's strategy from which the coordinated exit is computed."""
LEAVING = (Rule.EXIT, Rule.EXIT_OVERDUE, Rule.LEAVE_EARLY, Rule.ANSWER_MARGIN_CALL)
_QUARTERS = 4


_WITHIN = {"stampede_p5_ms": 0.05, "stampede_p95_ms": 0.95}


def stampede(session: Session) -> dict[str, Any]:
    """agents_exiting: how many sent an order to leave (rules EXIT, EXIT_OVERDUE, LEAVE_EARLY, ANSWER_MARGIN_CALL), and
    stampede_first_ms, stampede_p5_ms, stampede_p95_ms, stampede_last_ms: signal → the first, a twentieth, all but a
    twentieth and the last of their first such orders arrived."""
    exits = session.commands[np.isin(session.commands["rule"], LEAVING)]
    if not len(exits) or session.signal_ns is None:
        return {"agents_exiting": 0, **dict.fromkeys(("stampede_first_ms", *_WITHIN, "stampede_last_ms"))}
    _, first = np.unique(exits["account"], return_index=True)
    arrivals = session.since_signal_ms(exits["received_ns"][first])
    return {
        "agents_exiting": len(first),
        "stampede_first_ms": round(float(arrivals.min()), 3),
        **{name: round(float(np.quantile(arrivals, q, method="nearest")), 3) for name, q in _WITHIN.items()},
        "stampede_last_ms": round(float(arrivals.max()), 3),
    }


class _Exit:
    """What everyone with a plan sold after the signal. Raises: ValueError: there is no plan, signal or price."""

    def __init__(self, session: Session, rows: Array) -> None:
        plans = rows[rows["planned_lots"] > 0]
        if not len(plans) or session.signal_sequence is None:
            raise ValueError("nobody has a plan, or there was no signal")
        mid, last = session.mid_before(session.signal_sequence), session.mid_before(session.close_sequence)
        if mid is None or last is None:
            raise ValueError("there was no price")
        self.mid, self.plans = mid, plans
        sales = session.after_signal(session.transfers)
        sellers, _ = sellers_and_buyers(sales)
        accounts = len(session.groups) + session.config.system_accounts
        sold, short = np.zeros(accounts, np.int64), np.zeros(accounts)
        np.add.at(sold, sellers, sales["quantity_lots"])
        np.add.at(short, sellers, sales["quantity_lots"] * (mid - sales["price_ticks"]))
        self.sold_lots = sold[plans["agent_id"]]
        unsold = plans["planned_lots"] - self.sold_lots
        self.costs = (short[plans["agent_id"]] + unsold * (mid - last)) * session.multiplier


def exit_costs(session: Session, rows: Array) -> dict[str, Any]:
    """What the exit cost all who left, against two yardsticks. rows: the agents' scoreboard.

    planned_lots, sold_lots: of everyone with a plan (planned_lots > 0 in the scoreboard): planned, and sold after the
    signal. exit_cost: their implementation shortfall against the mid just before the signal: Σ sold × (mid − price),
    and what could not be sold at that mid less the last one before the close. Sold is sold, whoever sold it: lots of
    theirs that the liquidation engine sold, that the insurance fund took over or that deleveraging closed count at the
    price at which they went. Of participants without a plan nothing counts here, also not what was liquidated: it
    burdens the exit only by the prices it leaves, and is in the losses.

    coordinated_cost: Almgren–Chriss for one planner who takes the same lots through the same book, as everyone saw it
    before the signal, evenly within the crowd's median horizon. planned_cost: the sum of what the agents expected, each
    alone. Both yardsticks count what the news takes off the price (news_cost: of a signal about this instrument) in
    full; those who sell before the market has moved pay less of it, so that a small crowd can do better than its plan.
    aar_ratio = exit_cost / coordinated_cost; illusion_ratio = exit_cost / planned_cost. All null if nobody has a plan;
    coordinated_cost and aar_ratio also if the crowd's strategy has no beliefs about horizon and refill.
    """
    keys = ("planned_lots", "sold_lots", "exit_cost", "news_cost", "coordinated_cost", "planned_cost")
    try:
        left = _Exit(session, rows)
    except ValueError:
        return dict.fromkeys((*keys, "aar_ratio", "illusion_ratio"))
    planned_lots = int(left.plans["planned_lots"].sum())
    cost, planned = float(left.costs.sum()), float(left.plans["planned_cost"].sum())
    about_it = session.signal_instrument == MAIN
    news = -session.scenario.signal.bps / BPS * left.mid * planned_lots * session.multiplier if about_it else 0.0
    alone = _coordinated(session, planned_lots, left.mid)
    coordinated = None if alone is None else alone * session.multiplier + news
    tick = session.tick_size
    return {
        "planned_lots": planned_lots,
        "sold_lots": int(left.sold_lots.sum()),
        "exit_cost": round(cost * tick, 2),
        "news_cost": round(news * tick, 2),
        "coordinated_cost": None if coordinated is None else round(coordinated * tick, 2),
        "planned_cost": round(planned * tick, 2),
        "aar_ratio": round(cost / coordinated, 4) if coordinated and coordinated > 0 else None,
        "illusion_ratio": round(cost / planned, 4) if planned > 0 else None,
    }


def early_price(session: Session, rows: Array) -> dict[str, Any]:
    """The price of not being early, among those with a plan.

    They are ranked by the arrival of each one's first command after the signal, and cut into four quarters of equal
    numbers (the first ones larger by one where it does not divide). shortfall of a quarter: its part of exit_cost (the
    unsold at the last mid) over its planned lots at the mid before the signal, in bps. early_shortfall_bps: those of
    the four quarters, first arrivals first; their sum, weighed by planned lots, is exit_cost if everybody with a plan
    sent something. early_price_bps: that of the last quarter less that of the first: what arriving last cost more.
    early_rank_correlation: Spearman's ρ of arrival rank and each one's own shortfall; null if all fell short by the
    same. All null with fewer than four.
    """
    nothing: dict[str, Any] = dict.fromkeys(("early_price_bps", "early_shortfall_bps", "early_rank_correlation"))
    try:
        left = _Exit(session, rows)
    except ValueError:
        return nothing
    place = {int(account): at for at, account in enumerate(left.plans["agent_id"])}
    order = np.array([place[account] for account in session.arrivals.tolist() if account in place], np.int64)
    if len(order) < _QUARTERS:
        return nothing
    costs = left.costs[order]
    values = left.plans["planned_lots"][order] * left.mid * session.multiplier
    quarters = np.array_split(np.arange(len(order)), _QUARTERS)
    shortfalls = [float(costs[part].sum() / values[part].sum() * BPS) for part in quarters]
    each = costs / values
    correlation = float(spearmanr(np.arange(len(each)), each).statistic) if np.ptp(each) > 0 else None
    return {
        "early_price_bps": round(shortfalls[-1] - shortfalls[0], 2),
        "early_shortfall_bps": [round(shortfall, 2) for shortfall in shortfalls],
        "early_rank_correlation": None if correlation is None else round(correlation, 4),
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
            instrument=MAIN,
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
