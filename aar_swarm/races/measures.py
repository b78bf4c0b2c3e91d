"""What races were worth: how many and how long, who won, what a winner made and what that cost the market.

Formulas of Aquilina, Budish and O'Neill (2022), code appendix §10.4. sign: +1 for a race at the ask, −1 at the bid.
Per-share profit at T: sign · (mid(start + T) − price). Per-race profit: that times what was displayed at the price when
it began. Loss avoidance: per-share profit times what was cancelled. Latency-arbitrage tax: the races' profit over the
value traded. Duration: from the first success to the first failure, below 0 if who failed came first.
"""

from collections import Counter
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from aar_swarm.analysis.host_clocks import HostClocks, host_clocks
from aar_swarm.analysis.price import mids
from aar_swarm.analysis.tables import from_records
from aar_swarm.races.detection import Detection, detect
from aar_swarm.races.messages import CANCEL, Stream, read
from aar_swarm.results import Run, answered_ns
from exchange import journal
from exchange.clock import SECOND
from exchange.engine import Engine, apply_commands, events_bound
from exchange.errors import ConfigurationError
from exchange.jit import kernel
from exchange.journal import Journal
from exchange.state import Array
from exchange.types import EVENT, EventKind, Reason, Side

MARKS_S = (0.001, 0.01, 0.1, 1.0, 10.0)
"""At which T profits are also told, beside the one asked for."""
_MOST_WINNERS = 6
"""The paper's headline: what share the six who win most have."""
_SELL = int(Side.SELL)


@kernel
def _displayed(state, commands, events, instrument, at, sides, prices, lots):
    """Fill lots: what was displayed at a price of a side before command number at[i]; `at` must not decrease."""
    done = 0
    for number in range(at.shape[0]):
        while done < at[number]:
            apply_commands(state, commands, done, done + 1, events)
            done += 1
        lots[number] = state.levels[2 * instrument + sides[number]][prices[number]]["quantity_lots"]


def displayed(recorded: Journal, races: Array, stream: Stream, instrument: int = 0) -> Array:
    """int64[r]: lots displayed at each race's price when it began, before the message that started it. In any order."""
    engine = Engine(recorded.config)
    events = np.zeros(events_bound(engine.state), EVENT)
    lots = np.zeros(len(races), np.int64)
    at = np.searchsorted(recorded.commands["sequence"], stream.messages["sequence"][races["start"]])
    order = np.argsort(at, kind="stable")
    sides, prices = races["book"][order], races["price_ticks"][order]
    _displayed(engine.state, recorded.commands, events, instrument, at[order], sides, prices, lots)
    found = np.zeros_like(lots)
    found[order] = lots
    return found


def per_share(races: Array, times_ns: Array, quoted: Array, after_s: float) -> Array:
    """float64[r]: profit a share in ticks, after_s after each race's start; NaN after the last command, and if there
    was no mid then. times_ns, quoted: what `mids` gives."""
    when = races["start_ns"] + int(after_s * SECOND)
    row = np.searchsorted(times_ns, when, "right") - 1
    known = (row >= 0) & (when <= (times_ns[-1] if len(times_ns) else 0))
    sign = np.where(races["book"] == _SELL, 1, -1)
    found = np.full(len(races), np.nan)
    found[known] = sign[known] * (quoted[row[known]] - races["price_ticks"][known])
    return found


def expected_clusters(per_second: float, within_s: float, seconds: float) -> float:
    """Of a Poisson process: how many windows of within_s hold two or more, of all that fit. λ is per_second."""
    return float(stats.poisson.sf(1, per_second * within_s)) * seconds / within_s


def race_table(
    races: Array, stream: Stream, lots: Array, names: list[str], profits: dict[float, Array]
) -> pl.DataFrame:
    """One row a race. winner, loser: of the first success and the first failure; duration_ns: from one to the other."""
    messages = stream.messages
    won, lost = messages[races["first_success"]], messages[races["first_failure"]]
    of = [names[account] if account < len(names) else "?" for account in range(int(messages["account"].max()) + 1)]
    return from_records(races).with_columns(
        pl.Series("displayed_lots", lots),
        pl.Series("winner", won["account"]),
        pl.Series("winners", [of[account] for account in won["account"].tolist()], pl.String),
        pl.Series("loser", lost["account"]),
        pl.Series("losers", [of[account] for account in lost["account"].tolist()], pl.String),
        pl.Series("cancel_won", won["kind"] == CANCEL),
        pl.Series("duration_ns", lost["time_ns"] - won["time_ns"]),
        pl.Series("won_sequence", won["sequence"]),
        pl.Series("lost_sequence", lost["sequence"]),
        *(pl.Series(f"per_share_ticks_{after!r}s", profit).fill_nan(None) for after, profit in profits.items()),
    )


