"""Who has what, followed from the events alone, and the proof that the engine's accounts say the same to the unit.

Owns the reading of every event that moves cash, lots or a loan (docs/money.md says what each moves). Knows nothing of
prices' worth, groups or signals.
"""

from typing import NamedTuple

import numpy as np
import polars as pl

from exchange.config import EngineConfig
from exchange.engine import Engine
from exchange.state import Array
from exchange.types import NOBODY, EventKind, Side, SystemAccount

TRANSFERS = (EventKind.ORDER_FILLED, EventKind.POSITION_TAKEN_OVER, EventKind.DELEVERAGED)
"""Events by which lots change hands at a price: `account` on `side`, `maker_account` on the other."""


class Holdings(NamedTuple):
    """Of A accounts (the participants', then the venue's own) and I instruments; below 0: owed.

    cash is in minor units; lots are what the account holds itself, without what it has given as collateral. collateral
    and debt are its loan's, in lots of the pool's two instruments.
    """

    cash: Array  # int64[A]
    lots: Array  # int64[A, I]
    collateral: Array  # int64[A]
    debt: Array  # int64[A]


def is_kind(events: Array, *kinds: EventKind) -> Array:
    """bool[len(events)]"""
    return np.isin(events["kind"], kinds)


def sellers_and_buyers(transfers: Array) -> tuple[Array, Array]:
    """Accounts of both sides of TRANSFERS events."""
    selling = transfers["side"] == Side.SELL
    return (
        np.where(selling, transfers["account"], transfers["maker_account"]),
        np.where(selling, transfers["maker_account"], transfers["account"]),
    )


def _add(to: Array, at: Array | int, amounts: Array) -> None:
    """Add amounts where they belong; an account that is named twice gets both."""
    np.add.at(to, np.broadcast_to(at, amounts.shape), amounts)


def follow(config: EngineConfig, events: Array) -> Holdings:
    """What everyone has after these events, which must begin with the venue's first."""
    accounts, instruments = config.accounts + config.system_accounts, len(config.instruments)
    multipliers = np.array([instrument.multiplier for instrument in config.instruments], np.int64)
    has = Holdings(
        np.zeros(accounts, np.int64),
        np.zeros((accounts, instruments), np.int64),
        np.zeros(accounts, np.int64),
        np.zeros(accounts, np.int64),
    )

    lots = has.lots.reshape(-1)  # the same memory

    def of(*kinds: EventKind) -> Array:
        return events[is_kind(events, *kinds)]

    def move_cash(giver: Array | int, taker: Array | int, amount: Array) -> None:
        _add(has.cash, giver, -amount)
        _add(has.cash, taker, amount)

    def move_lots(instrument: Array | int, giver: Array | int, taker: Array | int, quantity: Array) -> None:
        _add(lots, giver * instruments + instrument, -quantity)
        _add(lots, taker * instruments + instrument, quantity)

    def trade(instrument: Array, seller: Array | int, buyer: Array | int, found: Array) -> None:
        move_lots(instrument, seller, buyer, found["quantity_lots"])
        move_cash(buyer, seller, found["quantity_lots"] * found["price_ticks"] * multipliers[instrument])

    found = of(EventKind.CASH_DEPOSITED)
    _add(has.cash, found["account"], found["quantity_lots"])
    found = of(EventKind.CASH_WITHDRAWN)
    _add(has.cash, found["account"], -found["quantity_lots"])
    found = of(EventKind.POSITION_DEPOSITED)
    _add(lots, found["account"] * instruments + found["instrument"], found["quantity_lots"])
    found = of(*TRANSFERS)
    trade(found["instrument"], *sellers_and_buyers(found), found)
    if not config.system_accounts:
        return has

    fund, pool, issuer, deficit = (config.accounts + number for number in SystemAccount)
    found = of(EventKind.FEE_CHARGED)
    move_cash(found["account"], found["maker_account"], found["value"])
    found = of(EventKind.BAD_DEBT_BOOKED)
    margin = found[found["instrument"] == NOBODY]  # of a margin account: cash was short
    move_cash(deficit, margin["account"], margin["value"])
    move_cash(fund, margin["account"], margin["threshold"])
    written_off = found[found["instrument"] != NOBODY]  # of a loan: no collateral is left
    _add(has.debt, written_off["account"], -written_off["quantity_lots"])
    for kind, sign in ((EventKind.COLLATERAL_DEPOSITED, 1), (EventKind.COLLATERAL_WITHDRAWN, -1)):
        found = of(kind)
        move_lots(found["instrument"], found["account"], pool, sign * found["quantity_lots"])
        _add(has.collateral, found["account"], sign * found["quantity_lots"])
    for kind, sign in ((EventKind.BORROWED, 1), (EventKind.REPAID, -1)):
        found = of(kind)
        move_lots(found["instrument"], pool, found["account"], sign * found["quantity_lots"])
        _add(has.debt, found["account"], sign * found["quantity_lots"])
    if config.lending:
        found = of(EventKind.LOAN_LIQUIDATED)
        move_lots(config.lending.debt_instrument, found["account"], pool, found["quantity_lots"])
        move_lots(config.lending.collateral_instrument, pool, found["account"], found["leaves_lots"])
        _add(has.debt, found["maker_account"], -found["quantity_lots"])
        _add(has.collateral, found["maker_account"], -found["leaves_lots"])
    found = of(EventKind.REDEEMED)
    trade(found["instrument"], found["account"], issuer, found)
    found = of(EventKind.MINTED)
    trade(found["instrument"], issuer, found["account"], found)
    return has


