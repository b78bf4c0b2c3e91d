"""What the design of a market is worth in a latency race: what snipers take, what investors pay, who earns it.

Each fill is valued at the *public value* of its moment: the opening price moved by all news that the venue had
published before that fill. So a figure means the same whether orders are matched as they come or in batches, where
races as messages define them (races/) hardly exist. Money in currency, spreads in bps of the value.

Owns these definitions. Needs the strategies' rules: SNIPE is a race's order, TRADE_AT_RANDOM an investor's.
"""

from typing import Any, NamedTuple

import numpy as np

from aar_swarm.agents.base import Rule
from aar_swarm.agents.news_maker import NewsMaker
from aar_swarm.agents.public_value import path
from aar_swarm.agents.sniper import Sniper
from aar_swarm.analysis.session import BPS, MAIN, Session
from exchange.state import Array
from exchange.types import CommandKind, EventKind, Side

_BUY = int(Side.BUY)


class Legs(NamedTuple):
    """Each fill after the signal twice: once for each of its two accounts. Arrays of one length; leg i and leg i + n
    are one fill."""

    account: Array
    other: Array
    rule: Array
    """Of the order that was filled."""
    other_rule: Array
    value_ticks: Array
    """Public value when it was filled."""
    price_ticks: Array
    lots: Array
    gain: Array
    """Minor units: (value − price) · lots of who bought, the reverse of who sold. Sums to 0 over a fill."""


def values_at(session: Session, sequences: Array) -> Array:
    """float64: the public value at each of these commands, in ticks."""
    news = session.events[session.events["kind"] == EventKind.SIGNAL_PUBLISHED]
    news = news[news["instrument"] == MAIN]
    values = np.array(path(session.scenario.instrument.opening_ticks, news["value"].tolist()))
    found: Array = values[np.searchsorted(news["sequence"], sequences, "right")]
    return found


def legs_of(session: Session) -> Legs:
    fills = session.after_signal(session.fills)
    values = values_at(session, fills["sequence"])
    gain = np.where(fills["side"] == _BUY, 1, -1) * (values - fills["price_ticks"]) * fills["quantity_lots"]
    rules = _rules(session)
    first = _looked_up(rules, fills["account"], fills["order_id"])
    second = _looked_up(rules, fills["maker_account"], fills["maker_order_id"])
    return Legs(
        account=np.concatenate([fills["account"], fills["maker_account"]]),
        other=np.concatenate([fills["maker_account"], fills["account"]]),
        rule=np.concatenate([first, second]),
        other_rule=np.concatenate([second, first]),
        value_ticks=np.tile(values, 2),
        price_ticks=np.tile(fills["price_ticks"], 2),
        lots=np.tile(fills["quantity_lots"], 2),
        gain=np.concatenate([gain, -gain]) * session.multiplier,
    )


def _rules(session: Session) -> dict[tuple[int, int], int]:
    """By (account, order id): the rule that decided on it."""
    placed = session.commands[np.isin(session.commands["kind"], (CommandKind.PLACE_ORDER, CommandKind.REPLACE_ORDER))]
    keys = zip(placed["account"].tolist(), placed["order_id"].tolist(), strict=True)
    return dict(zip(keys, placed["rule"].tolist(), strict=True))


def _looked_up(rules: dict[tuple[int, int], int], accounts: Array, orders: Array) -> Array:
    named = zip(accounts.tolist(), orders.tolist(), strict=True)
    return np.array([rules.get(each, int(Rule.NONE)) for each in named], np.int64)


