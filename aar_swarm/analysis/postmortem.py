"""The chain of a crash, from the first cause to the last loss: steps in time, decisions, moves, forced sales, losses.

Owns what is counted of a chain. Every definition, and which of them is a convention, is in docs/postmortem.md. Times in
ms since the first cause, prices in ticks, money in currency.
"""

from typing import Any

import numpy as np
import polars as pl

from aar_swarm.analysis.causes import Link, path_to
from aar_swarm.analysis.chain import RULES, Chain, describe, milestones, worths
from aar_swarm.analysis.session import BPS, MAIN, RECORDING
from exchange.clock import MS
from exchange.state import Array
from exchange.types import DECISION_COMMANDS, CommandKind, EventKind, Reason, Side

_TOP = 5
_GRID = 48
_ORDERS = (CommandKind.PLACE_ORDER, CommandKind.REPLACE_ORDER)
_WITHDRAWALS = (CommandKind.CANCEL_ORDER, CommandKind.MASS_CANCEL)


# ── the steps ────────────────────────────────────────────────────────────────────────────────────────────────────────


def steps(chain: Chain) -> tuple[list[dict[str, Any]], pl.DataFrame]:
    """The steps, and every account's loss in each (account, participants, step, loss)."""
    session = chain.session
    points = milestones(chain)
    bounds = [sequence for sequence, _ in points] + [session.close_sequence]
    lost = -np.diff(worths(session, bounds), axis=0)[:, : len(session.groups)] * session.tick_size
    found = []
    for number, (sequence, name) in enumerate(points):
        until = bounds[number + 1]
        group_losses = {
            group: round(float(lost[number][session.groups == group].sum()), 2)
            for group in dict.fromkeys(session.groups.tolist())
            if group != RECORDING
        }
        ordered = dict(sorted(group_losses.items(), key=lambda item: (item[0] != chain.subject, -item[1])))
        found.append(
            {
                "step": number + 1,
                "name": name,
                "sequence": sequence,
                "until_sequence": until,
                "from_ms": chain.ms(sequence),
                "to_ms": chain.ms(until),
                "from_ticks": chain.mid_before(sequence),
                "to_ticks": chain.mid_before(until),
                "decisions": _decisions_within(chain, sequence, until),
                "moved_by_ticks": _moved_by(chain, sequence, until),
                "orders_that_moved_it_most": top_orders(chain, sequence, until),
                **_forced(chain, sequence, until),
                "loss_subject": group_losses[chain.subject],
                "loss_by_participants": ordered,
            }
        )
    frame = pl.DataFrame(
        {
            "account": np.tile(np.arange(len(session.groups)), len(points)),
            "participants": session.groups.tolist() * len(points),
            "step": np.repeat(np.arange(1, len(points) + 1), len(session.groups)),
            "loss": lost.reshape(-1),
        }
    )
    return found, frame.filter(pl.col("participants") != RECORDING)


def _within(records: Array, sequence: int, until: int) -> Array:
    return records[(records["sequence"] >= sequence) & (records["sequence"] < until)]


def _decisions_within(chain: Chain, sequence: int, until: int) -> dict[str, Any]:
    """How many, of which rules, and how many links away from the first cause."""
    part = chain.session.commands[sequence - 1 : until - 1]
    mine = np.isin(part["kind"], DECISION_COMMANDS)
    depths = chain.causes.depth[sequence - 1 : until - 1][mine]
    rules, counts = np.unique(part["rule"][mine], return_counts=True)
    ordered = sorted(zip(counts.tolist(), rules.tolist(), strict=True), reverse=True)
    return {
        "commands": int(mine.sum()),
        "accounts": len(np.unique(part["account"][mine])),
        "of_the_first_cause": int((mine & chain.is_news[sequence - 1 : until - 1]).sum()),
        "by_rule": {RULES.get(rule, str(rule)): count for count, rule in ordered},
        "depth_median": float(np.median(depths)) if len(depths) else None,
        "depth_max": int(depths.max()) if len(depths) else None,
    }


