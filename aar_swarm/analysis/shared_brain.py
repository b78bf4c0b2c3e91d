"""The measures of shared-brain: boom, bust, how wrong the vendor was, how alike the vendors are, and whose funds lost.

Called through a scenario's `measures`; needs a [vendors] table. Prices are medians or extremes of mids on a grid of
SAMPLE_MS, so that no single trade through an empty book decides.
"""

from typing import Any

import numpy as np

from aar_swarm.analysis.session import Session
from aar_swarm.vendors.model import effective_models, effective_vendors
from aar_swarm.vendors.service import VendorWorld
from exchange.clock import MS, SECOND
from exchange.state import Array

_BPS = 10_000
SAMPLE_MS = 20
_BEFORE_S = 2.0
"""The price before the fault is the median of so long."""


def scenario_measures(session: Session, rows: Array) -> dict[str, Any]:
    """What the summary says of vendors; nothing for a scenario without.

    before_ticks: median mid of the 2 s before the fault; peak_ticks: highest mid between fault and discovery;
    boom_bps: peak over before. bust_bps: from the mid at the discovery down to the lowest mid after it;
    undershoot_bps: before to that lowest mid (below 0: it never fell so far). overvaluation_bps: what the faulty
    vendor's funds last heard before it withdrew over what they first heard, mean of the funds: measured from its
    recorded answers; model_overvaluation_bps: of its model and the fault. similarity: mean correlation of the models'
    errors over pairs of vendors, on a test set (null for one vendor). effective_vendors = 1 / HHI of the funds' counts;
    hhi in points of 10,000; effective_models = 1 / sum of w_i w_j rho_ij. vendors_faulty: whose valuations the fault
    reached. loss_by_vendor: of all its funds, from the discovery (the signal) to the close, at mids, in currency;
    loss_by_vendor_since_fault likewise from the fault.
    """
    settings = session.scenario.vendors
    if settings is None or session.opened_ns is None or settings.seed is None:
        return {}
    asked = rows["vendor"] - 1
    funds = [np.flatnonzero(asked == number) for number in range(settings.count)]
    shares = np.array([len(accounts) for accounts in funds]) / max(1, sum(map(len, funds)))
    world = VendorWorld(settings)
    correlations = world.correlations()
    count = settings.count
    pairs = (correlations.sum() - count) / (count * (count - 1)) if count > 1 else None
    faulty = [number for number in range(count) if world.is_faulty(number)]
    return {
        **_prices(session, settings.fault_at_s, settings.found_at_s),
        **_overvaluation(world, rows),
        "similarity": pairs,
        "effective_models": effective_models(shares, correlations),
        "effective_vendors": effective_vendors(shares),
        "hhi": float(_BPS * np.sum(shares**2)),
        "vendors_faulty": len(faulty),
        "share_of_funds_at_faulty_vendors": float(shares[faulty].sum()),
        "valuation_us_mean": _mean(rows["valuation_ns"].sum() / 1000, rows["valuations"].sum()),
        "loss_by_vendor": _losses(session, funds, session.start_sequence),
        "loss_by_vendor_since_fault": _losses(session, funds, _sequence_at(session, settings.fault_at_s)),
    }


def _prices(session: Session, fault_at_s: float, found_at_s: float) -> dict[str, float | None]:
    """The boom and the bust, from the mids."""
    times_s, mids = mid_path(session)

    def within(first_s: float, last_s: float) -> Array:
        chosen = mids[(times_s >= first_s) & (times_s < last_s)]
        return chosen[np.isfinite(chosen)]

    calm = within(max(0.0, fault_at_s - _BEFORE_S), fault_at_s)
    boom, bust = within(fault_at_s, found_at_s), within(found_at_s, np.inf)
    if not (len(calm) and len(boom) and len(bust)):
        return dict.fromkeys(("before_ticks", "peak_ticks", "boom_bps", "bust_bps", "undershoot_bps", "end_bps"))
    before, peak, found, low = float(np.median(calm)), float(boom.max()), float(boom[-1]), float(bust.min())
    return {
        "before_ticks": before,
        "peak_ticks": peak,
        "boom_bps": (peak / before - 1) * _BPS,
        "bust_bps": (1 - low / found) * _BPS,
        "undershoot_bps": (1 - low / before) * _BPS,
        "end_bps": (float(bust[-1]) / before - 1) * _BPS,
    }


def mid_path(session: Session) -> tuple[Array, Array]:
    """(seconds since the opening, mid in ticks; NaN while a side is empty) every SAMPLE_MS until the close."""
    assert session.opened_ns is not None
    tops = session.tops[: session.close_sequence]
    end_ns = int(tops["time_ns"][-1])
    grid = np.arange(session.opened_ns, end_ns, SAMPLE_MS * MS)
    at = np.searchsorted(tops["time_ns"], grid, side="right") - 1
    found = tops[at]
    whole = (found["bid_lots"] > 0) & (found["ask_lots"] > 0)
    mids = np.where(whole, (found["bid_ticks"] + found["ask_ticks"]) / 2, np.nan)
    return (grid - session.opened_ns) / SECOND, mids


def _overvaluation(world: VendorWorld, rows: Array) -> dict[str, float | None]:
    number = world.config.fault_vendor
    asking = rows[(rows["vendor"] == number + 1) & (rows["withdrawal_heard_ns"] > 0) & (rows["first_value_millis"] > 0)]
    measured = None
    if len(asking):
        measured = (float(asking["last_value_millis"].mean()) / float(asking["first_value_millis"].mean()) - 1) * _BPS
    return {"overvaluation_bps": measured, "model_overvaluation_bps": world.overvaluation_bps(number)}


def _sequence_at(session: Session, seconds: float) -> int:
    """Of the first command from this time after the opening on."""
    assert session.opened_ns is not None
    at = int(np.searchsorted(session.commands["received_ns"], session.opened_ns + int(seconds * SECOND)))
    return at + 1


def _losses(session: Session, funds: list[Array], start_sequence: int) -> list[float]:
    """Of each vendor's funds together: what they had then less what they have before the close, both at mids."""
    loss = (session.worth(start_sequence) - session.worth(session.close_sequence)) * session.tick_size
    return [round(float(loss[accounts].sum()), 2) for accounts in funds]


def _mean(total: float, count: int) -> float | None:
    return float(total / count) if count else None
