"""The flash crash's targets beside what a run gave. Each definition stands here, at the function that computes it.

Targets: SEC–CFTC report of 30 September 2010; Kirilenko, Kyle, Samadi, Tuzun, JF 72(3), 2017 (volume shares). Time is
scaled: a *minute* here is the seller's own look-back window (`program.window_ms`). Class names are those of the
scenario's participants; trend followers and value traders together are the opportunistic traders.
"""

from typing import Any

import numpy as np

from aar_swarm.agents.volume_seller import VolumeSeller
from aar_swarm.analysis.measures import Session
from exchange.clock import MS
from exchange.state import Array
from exchange.types import EventKind, Phase, Side

_BPS = 10_000
_SELL = int(Side.SELL)
PROGRAM_MINUTES, CRASH_MINUTES, BUSIEST_MINUTES = 20.0, 5.0, 14 / 60
HIGH_FREQUENCY = "high_frequency"
CLASSES = {
    HIGH_FREQUENCY: (HIGH_FREQUENCY,),
    "intermediaries": ("intermediaries",),
    "fundamental_buyers": ("fundamental_buyers", "bargain_hunters"),
    "fundamental_sellers": ("fundamental_sellers", "patient_sellers", "program"),
    "opportunistic": ("trend_followers", "arbitrageurs", "opportunistic"),
    "small": ("small",),
}
VOLUME_SHARES = {
    HIGH_FREQUENCY: 0.286,
    "intermediaries": 0.090,
    "fundamental_buyers": 0.120,
    "fundamental_sellers": 0.100,
    "opportunistic": 0.401,
    "small": 0.0025,
}
"""Kirilenko et al., from memory: of volume, each trade counted for its buyer and its seller."""


def scenario_measures(session: Session, rows: Array) -> dict[str, Any]:
    """Name → value; a name with `_target` has what happened in 2010. rows: the scoreboard, not needed here.

    None where it does not apply: without a signal, a seller or trades.
    """
    seller = _seller(session)
    if seller is None or session.signal_ns is None or session.signal_sequence is None:
        return {}
    minute_ns = float(session.scenario.participants[seller].params["window_ms"]) * MS
    start, end = session.signal_ns, session.signal_ns + PROGRAM_MINUTES * minute_ns
    after = session.fills[session.fills["sequence"] > session.signal_sequence]
    program = after[after["time_ns"] <= end]
    reference = session.mid_before(session.signal_sequence)
    if not len(program) or reference is None:
        return {}
    low_ns = int(program["time_ns"][int(np.argmin(program["price_ticks"]))])
    busiest = _busiest(program, BUSIEST_MINUTES * minute_ns)
    return {
        "scaled_minute_ms": minute_ns / MS,
        "volume_lots": int(program["quantity_lots"].sum()),
        **_participation(session, seller, program, start, minute_ns),
        **_potato(session, "busiest", busiest, share_target=0.49, net_target=0.0074),
        **_potato(session, "crash", after[after["time_ns"] <= low_ns], share_target=0.33, net_target=2000 / 140_000),
        "volume_busiest_over_mean": _rate_ratio(busiest, program, BUSIEST_MINUTES / PROGRAM_MINUTES),
        "drop_bps": round(_largest_fall(program, CRASH_MINUTES * minute_ns) * _BPS, 1),
        "drop_bps_target": 500,
        "low_minutes": round((low_ns - start) / minute_ns, 2),
        "low_minutes_target": 13.5,
        **_depth(session, end),
        **_pause(session, after, len(program), reference, minute_ns),
        **_shares(session, program),
    }


def _seller(session: Session) -> str | None:
    name = f"{VolumeSeller.__module__}:{VolumeSeller.__name__}"
    found = [group for group, members in session.scenario.participants.items() if members.strategy == name]
    return found[0] if found and found[0] in session.groups else None


