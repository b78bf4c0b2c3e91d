"""Measures of a liquidation cascade around a stablecoin: what came first, who won the races, who ran.

Everything is after the signal, times in ms since it. What did not happen is null; a count of it is 0.
"""

from typing import Any

import numpy as np

from aar_swarm.agents.base import Rule
from aar_swarm.analysis.ledger import is_kind
from aar_swarm.analysis.session import MAIN, Session
from exchange.clock import MS
from exchange.state import Array
from exchange.types import CommandKind, EventKind, Reason, SystemAccount


def scenario_measures(session: Session, rows: Array) -> dict[str, Any]:
    """The measures of defi-cascade. rows: the agents' scoreboard, which none of them needs."""
    return {**_chain(session), **_run(session), **_leaving(session), **_race(session)}


def _first_ms(session: Session, found: Array) -> float | None:
    times = found["received_ns"] if "received_ns" in (found.dtype.names or ()) else found["time_ns"]
    return round(float(session.since_signal_ms(times[:1])[0]), 3) if len(found) else None


def _rejected(events: Array, kind: CommandKind, *reasons: Reason) -> Array:
    mine = is_kind(events, EventKind.REQUEST_REJECTED) & (events["value"] == kind)
    return events[mine & np.isin(events["reason"], reasons)] if reasons else events[mine]


def _chain(session: Session) -> dict[str, Any]:
    """When each link of the chain first happened; asset_low_ms, coin_low_ms: the lowest trade of each book."""
    events, commands = session.after_signal(session.events), session.after_signal(session.commands)
    found: dict[str, Any] = {
        "first_redemption_ms": _first_ms(session, events[is_kind(events, EventKind.REDEEMED)]),
        "first_rate_refusal_ms": _first_ms(session, _rejected(events, CommandKind.REDEEM, Reason.REDEMPTION_RATE)),
        "reserves_exhausted_ms": _first_ms(session, _rejected(events, CommandKind.REDEEM, Reason.RESERVES_EXHAUSTED)),
        "first_early_leaver_ms": _first_ms(session, commands[commands["rule"] == Rule.LEAVE_EARLY]),
        "first_margin_call_ms": _first_ms(session, events[is_kind(events, EventKind.MARGIN_CALLED)]),
        "first_liquidation_ms": _first_ms(session, events[is_kind(events, EventKind.LIQUIDATION_STARTED)]),
        "first_loan_liquidation_ms": _first_ms(session, events[is_kind(events, EventKind.LOAN_LIQUIDATED)]),
    }
    for name, instrument in (("asset", MAIN), ("coin", session.coin)):
        fills = session.after_signal(session.fills_of(-1 if instrument is None else instrument))
        found[f"{name}_low_ms"] = _first_ms(session, fills[np.argsort(fills["price_ticks"], kind="stable")][:1])
    return found


def _run(session: Session) -> dict[str, Any]:
    """redeemed_lots, redeemers: coins that the issuer took back, and of how many. reserves_used: what it paid out over
    the cash that it had at the signal. coins_sold_lots: sold on the book by those who run (rule SELL_COIN).
    """
    if session.coin is None:
        return dict.fromkeys(("redeemed_lots", "redeemers", "reserves_used", "coins_sold_lots"))
    events, commands = session.after_signal(session.events), session.after_signal(session.commands)
    paid = events[is_kind(events, EventKind.REDEEMED)]
    issuer = session.config.accounts + SystemAccount.ISSUER
    reserves = int(session.holdings(session.start_sequence).cash[issuer])
    assert session.config.stablecoin is not None
    unit = session.config.stablecoin.par_ticks * session.config.instruments[session.coin].multiplier
    selling = commands[(commands["rule"] == Rule.SELL_COIN) & (commands["kind"] == CommandKind.PLACE_ORDER)]
    fills = session.after_signal(session.fills_of(session.coin))
    ours = np.isin(fills["sequence"], selling["sequence"])
    return {
        "redeemed_lots": int(paid["quantity_lots"].sum()),
        "redeemers": len(np.unique(paid["account"])),
        "reserves_used": round(int(paid["quantity_lots"].sum()) * unit / reserves, 4) if reserves else None,
        "coins_sold_lots": int(fills["quantity_lots"][ours].sum()),
    }


def _leaving(session: Session) -> dict[str, Any]:
    """left_early, answered_call: how many holders did; liquidated_accounts: each counted once, however often."""
    events, commands = session.after_signal(session.events), session.after_signal(session.commands)

    def senders(rule: Rule) -> int:
        return len(np.unique(commands["account"][commands["rule"] == rule]))

    begun = events[is_kind(events, EventKind.LIQUIDATION_STARTED)]
    return {
        "left_early": senders(Rule.LEAVE_EARLY),
        "answered_call": senders(Rule.ANSWER_MARGIN_CALL),
        "liquidated_accounts": len(np.unique(begun["account"])),
    }


def _race(session: Session) -> dict[str, Any]:
    """The liquidators' races for loans.

    race_attempts: LIQUIDATE commands; race_wins: those that liquidated; race_losses: refused, the loan being healthy or
    closed when they arrived. race_winners, race_runners: how many different liquidators won, and tried.
    oracle_to_win_ms _p50 and _max: from the latest ORACLE_UPDATED of the asset to each win. loans_closed: of the debt
    at the signal, what liquidators repaid; pool_bad_debt_lots: debt that was left without collateral. oracle_low_ticks:
    the asset's.
    """
    if session.config.lending is None:
        return {}
    events, commands = session.after_signal(session.events), session.after_signal(session.commands)
    tried = commands[commands["kind"] == CommandKind.LIQUIDATE]
    won = events[is_kind(events, EventKind.LOAN_LIQUIDATED)]
    lost = _rejected(events, CommandKind.LIQUIDATE, Reason.LOAN_HEALTHY, Reason.UNKNOWN_LOAN)
    spoken = session.events[is_kind(session.events, EventKind.ORACLE_UPDATED)]
    spoken = spoken[spoken["instrument"] == MAIN]
    before = np.searchsorted(spoken["sequence"], won["sequence"], side="right") - 1
    waits_ms = (won["time_ns"] - spoken["time_ns"][before]) / MS if len(won) else np.zeros(0)
    debt = int(session.holdings(session.start_sequence).debt.sum())
    booked = events[is_kind(events, EventKind.BAD_DEBT_BOOKED)]
    later = session.after_signal(spoken)["price_ticks"]
    return {
        "race_attempts": len(tried),
        "race_wins": len(won),
        "race_losses": len(lost),
        "race_runners": len(np.unique(tried["account"])),
        "race_winners": len(np.unique(won["account"])),
        "oracle_to_win_ms_p50": round(float(np.median(waits_ms)), 3) if len(won) else None,
        "oracle_to_win_ms_max": round(float(waits_ms.max()), 3) if len(won) else None,
        "loans_closed": round(int(won["quantity_lots"].sum()) / debt, 4) if debt else None,
        "pool_bad_debt_lots": int(booked["quantity_lots"][booked["instrument"] == session.coin].sum()),
        "oracle_low_ticks": int(later.min()) if len(later) else None,
    }