def scenario_measures(session: Session, rows: Array) -> dict[str, Any]:
    """From the signal to the close, name → value. rows: the scoreboard, not needed here.

    snipers_tax_bps: what SNIPE orders gained, over the value traded. snipe_share: their share of the lots traded.
    effective_spread_bps: twice what investors paid a lot beyond the value, by lots. quoted_spread_bps: ask − bid over
    their middle, by time, while both are there and do not cross; quoted_share: how much of the time that is.
    makers_sniped_bps, makers_earned_bps: what makers lost to SNIPE orders and gained otherwise, over the value traded;
    makers_net_bps: both. profit_GROUP: what that group's fills gained, currency; they sum to 0 over all.
    snipes_GROUP: its share of what SNIPE orders bought and sold.
    """
    if session.signal_sequence is None:
        return {}
    legs = legs_of(session)
    names = [name for name in session.scenario.participants if name in session.groups]
    member = {name: np.isin(legs.account, np.flatnonzero(session.groups == name)) for name in names}
    makers = _members(session, member, f"{NewsMaker.__module__}:{NewsMaker.__name__}", legs)
    snipes = legs.rule == Rule.SNIPE
    sniped = legs.other_rule == Rule.SNIPE
    investors = legs.rule == Rule.TRADE_AT_RANDOM
    half = len(legs.lots) // 2
    traded = float((legs.price_ticks * legs.lots)[:half].sum()) * session.multiplier
    news = session.events[session.events["kind"] == EventKind.SIGNAL_PUBLISHED]
    found: dict[str, Any] = {
        "news": int((news["value"] != 0).sum()),
        "lots_traded": int(legs.lots[:half].sum()),
        "snipers_tax_bps": _bps(legs.gain[snipes].sum(), traded),
        "snipe_share": _ratio(int(legs.lots[snipes].sum()), int(legs.lots[:half].sum())),
        "effective_spread_bps": _effective(legs, investors),
        **_quoted(session),
        "makers_sniped_bps": _bps(legs.gain[makers & sniped].sum(), traded),
        "makers_earned_bps": _bps(legs.gain[makers & ~sniped].sum(), traded),
        "makers_net_bps": _bps(legs.gain[makers].sum(), traded),
    }
    for name, mine in member.items():
        found[f"profit_{name}"] = round(float(legs.gain[mine].sum()) * session.tick_size, 2)
    lots = int(legs.lots[snipes].sum())
    sniper = f"{Sniper.__module__}:{Sniper.__name__}"
    for name, mine in member.items():
        if session.scenario.participants[name].strategy == sniper:
            found[f"snipes_{name}"] = _ratio(int(legs.lots[mine & snipes].sum()), lots)
    return found


def _members(session: Session, member: dict[str, Array], strategy: str, legs: Legs) -> Array:
    found = np.zeros(len(legs.account), bool)
    for name, mine in member.items():
        if session.scenario.participants[name].strategy == strategy:
            found |= mine
    return found


def _effective(legs: Legs, investors: Array) -> float | None:
    """2 · Σ (what an investor paid beyond the value, of the value) · lots / Σ lots, in bps."""
    lots = legs.lots[investors]
    if not lots.sum():
        return None
    paid = -legs.gain[investors] / legs.value_ticks[investors]
    return round(2 * float(paid.sum()) / float(lots.sum()) * BPS, 4)


def _quoted(session: Session) -> dict[str, float | None]:
    first, last = session.signal_sequence, session.close_sequence
    assert first is not None
    tops = session.tops[first - 1 : last]
    spans = np.diff(tops["time_ns"])
    tops = tops[: len(spans)]
    both = (tops["bid_lots"] > 0) & (tops["ask_lots"] > 0) & (tops["bid_ticks"] < tops["ask_ticks"])
    spread = (tops["ask_ticks"] - tops["bid_ticks"]) / ((tops["ask_ticks"] + tops["bid_ticks"]) / 2)
    quoted_ns = float(spans[both].sum())
    mean = float((spread[both] * spans[both]).sum()) / quoted_ns * BPS if quoted_ns else None
    return {
        "quoted_spread_bps": None if mean is None else round(mean, 4),
        "quoted_share": _ratio(quoted_ns, float(spans.sum())),
    }


def _bps(part: float, whole: float) -> float | None:
    return round(float(part) / whole * BPS, 4) if whole else None


def _ratio(part: float, whole: float) -> float | None:
    return round(part / whole, 6) if whole else None