def _moved_by(chain: Chain, sequence: int, until: int) -> dict[str, float]:
    """What moved the mid, ticks, by the kind of command; the parts add up to to_ticks − from_ticks."""
    part = chain.session.commands[sequence - 1 : until - 1]
    moved = chain.falls[sequence - 1 : until - 1]
    traded = np.zeros(len(part), bool)
    traded[_within(chain.session.fills, sequence, until)["sequence"] - sequence] = True
    forced = part["kind"] == CommandKind.REVALUE
    placed = np.isin(part["kind"], _ORDERS)
    withdrawn = np.isin(part["kind"], _WITHDRAWALS)
    parts = {
        "taking": placed & traded,
        "liquidation": forced,
        "withdrawing": withdrawn,
        "quoting": placed & ~traded,
        "other": ~(placed | forced | withdrawn),
    }
    return {name: round(float(moved[which].sum()), 1) for name, which in parts.items()}


def top_orders(chain: Chain, sequence: int, until: int) -> list[dict[str, Any]]:
    """The orders (or revaluations) that took the bids down furthest.

    walked_ticks: from the best bid before it to its worst fill. bid_lowered_ticks: from that bid to the best one after
    it (to the worst fill, if it left none): what it walked, and the gap that it opened.
    """
    session = chain.session
    fills = _within(session.fills, sequence, until)
    fills = fills[(fills["side"] == Side.SELL) & (fills["reason"] != Reason.AUCTION)]
    if not len(fills):
        return []
    frame = pl.DataFrame({name: fills[name] for name in ("sequence", "price_ticks", "quantity_lots", "account")})
    frame = frame.group_by("sequence").agg(
        pl.col("price_ticks").min().alias("to"), pl.col("price_ticks").first().alias("first"),
        pl.col("quantity_lots").sum().alias("lots"), pl.col("account").n_unique().alias("accounts"),
    )  # fmt: skip
    before = session.tops[frame["sequence"].to_numpy() - 2]
    after = session.tops[frame["sequence"].to_numpy() - 1]
    best = np.where(before["bid_lots"] > 0, before["bid_ticks"], frame["first"].to_numpy())
    left = np.where(after["bid_lots"] > 0, after["bid_ticks"], frame["to"].to_numpy())
    frame = frame.with_columns(
        pl.Series("from", best), pl.Series("lowered", best - left), pl.Series("walked", best - frame["to"].to_numpy())
    )
    frame = frame.sort(["lowered", "walked", "lots", "sequence"], descending=[True, True, True, False]).head(_TOP)
    return [
        {
            **describe(chain, row["sequence"]),
            "accounts": row["accounts"],
            "lots": row["lots"],
            "walked_ticks": row["walked"],
            "bid_lowered_ticks": row["lowered"],
            "best_bid_ticks": row["from"],
            "worst_fill_ticks": row["to"],
        }
        for row in frame.iter_rows(named=True)
    ]


def _forced(chain: Chain, sequence: int, until: int) -> dict[str, Any]:
    """What was done to those who could not pay, and what nobody paid."""
    events = _within(chain.session.events, sequence, until)

    def of(kind: EventKind) -> Array:
        return events[events["kind"] == kind]

    sold = of(EventKind.ORDER_FILLED)
    sold = sold[(sold["reason"] == Reason.LIQUIDATION) & (sold["instrument"] == MAIN)]
    seized = of(EventKind.LOAN_LIQUIDATED)
    owed = of(EventKind.BAD_DEBT_BOOKED)
    return {
        "margin_calls": len(of(EventKind.MARGIN_CALLED)),
        "liquidations": len(of(EventKind.LIQUIDATION_STARTED)),
        "liquidated_lots": int(sold["quantity_lots"].sum()),
        "taken_over_or_deleveraged": len(of(EventKind.POSITION_TAKEN_OVER)) + len(of(EventKind.DELEVERAGED)),
        "loan_liquidations": len(seized),
        "bad_debt": round(int(owed["value"].sum()) * chain.session.tick_size, 2),
    }


# ── decisions, depth, paths ──────────────────────────────────────────────────────────────────────────────────────────


