"""What the study of the defences says of its runs: the figures of each cell, against none, and over the reaction time.

Owns the list of the study's measures, the difference from none, the rungs of the ladder and the bounds of false alarms.
Must not run anything, draw or format.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from scipy import stats

from aar_swarm.analysis.compared import Estimate, Measure, Setting, estimate
from aar_swarm.analysis.statistics import CONFIDENCE, Interval

CELL = "defence"
"""The key of a Setting's only value: its cell's name."""
NONE, ALL = "none", "all"

DAMAGE = (
    Measure("drawdown_bps", "Drawdown", "bps", 0, "drawdown"),
    Measure("loss_crowd", "Loss of the crowd", "", 0, "loss"),
    Measure("loss_total", "Loss of all who lost", "", 0, "loss"),
    Measure("bad_debt", "Bad debt", "", 0, "bad-debt"),
    Measure("liquidations", "Liquidations of margin accounts", "", 0, "liquidation"),
    Measure("coin_low_share_of_par", "Stablecoin's low, share of par", "", 3, "coin"),
    Measure("scenario_measures.boom_bps", "Boom", "bps", 0),
)
STOPPED = (
    Measure("trades", "Trades", "", 0),
    Measure("prevented.trades", "Trades prevented", "", 0, "prevented"),
    Measure("prevented.lots", "Lots prevented", "", 0, "prevented"),
    Measure("prevented.exit_lots", "Lots of the exit not sold", "", 0, "prevented"),
    Measure("refused_orders", "Refused orders", "", 0, "refused"),
    Measure("refused_logons", "Refused logons", "", 0, "refused"),
    Measure("halts", "Halts", "", 1, "trip"),
    Measure("trip.since_signal_ms", "First halt, after the signal", "ms", 0, "trip"),
    Measure("supervisor.lag_ns_p99", "Supervisor's lag, p99", "ns", 0),
)
CALM = (
    Measure("calm.trades_per_s", "Trades a second", "", 1, "calm"),
    Measure("calm.lots_per_s", "Lots a second", "", 1, "calm"),
    Measure("calm.spread_bps", "Mean spread", "bps", 2, "calm"),
    Measure("calm.depth_lots", "Mean depth", "lots", 0, "calm"),
    Measure("calm.rejects", "Rejects", "", 1, "calm"),
)
FALSE_ALARMS = (
    Measure("calm.halts", "Halts before the signal", "", 2, "calm"),
    Measure("calm.alerts", "Alerts before the signal", "", 2, "calm"),
    Measure("calm.refused_orders", "Orders refused before the signal", "", 2, "refused"),
    Measure("calm.refused_logons", "Logons refused", "", 2, "refused"),
)
GROUPS: tuple[tuple[str, tuple[Measure, ...]], ...] = (
    ("Damage", DAMAGE),
    ("Prevented", STOPPED),
    ("Cost in calm", CALM),
    ("False alarms", FALSE_ALARMS),
)
_PREVENTED = {"trades": "trades_since_calm", "lots": "lots_since_calm", "exit_lots": "sold_lots"}
"""prevented.X → the figure of the run whose difference it is."""


def against_none(summary: Mapping[str, Any], none: Mapping[str, Any] | None) -> dict[str, Any]:
    """The summary with `prevented`, which needs its partner: the run of the same repeat without any defence.

    prevented.trades, .lots: the partner's fills (lots) of the main instrument since the calm ended, less this run's;
    below 0: there were more. prevented.exit_lots: the same of sold_lots. Null without a partner, and of one itself.
    """
    found: dict[str, float | None] = {}
    for name, key in _PREVENTED.items():
        mine, its = summary.get(key), None if none is None else none.get(key)
        found[name] = None if mine is None or its is None else its - mine
    return {**summary, "prevented": found}


@dataclass(frozen=True)
class Verdict:
    """Whether a cell's figure differs from that of none by more than chance would do."""

    apart: bool | None
    """The 95 % intervals do not overlap (of a difference: it does not hold 0). None: an interval is missing."""
    direction: int
    """+1 above none, −1 below, 0 the same mean."""


def verdict(cell: Setting, none: Setting, measure: Measure) -> Verdict | None:
    """None where the measure applies to no run of one of the two, or the cell is none itself."""
    mine = estimate(cell, measure)
    if mine is None or cell.values == none.values:
        return None
    theirs: Estimate | None
    if measure.key.startswith("prevented."):  # a difference from none already
        theirs = Estimate(0.0, Interval(0.0, 0.0, 0.0, mine.n), mine.n)
    else:
        theirs = estimate(none, measure)
    if theirs is None:
        return None
    apart = None
    if mine.interval is not None and theirs.interval is not None:
        apart = not mine.interval.overlaps(theirs.interval)
    return Verdict(apart, (mine.mean > theirs.mean) - (mine.mean < theirs.mean))


def applying(settings: Sequence[Setting]) -> list[tuple[str, list[Measure]]]:
    """The groups with those of their measures that apply to any run."""
    found = []
    for name, measures in GROUPS:
        there = [measure for measure in measures if any(setting.figures(measure.key) for setting in settings)]
        if there:
            found.append((name, there))
    return found


