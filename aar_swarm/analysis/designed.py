"""Designs of a market beside each other: which figures of a run are compared, from its races and its own measures.

Two ways to tell what speed takes. The latency-arbitrage tax of race studies needs races, that is messages which are
answered one by one; in batches nobody is first, and hardly anything is a race by that definition. What SNIPE orders
gained by the public value is told of every design (analysis.latency_race). Must not run anything, draw or format.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from aar_swarm.analysis.compared import SCENARIO_MEASURES, Measure, Setting
from aar_swarm.races.detection import Detection
from aar_swarm.races.measures import of_run
from aar_swarm.results import Run

DESIGN = "design"
BASELINE, WIDE, CLASSES = "races_baseline", "races_wide", "classes"
"""Tables that are added to a summary."""
WIDE_US = 3000.0
"""On few cores it is the scheduler that spreads reactions to one notice, over milliseconds; 500 µs see few of them.
Messages are stamped when they are sequenced, so a speed bump for takers alone comes on top."""
_OWN = SCENARIO_MEASURES
TAX = Measure(f"{_OWN}.snipers_tax_bps", "Snipers' gains, of value traded", "bps", 3)
SPREAD = Measure(f"{_OWN}.effective_spread_bps", "Effective spread", "bps", 2)
QUOTED = Measure(f"{_OWN}.quoted_spread_bps", "Quoted spread", "bps", 2)
MAKERS_NET = Measure(f"{_OWN}.makers_net_bps", "Makers' gains, all in all", "bps", 3)
RACES = Measure(f"{WIDE}.per_minute", "Races a minute, within 3 ms", "", 1)
GROUPS: tuple[tuple[str, tuple[Measure, ...]], ...] = (
    (
        "What speed takes",
        (
            TAX,
            Measure(f"{BASELINE}.tax_bps", "Latency-arbitrage tax, baseline races", "bps", 3),
            Measure(f"{WIDE}.tax_bps", "Latency-arbitrage tax, races within 3 ms", "bps", 3),
            Measure(f"{_OWN}.makers_sniped_bps", "Makers' gains from snipers", "bps", 3),
            Measure(f"{_OWN}.makers_earned_bps", "Makers' gains from others", "bps", 3),
            MAKERS_NET,
            Measure(f"{_OWN}.snipe_share", "Snipes, share of lots traded", "", 3),
        ),
    ),
    (
        "What trading costs",
        (
            QUOTED,
            SPREAD,
            Measure(f"{_OWN}.quoted_share", "Two-sided and uncrossed, share of time", "", 3),
            Measure(f"{_OWN}.lots_traded", "Lots traded", "", 0),
        ),
    ),
    (
        "Races",
        (
            Measure(f"{BASELINE}.per_minute", "Races a minute, baseline", "", 1),
            RACES,
            Measure("messages_held_late", "Messages too late to be held", "", 0),
            Measure(f"{WIDE}.by_chance_per_minute", "Clusters a minute by chance, within 3 ms", "", 1),
            Measure(f"{WIDE}.share_of_volume", "Share of volume in races, within 3 ms", "", 3),
            Measure(f"{WIDE}.duration_us", "Median duration of a race", "µs", 0),
            Measure(f"{WIDE}.by_cancel", "Won by the quote's owner, share", "", 3),
        ),
    ),
)
"""Those that every run of a latency race may have; who wins and who earns follow, by group and by link."""
PICTURED = (TAX, QUOTED, SPREAD, MAKERS_NET, RACES)


def figures(run: Run, after_s: float) -> dict[str, Any]:
    """A run's summary with what its races were, baseline and wide, and, of who has a link, `classes`.

    Args: after_s: at which T a race is valued.
    """
    groups = list(run.manifest["scenario"]["participants"])
    baseline = _flat(of_run(run, Detection(), after_s)[0], groups)
    bump_us = 1000 * float(run.manifest["scenario"].get("sequencing", {}).get("speed_bump_ms", 0.0))
    wide_us = WIDE_US + bump_us
    wide = _flat(of_run(run, Detection(horizon_us=wide_us, fixed_horizon=True), after_s)[0], groups)
    own = run.summary.get(SCENARIO_MEASURES) or {}
    return {**run.summary, BASELINE: baseline, WIDE: wide, CLASSES: _classes(run, wide, own)}


def _flat(found: Mapping[str, Any], groups: Sequence[str]) -> dict[str, Any]:
    wins = found["wins"]["by_group"]
    minutes = found["seconds"] / 60
    by_chance = found["poisson"]["clusters_expected"]
    return {
        "races": found["races"],
        "per_minute": found["per_minute"],
        "by_chance_per_minute": by_chance / minutes if minutes and by_chance is not None else None,
        "share_of_volume": found["share_of_volume"],
        "duration_us": found["duration_us"]["p50"],
        "by_cancel": found["wins"]["by_cancel"],
        "tax_bps": found["tax_bps"],
        # Who won none of the races there were won a share of 0.
        **{f"won_{name}": wins.get(name, {"won": 0})["won"] / found["races"] for name in groups if found["races"]},
    }


def _classes(run: Run, races: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, float]:
    """By link of the racing groups (those whose orders win races, as makers and snipers do): share won, and profit."""
    found: dict[str, float] = {}
    for name, group in run.manifest["scenario"]["participants"].items():
        link = group.get("link")
        if not link:
            continue
        for key, value in (("won", races.get(f"won_{name}")), ("profit", own.get(f"profit_{name}"))):
            if value is not None:
                found[f"{key}_{link}"] = found.get(f"{key}_{link}", 0.0) + value
    return found


def measures_of(settings: Sequence[Setting]) -> list[tuple[str, list[Measure]]]:
    """The measures that apply to any of these, by heading."""
    wins = [_of(WIDE, key, "Races won, share", 3) for key in _keys(settings, WIDE, "won_")]
    wins += [_of(CLASSES, key, "Races won, share, link", 3) for key in _keys(settings, CLASSES, "won_")]
    wins += [_of(_OWN, key, "Lots sniped, share", 3) for key in _keys(settings, _OWN, "snipes_")]
    earns = [_of(_OWN, key, "Gains", 2) for key in _keys(settings, _OWN, "profit_")]
    earns += [_of(CLASSES, key, "Gains, link", 2) for key in _keys(settings, CLASSES, "profit_")]
    groups = [*GROUPS, ("Who wins", tuple(wins)), ("Who earns, by the public value", tuple(earns))]
    applying = [(name, [each for each in measures if any(s.figures(each.key) for s in settings)])
                for name, measures in groups]  # fmt: skip
    return [(name, measures) for name, measures in applying if measures]


def _keys(settings: Sequence[Setting], table: str, prefix: str) -> list[str]:
    found: dict[str, None] = {}
    for setting in settings:
        for summary in setting.summaries:
            found |= dict.fromkeys(key for key in summary.get(table) or {} if key.startswith(prefix))
    return list(found)


def _of(table: str, key: str, what: str, decimals: int) -> Measure:
    return Measure(f"{table}.{key}", f"{what}: {key.partition('_')[2].replace('_', ' ')}", "", decimals)