def causes_table(chain: Chain) -> pl.DataFrame:
    """One row a command of the whole journal: its cause, link, root and depth (causes.parquet)."""
    commands, causes = chain.session.commands, chain.causes
    names = {int(link): link.name for link in Link}
    return pl.DataFrame(
        {
            "sequence": np.arange(1, len(commands) + 1),
            "cause_sequence": causes.cause,
            "link": [names[link] for link in causes.link.tolist()],
            "root_sequence": causes.root,
            "root": chain.labels,
            "depth": causes.depth,
            "mid_change_ticks": chain.falls,
        }
    )


def decisions(chain: Chain) -> pl.DataFrame:
    """From the first cause to the close, one row a (participants, rule, root): commands, accounts, lots (ordered),
    taken_lots, first_ms, last_ms, depth_median, moved_ticks (of the mid); and of these until the trough …_to_trough.
    """
    session = chain.session
    start, close = chain.cause_sequence, session.close_sequence
    commands = session.commands[start - 1 : close - 1]
    mine = np.isin(commands["kind"], DECISION_COMMANDS)
    taken = np.zeros(len(commands), np.int64)
    fills = _within(session.fills, start, close)
    np.add.at(taken, fills["sequence"] - start, np.where(fills["reason"] == Reason.AUCTION, 0, fills["quantity_lots"]))
    accounts = commands["account"][mine]
    known = np.clip(accounts, 0, len(session.groups) - 1)
    frame = pl.DataFrame(
        {
            "participants": session.groups[known].tolist(),
            "rule": [RULES.get(rule, str(rule)) for rule in commands["rule"][mine].tolist()],
            "root": [
                label for label, is_mine in zip(chain.labels[start - 1 : close - 1], mine, strict=True) if is_mine
            ],
            "sequence": np.arange(start, close)[mine],
            "account": accounts,
            "ordered": np.where(np.isin(commands["kind"], _ORDERS), commands["quantity_lots"], 0)[mine],
            "taken": taken[mine],
            "ms": (commands["received_ns"][mine] - commands["received_ns"][0]) / MS,
            "depth": chain.causes.depth[start - 1 : close - 1][mine],
            "moved": chain.falls[start - 1 : close - 1][mine],
        }
    )
    before = pl.col("sequence") <= chain.fall.trough_sequence
    return (
        frame.group_by("participants", "rule", "root")
        .agg(
            pl.len().cast(pl.Int64).alias("commands"),
            before.sum().cast(pl.Int64).alias("commands_to_trough"),
            pl.col("account").n_unique().cast(pl.Int64).alias("accounts"),
            pl.col("ordered").sum().alias("lots"),
            pl.col("taken").sum().alias("taken_lots"),
            pl.col("taken").filter(before).sum().alias("taken_lots_to_trough"),
            pl.col("ms").min().round(3).alias("first_ms"),
            pl.col("ms").max().round(3).alias("last_ms"),
            pl.col("depth").median().alias("depth_median"),
            pl.col("moved").sum().round(1).alias("moved_ticks"),
            pl.col("moved").filter(before).sum().round(1).alias("moved_ticks_to_trough"),
        )
        .sort(["taken_lots_to_trough", "commands", "first_ms"], descending=[True, True, False])
    )


def first_wave(chain: Chain) -> dict[str, Any]:
    """Those whose decision names the first cause itself: no other command lies between."""
    session, causes = chain.session, chain.causes
    part = slice(chain.cause_sequence - 1, session.close_sequence - 1)
    decided = (
        np.isin(session.commands["kind"][part], DECISION_COMMANDS) & chain.is_news[part] & (causes.depth[part] == 1)
    )
    found = session.commands[part][decided]
    names, counts = np.unique(session.groups[found["account"]], return_counts=True)
    placed = found[found["kind"] == CommandKind.PLACE_ORDER]
    ordered = sorted(zip(counts.tolist(), names.tolist(), strict=True), reverse=True)
    return {
        "commands": len(found),
        "accounts": len(np.unique(found["account"])),
        "sell_lots": int(placed["quantity_lots"][placed["side"] == Side.SELL].sum()),
        "buy_lots": int(placed["quantity_lots"][placed["side"] == Side.BUY].sum()),
        "first_ms": chain.ms(int(found["sequence"][0])) if len(found) else None,
        "last_ms": chain.ms(int(found["sequence"][-1])) if len(found) else None,
        "by_participants": {name: count for count, name in ordered},
    }