@dataclass(frozen=True)
class Rung:
    """One reaction time of the ladder."""

    label: str
    reaction_ms: float | None
    """−1: in-line, in the same apply as the match; −0.5: so, by the supervisor's trigger; None: never."""
    setting: Setting


def rungs_in_order(rungs: Sequence[Rung]) -> list[Rung]:
    """In-line first, never last."""
    return sorted(rungs, key=lambda rung: math.inf if rung.reaction_ms is None else rung.reaction_ms)


@dataclass(frozen=True)
class FalseAlarms:
    """What N runs without news showed of one kind of alarm, and what that bounds at 95 %, from above only."""

    what: str
    count: int
    runs_with: int
    runs: int
    hours: float
    share_upper: float
    """Of the share of runs with one: 3/N if there was none (the rule of three), else Clopper and Pearson's bound."""
    per_hour_upper: float | None
    """Of the rate: Poisson's exact bound; 3/hours if there was none."""

    @property
    def per_hour(self) -> float | None:
        return self.count / self.hours if self.hours else None


def false_alarms(what: str, counts: Sequence[int], hours: float) -> FalseAlarms:
    """counts: of each run. Raises: ValueError without a run."""
    if not counts:
        raise ValueError("no run, so nothing is bounded")
    n, total, runs_with = len(counts), sum(counts), sum(count > 0 for count in counts)
    share = 3 / n if not runs_with else 1.0
    if 0 < runs_with < n:
        share = float(stats.beta.ppf(CONFIDENCE, runs_with + 1, n - runs_with))
    rate = None
    if hours > 0:
        rate = 3 / hours if not total else float(stats.chi2.ppf(CONFIDENCE, 2 * (total + 1))) / 2 / hours
    return FalseAlarms(what, total, runs_with, n, hours, min(share, 1.0), rate)


CALM_COUNTS = ("halts", "alerts", "refused_orders", "refused_logons")


def calm_counts(summary: Mapping[str, Any], what: str, whole: bool) -> int | None:
    """Of one run without news: before the public moment, or over the whole session. None: it does not apply."""
    if not whole:
        found = (summary.get("calm") or {}).get(what)
    elif what == "alerts":
        found = (summary.get("supervisor") or {}).get("alerts")
    else:
        found = summary.get(what)
    return None if found is None else int(found)


def calm_hours(summary: Mapping[str, Any], whole: bool) -> float:
    seconds = summary.get("session_s") if whole else (summary.get("calm") or {}).get("seconds")
    return float(seconds or 0.0) / 3600


@dataclass(frozen=True)
class Part:
    """One scenario of the study."""

    scenario: str
    title: str
    cells: tuple[Setting, ...]
    """Of the table, none first; empty if the study has no table."""
    sets: Mapping[str, Mapping[str, Any]]
    """Cell → the settings that make it, path → value."""
    unavailable: Mapping[str, str]
    """Defence → why this scenario has not got it."""
    rungs: tuple[Rung, ...] = ()
    calm: tuple[FalseAlarms, ...] = ()
    """Before the public moment."""
    calm_whole: tuple[FalseAlarms, ...] = ()
    """Over the whole sessions."""
    calm_sets: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    failures: tuple[tuple[str, int, str], ...] = ()
    """(cell, seed, reason)."""

    @property
    def none(self) -> Setting | None:
        return self.cells[0] if self.cells else None

    @property
    def shown(self) -> list[Setting]:
        """Every setting once, for what all runs have in common."""
        found = {setting.values[CELL]: setting for setting in (*self.cells, *(rung.setting for rung in self.rungs))}
        return list(found.values())


def part_dict(part: Part) -> dict[str, Any]:
    """What defences.json says of a scenario."""
    measures = [measure for _, listed in GROUPS for measure in listed]

    def figures(setting: Setting) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for measure in measures:
            mine = estimate(setting, measure)
            if mine is None:
                continue
            said = None if part.none is None else verdict(setting, part.none, measure)
            low, high = (mine.interval.low, mine.interval.high) if mine.interval else (None, None)
            found[measure.key] = {"mean": mine.mean, "low": low, "high": high, "n": mine.n,
                                  "apart_from_none": None if said is None else said.apart}  # fmt: skip
        name = setting.values[CELL]
        return {"sets": dict(part.sets[name]), "runs": len(setting.summaries), "failed": len(setting.failures),
                "measures": found}  # fmt: skip

    return {
        "cells": {setting.values[CELL]: figures(setting) for setting in part.cells},
        "unavailable": dict(part.unavailable),
        "notes": list(part.notes),
        "ladder": [
            {"label": rung.label, "reaction_ms": rung.reaction_ms if (rung.reaction_ms or 0) >= 0 else None,
             "in_line": rung.reaction_ms is not None and rung.reaction_ms < 0, **figures(rung.setting)}
            for rung in part.rungs
        ],
        "calm": {
            "sets": dict(part.calm_sets),
            "before_the_moment": [{**asdict(each), "per_hour": each.per_hour} for each in part.calm],
            "whole_session": [{**asdict(each), "per_hour": each.per_hour} for each in part.calm_whole],
        },
        "failures": [{"cell": cell, "seed": seed, "reason": reason} for cell, seed, reason in part.failures],
    }  # fmt: skip
