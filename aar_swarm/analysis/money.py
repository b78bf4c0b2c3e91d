"""Measures of money that ran out: margin accounts, loans, the insurance fund and the stablecoin (docs/money.md).

Money in currency. What the venue does not have is null, never 0.
"""

from typing import Any

import numpy as np

from aar_swarm.analysis.ledger import is_kind
from aar_swarm.analysis.session import Session, most_within
from exchange.clock import MS
from exchange.state import Array
from exchange.types import CommandKind, EventKind, Reason, SystemAccount


def liquidations(session: Session) -> dict[str, Any]:
    """Counts of events of the whole session, and the fullest millisecond: any window of 1 ms, (t − 1 ms, t], not bins.

    margin_calls, liquidations: margin accounts called, and liquidations begun (one account can be liquidated twice).
    taken_over, deleveraged: how often the insurance fund took a position over, and how often a counterparty's was
    closed. loan_liquidations: of loans, carried out; loan_liquidation_attempts: the commands for it, lost races too.
    liquidations_per_ms_peak: liquidations begun and loans liquidated. liquidation_notional_per_ms_peak: value of
    what went off margin accounts by liquidation (fills, take-overs, deleveraging) and of the collateral taken from
    loans. The fund's own later sales do not count: they would count the same lots twice.
    """
    events, config = session.events, session.config
    on_margin, on_loan = config.margin is not None, config.lending is not None

    def count(applies: bool, kind: EventKind) -> int | None:
        return int(is_kind(events, kind).sum()) if applies else None

    attempts = int((session.commands["kind"] == CommandKind.LIQUIDATE).sum())
    begun = events[is_kind(events, EventKind.LIQUIDATION_STARTED, EventKind.LOAN_LIQUIDATED)]
    gone, values = liquidated_values(session)
    some = on_margin or on_loan
    peak = most_within(begun["time_ns"], np.ones(len(begun), np.int64), MS)
    notional_peak = most_within(gone["time_ns"], values, MS) * session.tick_size
    return {
        "margin_calls": count(on_margin, EventKind.MARGIN_CALLED),
        "liquidations": count(on_margin, EventKind.LIQUIDATION_STARTED),
        "taken_over": count(on_margin, EventKind.POSITION_TAKEN_OVER),
        "deleveraged": count(on_margin, EventKind.DELEVERAGED),
        "loan_liquidations": count(on_loan, EventKind.LOAN_LIQUIDATED),
        "loan_liquidation_attempts": attempts if on_loan else None,
        "liquidations_per_ms_peak": peak if some else None,
        "liquidation_notional_per_ms_peak": round(notional_peak, 2) if some else None,
    }


def liquidated_values(session: Session) -> tuple[Array, Array]:
    """The events by which liquidated lots went, and what each went for, int64 minor units."""
    events = session.events
    filled = is_kind(events, EventKind.ORDER_FILLED) & (events["reason"] == Reason.LIQUIDATION)
    moved = is_kind(events, EventKind.POSITION_TAKEN_OVER, EventKind.DELEVERAGED)
    seized = is_kind(events, EventKind.LOAN_LIQUIDATED)
    gone = events[filled | moved | seized]
    multipliers = np.array([instrument.multiplier for instrument in session.config.instruments], np.int64)
    by_price = gone["price_ticks"] * gone["quantity_lots"] * multipliers[gone["instrument"]]
    by_oracle = gone["price_ticks"] * gone["leaves_lots"]  # price_ticks has the multiplier in it
    return gone, np.where(gone["kind"] == EventKind.LOAN_LIQUIDATED, by_oracle, by_price)


def bad_debt(session: Session) -> dict[str, Any]:
    """bad_debt: what nobody could pay: of margin accounts, what was left of the deficits after the insurance fund had
    paid; of loans, debt without collateral at the price in force for debt. Null without margin accounts and loans.

    insurance_fund_used: what was deposited to the fund less what it is worth before the close, cash and lots at
    the mids: deficits paid and losses on positions taken over, less fees. Below 0: it gained. Null without margin.
    """
    events = session.events
    booked = events[is_kind(events, EventKind.BAD_DEBT_BOOKED)]
    margin, lending = session.config.margin, session.config.lending
    used = None
    if margin is not None:
        fund = session.config.accounts + SystemAccount.INSURANCE_FUND
        paid_in = events[is_kind(events, EventKind.CASH_DEPOSITED) & (events["account"] == fund)]["quantity_lots"].sum()
        used = (float(paid_in) - float(session.worth(session.close_sequence)[fund])) * session.tick_size
    return {
        "bad_debt": round(int(booked["value"].sum()) * session.tick_size, 2) if margin or lending else None,
        "insurance_fund_used": None if used is None else round(used, 2),
    }


def stablecoin(session: Session) -> dict[str, Any]:
    """redemptions, redemptions_refused: how often the issuer paid out, and how often it did not (reserves, rate, or the
    asker's own lots). coin_low_ticks: the lowest price at which the coin traded after the signal;
    coin_low_share_of_par: that over par. Null without a stablecoin; the prices also if it did not trade.
    """
    coin = session.config.stablecoin
    if coin is None:
        return dict.fromkeys(("redemptions", "redemptions_refused", "coin_low_ticks", "coin_low_share_of_par"))
    events = session.events
    refused = is_kind(events, EventKind.REQUEST_REJECTED) & (events["value"] == CommandKind.REDEEM)
    prices = session.after_signal(session.fills_of(coin.instrument))["price_ticks"]
    low = int(prices.min()) if len(prices) else None
    return {
        "redemptions": int(is_kind(events, EventKind.REDEEMED).sum()),
        "redemptions_refused": int(refused.sum()),
        "coin_low_ticks": low,
        "coin_low_share_of_par": None if low is None else round(low / coin.par_ticks, 4),
    }
