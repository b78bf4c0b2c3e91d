"""Who lost what: by class, by leverage and by speed. Money in currency; positive is a loss.

A participant's loss is its net worth just before the signal (or the opening, without one) less that before the close:
cash + lots at the mid + stablecoin lots at its mid + collateral at the mid − debt at the stablecoin's mid; a mid is the
last trade's price while a side is empty. The account of a recorded day is left out: what it was endowed with is
nobody's. So are the venue's own accounts: see insurance_fund_used and bad_debt.
"""

import numpy as np
import polars as pl

from aar_swarm.analysis.ledger import sellers_and_buyers
from aar_swarm.analysis.session import CROWD, RECORDING, Session

_LEVERAGES = ((0.0, "0"), (2.0, "1–2"), (3.0, "2–3"), (5.0, "3–5"), (10.0, "5–10"), (float("inf"), "> 10"))
"""Upper ends, each in its bucket."""
_SPEEDS = ("first quarter", "second quarter", "third quarter", "last quarter")
_SENT_NOTHING = "sent nothing"


def loss_table(session: Session) -> pl.DataFrame:
    """losses.parquet, one row a class of participants: agents, loss (the net of all), loss_per_agent, sold_lots and
    bought_lots of the main instrument after the signal (liquidated lots too), worst_loss (of one), losers_loss (of
    those who lost, without what others of the class gained)."""
    after = session.transfers[session.transfers["sequence"] >= session.start_sequence]
    accounts = len(session.groups) + session.config.system_accounts
    sold, bought = np.zeros(accounts, np.int64), np.zeros(accounts, np.int64)
    sellers, buyers = sellers_and_buyers(after)
    np.add.at(sold, sellers, after["quantity_lots"])
    np.add.at(bought, buyers, after["quantity_lots"])
    frame = pl.DataFrame(
        {
            "participants": session.groups,
            "loss": session.losses,
            "positive": np.maximum(session.losses, 0),
            "sold": sold[: len(session.groups)],
            "bought": bought[: len(session.groups)],
        }
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


def loss_totals(losses: pl.DataFrame) -> dict[str, float | None]:
    """loss_total: the losses of all who lost, without what others gained. loss_crowd: the net of the group "crowd"."""
    crowd = losses.filter(pl.col("participants") == CROWD)
    return {
        "loss_total": round(float(losses["losers_loss"].sum()), 2),
        "loss_crowd": round(float(crowd["loss"][0]), 2) if len(crowd) else None,
    }


def losers_table(session: Session) -> pl.DataFrame:
    """losers.parquet, one row a (dimension, bucket): agents, loss (net), loss_per_agent, share_losing (of its agents,
    the share with a loss above 0). Each dimension divides all participants, so that its losses add up to the same.

    class: the participants' group. leverage: value over equity at the beginning; 0 is a cash account, "1–2" has 2 in it
    (left out if no leverages are known). speed: quarters, in equal numbers, of the order in which each one's first
    command after the signal arrived at the venue, so by decision and transit time together; "sent nothing" are the
    others. For participants that act on a timer of their own and not on the news, that rank is chance.
    """
    buckets: dict[str, list[str]] = {"class": [str(group) for group in session.groups]}
    orders = {"class": list(dict.fromkeys(buckets["class"])), "leverage": [name for _, name in _LEVERAGES]}
    if session.leverages is not None:
        ends = [end for end, _ in _LEVERAGES]
        buckets["leverage"] = [_LEVERAGES[at][1] for at in np.searchsorted(ends, session.leverages, side="left")]
    if session.signal_sequence is not None:
        speeds = [_SENT_NOTHING] * len(session.groups)
        for name, accounts in zip(_SPEEDS, np.array_split(session.arrivals, len(_SPEEDS)), strict=True):
            for account in accounts.tolist():
                speeds[account] = name
        buckets["speed"] = speeds
        orders["speed"] = [*_SPEEDS, _SENT_NOTHING]
    mine = session.groups != RECORDING
    parts = []
    for dimension, names in buckets.items():
        frame = pl.DataFrame({"bucket": names, "loss": session.losses}).filter(pl.Series(mine))
        found = frame.group_by("bucket").agg(
            pl.len().cast(pl.Int64).alias("agents"),
            pl.col("loss").sum(),
            pl.col("loss").mean().alias("loss_per_agent"),
            (pl.col("loss") > 0).mean().alias("share_losing"),
        )
        ranks = {name: at for at, name in enumerate(orders[dimension])}
        found = found.sort(pl.col("bucket").replace_strict(ranks, return_dtype=pl.Int64))
        parts.append(found.select(pl.lit(dimension).alias("dimension"), pl.all()))
    return pl.concat(parts)