def depths(chain: Chain) -> list[dict[str, int]]:
    """Of the decisions that go back to the first cause, by links away from it: commands and lots ordered."""
    part = slice(chain.cause_sequence - 1, chain.session.close_sequence - 1)
    commands = chain.session.commands[part]
    mine = np.isin(commands["kind"], DECISION_COMMANDS) & chain.is_news[part]
    found, where, counts = np.unique(chain.causes.depth[part][mine], return_inverse=True, return_counts=True)
    lots = np.zeros(len(found), np.int64)
    np.add.at(lots, where, np.where(np.isin(commands["kind"], _ORDERS), commands["quantity_lots"], 0)[mine])
    rows = zip(found.tolist(), counts.tolist(), lots.tolist(), strict=True)
    return [{"depth": depth, "commands": count, "lots": amount} for depth, count, amount in rows]


def paths(chain: Chain) -> dict[str, list[dict[str, Any]]]:
    """From the root to the trade at the trough, to the command until then that lowered the mid most, and to the last
    loss that somebody was made to take: bad debt, or else a liquidation."""
    start, trough = chain.cause_sequence, chain.fall.trough_sequence
    worst = start + int(np.argmin(chain.falls[start - 1 : trough]))
    ends = {"trough": trough, "largest_move": worst}
    events = chain.session.events
    for kind in (EventKind.BAD_DEBT_BOOKED, EventKind.LIQUIDATION_STARTED, EventKind.LOAN_LIQUIDATED):
        last = events["sequence"][(events["kind"] == kind) & (events["sequence"] > chain.cause_sequence)]
        if len(last):
            ends["last_loss"] = int(last[-1])
            break
    return {name: [describe(chain, each) for each in path_to(chain.causes, end)] for name, end in ends.items()}


# ── where it could have been stopped ─────────────────────────────────────────────────────────────────────────────────


def stops(chain: Chain) -> list[dict[str, Any]]:
    """At each step's beginning and on a grid of times: what was still to come from there to the close.

    loss_subject: of the subject, net. loss_total: of all who lose from there on, without what others gain.
    drawdown_bps: from the mid there to the lowest trade after it, of the peak.
    """
    session = chain.session
    named = dict(milestones(chain))
    times = session.commands["received_ns"]
    ends = int(times[chain.cause_sequence - 1]), int(times[min(session.close_sequence, len(times)) - 1])
    trough_ns = int(times[chain.fall.trough_sequence - 1])
    grid = np.concatenate([np.linspace(ends[0], trough_ns, _GRID), np.linspace(trough_ns, ends[1], _GRID // 4)])
    at = np.searchsorted(times, grid, side="left") + 1
    wanted = [int(each) for each in at if chain.cause_sequence <= each < session.close_sequence]
    sequences = sorted(set(named) | set(wanted))
    worth = worths(session, [*sequences, session.close_sequence])[:, : len(session.groups)] * session.tick_size
    mine = session.groups == chain.subject
    counted = session.groups != RECORDING
    events = session.events
    forced = events[np.isin(events["kind"], (EventKind.LIQUIDATION_STARTED, EventKind.LOAN_LIQUIDATED))]["sequence"]
    owed = events[events["kind"] == EventKind.BAD_DEBT_BOOKED]
    fills = session.fills
    found = []
    for sequence, now in zip(sequences, worth[:-1], strict=True):
        lost = now - worth[-1]
        later = fills["price_ticks"][(fills["sequence"] >= sequence) & (fills["sequence"] < session.close_sequence)]
        mid = chain.mid_before(sequence)
        fallen = max(0.0, mid - float(later.min())) if len(later) else 0.0
        found.append(
            {
                "ms": chain.ms(sequence),
                "sequence": sequence,
                "at": named.get(sequence),
                "mid_ticks": mid,
                "drawdown_bps": round(fallen / chain.fall.peak_ticks * BPS, 2),
                "loss_subject": round(float(lost[mine].sum()), 2),
                "loss_total": round(float(np.maximum(lost[counted], 0).sum()), 2),
                "liquidations": int((forced >= sequence).sum()),
                "bad_debt": round(int(owed["value"][owed["sequence"] >= sequence].sum()) * session.tick_size, 2),
                "trades": len(later),
            }
        )
    return found