def _traded(session: Session, fills: Array, groups: tuple[str, ...]) -> tuple[int, int]:
    """(lots bought, lots sold) by the accounts of these groups."""
    member = np.append(np.isin(session.groups, groups), False)  # −1 and the venue's own accounts: nobody
    last = len(member) - 1
    taker = member[np.minimum(fills["account"], last)]
    maker = member[np.minimum(fills["maker_account"], last)]
    selling = fills["side"] == _SELL
    lots = fills["quantity_lots"]
    bought = int(lots[taker & ~selling].sum() + lots[maker & selling].sum())
    return bought, int(lots[taker & selling].sum() + lots[maker & ~selling].sum())


def _participation(session: Session, seller: str, program: Array, start: int, minute_ns: float) -> dict[str, Any]:
    """participation: the seller's lots over the market's, in the 20 minutes after the signal. participation_active:
    the same until its last fill, if it was done sooner. program_minutes: how long it took. sold_share: of its lots."""
    sold = _traded(session, program, (seller,))[1]
    account = int(np.flatnonzero(session.groups == seller)[0])
    mine = program[(program["account"] == account) | (program["maker_account"] == account)]
    last_ns = int(mine["time_ns"][-1]) if len(mine) else None
    active = program[program["time_ns"] <= last_ns] if last_ns is not None else program[:0]
    volume = int(active["quantity_lots"].sum())
    planned = session.scenario.participants[seller].shares
    return {
        "participation": round(sold / int(program["quantity_lots"].sum()), 4),
        "participation_active": round(sold / volume, 4) if volume else None,
        "participation_target": round(75_000 / 844_513, 4),
        "program_minutes": None if last_ns is None else round((last_ns - start) / minute_ns, 2),
        "program_minutes_target": PROGRAM_MINUTES,
        "program_sold_share": round(sold / planned, 4) if planned else None,
    }


def _busiest(fills: Array, window_ns: float) -> Array:
    """The fills of the window of this length, ending at a fill, in which most lots were traded."""
    times = fills["time_ns"]
    traded = np.concatenate([[0], np.cumsum(fills["quantity_lots"])])
    first = np.searchsorted(times, times - window_ns, side="right")
    last = int(np.argmax(traded[1:] - traded[first]))
    return fills[first[last] : last + 1]


def _potato(session: Session, name: str, fills: Array, share_target: float, net_target: float) -> dict[str, Any]:
    """hft_share: lots bought and sold by high-frequency traders over those of everyone. hft_net_over_gross: |bought −
    sold| / (bought + sold): near 0 they pass lots to one another. In the busiest 14 scaled seconds, and in the crash
    (signal → lowest trade); the record's second pair is of 14:41–14:44."""
    bought, sold = _traded(session, fills, CLASSES[HIGH_FREQUENCY])
    gross, volume = bought + sold, int(fills["quantity_lots"].sum())
    return {
        f"hft_share_{name}": round(gross / (2 * volume), 4) if volume else None,
        f"hft_share_{name}_target": share_target,
        f"hft_net_over_gross_{name}": round(abs(bought - sold) / gross, 4) if gross else None,
        f"hft_net_over_gross_{name}_target": round(net_target, 4),
    }


def _rate_ratio(busiest: Array, program: Array, time_share: float) -> float:
    """Trading in the busiest window over its mean."""
    return round(float(busiest["quantity_lots"].sum() / (program["quantity_lots"].sum() * time_share)), 2)


def _largest_fall(fills: Array, window_ns: float) -> float:
    """The largest fall of the trade price from an earlier one within the window, as a share."""
    times, prices = fills["time_ns"], fills["price_ticks"].tolist()
    first = np.searchsorted(times, times - window_ns, side="left")
    largest, head = 0.0, 0
    highs: list[int] = []  # positions of falling prices: the front is the window's high
    for at, price in enumerate(prices):
        while len(highs) > head and prices[highs[-1]] <= price:
            highs.pop()
        highs.append(at)
        while highs[head] < first[at]:
            head += 1
        largest = max(largest, 1 - price / prices[highs[head]])
    return largest