class NotConserved(AssertionError):
    """An invariant of the market does not hold: a fault of this program, never of its user."""


def check_conservation(engine: Engine, events: Array) -> None:
    """The engine's accounts are what all its events sum up to, to the unit, and each order ended in one final state.

    Cash, lots of each instrument, collateral and debt of every account, the venue's own too. Every move in `follow`
    but a deposit, a withdrawal and a write-off takes from one account what it gives another, so that the sums are
    those of the deposits.

    Raises: NotConserved.
    """
    has = follow(engine.config, events)
    state = engine.state
    compared = [("cash", has.cash, state.accounts["cash"]), ("shares", has.lots, state.positions["quantity_lots"])]
    if engine.config.system_accounts:
        compared.append(("collateral", has.collateral, state.loans["collateral_lots"]))
        compared.append(("debt", has.debt, state.loans["debt_lots"]))
    for what, expected, found in compared:
        if wrong := np.argwhere(expected != found).tolist():
            at = tuple(wrong[0])
            raise NotConserved(
                f"{what} were made or lost: account {at[0]} has {found[at]} and by its events {expected[at]}"
            )
    _check_orders(engine, events)


def _check_orders(engine: Engine, events: Array) -> None:
    """What was asked for is what was filled, cancelled and still rests. A replacement closes the order's old name."""
    accepted, replaced = (
        events[is_kind(events, kind)] for kind in (EventKind.ORDER_ACCEPTED, EventKind.ORDER_REPLACED)
    )
    taken = events[is_kind(events, EventKind.ORDER_FILLED, EventKind.ORDER_CANCELLED)]
    taken = taken[taken["order_id"] != 0]  # the liquidation engine and the fund trade without an order
    made = events[is_kind(events, EventKind.ORDER_FILLED)]
    parts = pl.concat(
        pl.DataFrame({"account": found[account], "order": found[order], "lots": sign * found[lots]})
        for found, account, order, sign, lots in (
            (accepted, "account", "order_id", 1, "quantity_lots"),
            (replaced, "account", "order_id", 1, "leaves_lots"),
            (taken, "account", "order_id", -1, "quantity_lots"),
            (made, "maker_account", "maker_order_id", -1, "quantity_lots"),
        )
    )
    left = parts.group_by("account", "order").agg(pl.col("lots").sum())
    old_names = pl.DataFrame({"account": replaced["account"], "order": replaced["value"]})
    open_lots = left.join(old_names, on=["account", "order"], how="anti")["lots"].sum()
    resting = sum(int(engine.resting(number)[:, 4].sum()) for number in range(len(engine.state.instruments)))
    if (left["lots"] < 0).any() or open_lots != resting:
        raise NotConserved("an order was filled or cancelled for more, or ended with less, than it asked for")