def raced_lots(races: Array, stream: Stream, events: pl.DataFrame, instrument: int = 0) -> int:
    """Lots that takes of a race traded at exactly its price: each belongs to at most one race, as those of one price
    do not overlap."""
    fills = events.filter(
        (pl.col("kind") == int(EventKind.ORDER_FILLED))
        & (pl.col("instrument") == instrument)
        & (pl.col("reason") == int(Reason.NONE))
    )
    taken = {Side.BUY: int(Side.SELL), Side.SELL: int(Side.BUY)}
    spans = pl.DataFrame(
        {
            "book": races["book"],
            "price_ticks": races["price_ticks"],
            "start_ns": races["start_ns"],
            "end_ns": races["start_ns"] + races["horizon_ns"],
        }
    ).sort("start_ns")
    inside = (
        fills.select("time_ns", "price_ticks", "quantity_lots", book=pl.col("side").replace_strict(taken, default=-1))
        .sort("time_ns")
        .join_asof(
            spans,
            left_on="time_ns",
            right_on="start_ns",
            by=["book", "price_ticks"],
            strategy="backward",
            check_sortedness=False,
        )
        .filter(pl.col("time_ns") <= pl.col("end_ns"))
    )
    return int(inside["quantity_lots"].sum())


def of_run(
    run: Run, rule: Detection | None = None, after_s: float = 10.0, instrument: int = 0
) -> tuple[dict[str, Any], pl.DataFrame]:
    """The races of a run's instrument: figures, and one row a race.

    Args: rule: what counts as a race; after_s: at which T the tax and loss avoidance are told. Raises:
    ConfigurationError: no such instrument; JournalError.
    """
    rule = rule or Detection()
    recorded = journal.read(run.journal)
    if not 0 <= instrument < len(recorded.config.instruments):
        raise ConfigurationError(
            f"--instrument {instrument}: {run.directory} has {len(recorded.config.instruments)}, from 0"
        )
    stream = read(recorded, answered_ns(run, recorded.commands), instrument)
    tops = run.book if instrument == 0 else run.coin_book
    times_ns, quoted = mids(tops)
    sensitivities = variants(rule)
    detected = [detect(stream, each) for each in (rule, *sensitivities.values())]
    ends = np.cumsum([len(some) for some in detected])
    shown = np.split(displayed(recorded, np.concatenate(detected), stream, instrument), ends[:-1])
    # The rule looks at every tick up to a limit. Our books have empty ones, at which there was nothing to race for.
    found, lots = detected[0][shown[0] > 0], shown[0][shown[0] > 0]
    profits = {after: per_share(found, times_ns, quoted, after) for after in sorted({*MARKS_S, after_s})}
    groups = run.agents.sort("agent_id")["participants"].to_list()
    table = race_table(found, stream, lots, groups, profits) if len(found) else pl.DataFrame()
    if len(found):
        table = with_sending(table, recorded.commands, host_clocks(run.manifest, len(groups)))
    totals = stream.totals[0]
    seconds = int(totals["open_ns"]) / SECOND
    horizon_s = float(found["horizon_ns"].mean()) / SECOND if len(found) else rule.horizon_us / 1e6
    per_second = stream.at_best() / 2 / seconds if seconds else 0.0
    raced = raced_lots(found, stream, run.events, instrument) if len(found) else 0
    traded = int(totals["filled_lots"])
    return {
        "instrument": instrument,
        "rule": rule.model_dump(),
        "messages": len(stream.messages),
        "seconds": round(seconds, 3),
        "races": len(found),
        "per_minute": _ratio(len(found), seconds / 60),
        "nothing_displayed": len(detected[0]) - len(found),
        "cancels_without_a_price": stream.left_out,
        "undecidable": _undecidable(table),
        "sending": _sending(table),
        "share_of_volume": _ratio(raced, traded),
        "horizon_us": {"mean": round(horizon_s * 1e6, 3)},
        "duration_us": _durations(table),
        "wins": _wins(table),
        "profit": {
            f"{after!r}s": _profit(profit, lots, found["cancelled_lots"], int(totals["filled_value"]))
            for after, profit in profits.items()
        },
        "tax_bps": _profit(profits[after_s], lots, found["cancelled_lots"], int(totals["filled_value"]))["tax_bps"],
        "poisson": {
            "messages_at_best_per_s": round(2 * per_second, 3),
            "clusters_expected": round(expected_clusters(per_second, horizon_s, seconds), 3) if seconds else None,
        },
        "sensitivities": {
            name: _ratio(int((some > 0).sum()), seconds / 60)
            for name, some in zip(sensitivities, shown[1:], strict=True)
        },
    }, table