def _depth(session: Session, end_ns: float) -> dict[str, Any]:
    """depth_low_share: least bid depth within 1 % of the mid in the 20 minutes, over that at the signal. The record's
    1 % is against that morning's depth."""
    assert session.signal_sequence is not None and session.signal_ns is not None
    tops = session.tops
    later = tops[session.signal_sequence : session.close_sequence - 1]
    later = later[later["time_ns"] <= end_ns]
    usual = int(tops["bid_depth_lots"][session.signal_sequence - 2])
    low = int(later["bid_depth_lots"].min()) if len(later) else None
    return {
        "depth_before_lots": usual,
        "depth_low_lots": low,
        "depth_low_share": round(low / usual, 4) if low is not None and usual else None,
        "depth_low_share_target": 0.01,
    }


def _pause(session: Session, after: Array, within: int, reference: float, minute_ns: float) -> dict[str, Any]:
    """within: how many of the fills are of the 20 minutes, in which the lowest is sought.

    fall_before_pause: share of the fall (mid before the signal → lowest trade) that had happened at the last trade
    before the first halt below that mid; fall_after_pause is the rest. rebound_after_pause: how far the last trade
    within five minutes after it was above the lowest, as a share of that fall; rebound: the same after the lowest.
    """
    prices = after["price_ticks"]
    low_at = int(np.argmin(prices[:within]))
    fall = reference - float(prices[low_at])
    if fall <= 0:
        return {"pauses": 0, "fall_bps": 0.0}
    halts = session.events[session.events["kind"] == EventKind.INSTRUMENT_HALTED]
    halts = halts[halts["time_ns"] >= session.signal_ns]
    five_later = after[after["time_ns"] <= after["time_ns"][low_at] + CRASH_MINUTES * minute_ns]
    found: dict[str, Any] = {
        "fall_bps": round(fall / reference * _BPS, 1),
        "rebound": round(float(five_later["price_ticks"][-1] - prices[low_at]) / fall, 3),
        "pauses": len(halts),
        "pauses_target": 1,
    }
    halts = halts[halts["price_ticks"] < reference]
    if not len(halts):
        return found
    halted_ns = int(halts["time_ns"][0])
    before = after[after["time_ns"] <= halted_ns]
    at_halt = float(before["price_ticks"][-1]) if len(before) else reference
    resumed = session.events[
        (session.events["kind"] == EventKind.PHASE_CHANGED)
        & (session.events["value"] == Phase.CONTINUOUS)
        & (session.events["time_ns"] > halted_ns)
    ]
    resumed_ns = int(resumed["time_ns"][0]) if len(resumed) else None
    later = after[(after["time_ns"] > halted_ns) & (after["time_ns"] <= halted_ns + CRASH_MINUTES * minute_ns)]
    return found | {
        "pause_minutes": round((halted_ns - int(session.signal_ns or 0)) / minute_ns, 2),
        "pause_minutes_target": 13.5,
        "pause_ms": None if resumed_ns is None else round((resumed_ns - halted_ns) / MS, 1),
        "pause_ms_target": round(5 / 60 * minute_ns / MS, 1),
        "fall_before_pause": round(min(1.0, max(0.0, (reference - at_halt) / fall)), 3),
        "fall_before_pause_target": 1.0,
        "fall_after_pause": round(min(1.0, max(0.0, (at_halt - float(prices[low_at])) / fall)), 3),
        "rebound_after_pause": round(float(later["price_ticks"][-1] - prices[low_at]) / fall, 3)
        if len(later)
        else None,
    }


def _shares(session: Session, program: Array) -> dict[str, Any]:
    """volume_share of each class over the 20 minutes: lots bought and sold by it over those of everyone."""
    twice = 2 * int(program["quantity_lots"].sum())
    found: dict[str, Any] = {}
    for name, groups in CLASSES.items():
        found[f"volume_share_{name}"] = round(sum(_traded(session, program, groups)) / twice, 4)
        found[f"volume_share_{name}_target"] = VOLUME_SHARES[name]
    return found