def variants(rule: Detection) -> dict[str, Detection]:
    """The appendix's sensitivities, each one change of the rule."""
    changes: dict[str, dict[str, Any]] = {
        f"cap {us} us": {"horizon_us": us, "fixed_horizon": False} for us in (100.0, 1000.0)
    }
    changes |= {f"fixed {us} us": {"horizon_us": float(us), "fixed_horizon": True} for us in (50, 200, 500, 1000, 3000)}
    changes |= {f"{least} participants": {"participants": least} for least in (3, 5)}
    changes |= {"2 takes": {"takes": 2}, "1 cancel": {"cancels": 1}}
    changes |= {"strict failures": {"strict_failures": True}}
    changes |= {"strict failures and successes": {"strict_failures": True, "strict_successes": True}}
    return {name: rule.model_copy(update=change) for name, change in changes.items()}


def _ratio(part: float, whole: float) -> float | None:
    return round(part / whole, 6) if whole else None


def with_sending(table: pl.DataFrame, commands: Array, clocks: HostClocks) -> pl.DataFrame:
    """The races with sent_gap_ns: when the first failure was sent less when the first success was, both on the venue's
    clock, below 0 if who failed had sent first; and clock_bound_ns: by how much that may be wrong, 0 within one host or
    one kernel, null if not known. table: has the columns of race_table."""
    won, lost = (
        commands[np.searchsorted(commands["sequence"], table[name].to_numpy())]
        for name in ("won_sequence", "lost_sequence")
    )
    sent = [each["sent_ns"] + clocks.offset_ns[each["account"]] for each in (won, lost)]
    bounds = clocks.pair_bound_ns(won["account"], lost["account"])
    return table.with_columns(
        pl.Series("sent_gap_ns", sent[1] - sent[0]),
        pl.Series("clock_bound_ns", bounds).replace(-1, None),
    )


def _undecidable(table: pl.DataFrame) -> int | None:
    """Races that are shorter than the clocks of the two participants' hosts are known to agree; null: of some race's
    clocks nothing is known. The venue's own stamps order the messages: what is undecidable is who *sent* first."""
    if not len(table):
        return 0
    if table["clock_bound_ns"].null_count():
        return None
    return int((table["duration_ns"].abs() < table["clock_bound_ns"]).sum())


def _sending(table: pl.DataFrame) -> dict[str, int] | None:
    """Of the races: who sent first and was served first, who sent first and was not, and where the clocks cannot tell;
    null like _undecidable."""
    if not len(table):
        return {"first_won": 0, "first_lost": 0, "unknown": 0}
    if table["clock_bound_ns"].null_count():
        return None
    gap, bound = table["sent_gap_ns"], table["clock_bound_ns"]
    unknown = (gap.abs() < bound) | (gap == 0)
    return {
        "first_won": int(((gap > 0) & ~unknown).sum()),
        "first_lost": int(((gap < 0) & ~unknown).sum()),
        "unknown": int(unknown.sum()),
    }


def _durations(table: pl.DataFrame) -> dict[str, float | None]:
    if not len(table):
        return {"p10": None, "p50": None, "p90": None, "negative_share": None}
    durations = table["duration_ns"].to_numpy() / 1e3
    low, middle, high = np.quantile(durations, (0.1, 0.5, 0.9))
    return {
        "p10": round(float(low), 3),
        "p50": round(float(middle), 3),
        "p90": round(float(high), 3),
        "negative_share": _ratio(int((durations < 0).sum()), len(durations)),
    }


def _wins(table: pl.DataFrame) -> dict[str, Any]:
    """Who won: by group, beside how many of the races a member of it lost first; and how concentrated winning is."""
    if not len(table):
        return {"by_group": {}, "by_cancel": None, "top_6_share": None, "winners": 0}
    won, lost = Counter(table["winners"].to_list()), Counter(table["losers"].to_list())
    each = Counter(table["winner"].to_list())
    return {
        "by_group": {name: {"won": won[name], "lost": lost[name]} for name in sorted(won.keys() | lost.keys())},
        "by_cancel": _ratio(int(table["cancel_won"].sum()), len(table)),
        "top_6_share": _ratio(sum(count for _, count in each.most_common(_MOST_WINNERS)), len(table)),
        "winners": len(each),
    }


def _profit(per_share_ticks: Array, lots: Array, cancelled: Array, traded_value: int) -> dict[str, Any]:
    """In ticks, and ticks × lots; of the races whose T is within the session."""
    known = ~np.isnan(per_share_ticks)
    each = per_share_ticks[known]
    if not len(each):
        return dict.fromkeys(("races", "per_share_ticks", "per_race", "loss_avoided", "tax_bps"), None) | {"races": 0}
    total = float((each * lots[known]).sum())
    return {
        "races": len(each),
        "per_share_ticks": round(float(each.mean()), 4),
        "per_race": round(total / len(each), 4),
        "loss_avoided": round(float((each * cancelled[known]).sum()), 4),
        "tax_bps": round(total / traded_value * 1e4, 4) if traded_value else None,
    }
