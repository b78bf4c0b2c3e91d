"""Which figures of a run's summary are shown, in which order, under which name.

Owns the one list that the report page and the terminal table share. Must not know how either is drawn.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aar_swarm.report import formats

_QUANTILES = ("p50", "p99", "p999", "max")
_LATENCY_KEY = re.compile(r"(?P<family>.+)_ns_(?:p50|p99|p999|max)")
_LATENCY_NAMES = {
    "notice": "Notice: signal taken in to heard",
    "decision": "Decision: heard to sent",
    "decision_calm": "Decision before the signal",
    "decision_stampede": "Decision after the signal",
    "transit": "Transit: sent to received",
    "transit_calm": "Transit before the signal",
    "transit_stampede": "Transit after the signal",
    "venue": "Venue: received to reported",
}


@dataclass(frozen=True)
class Row:
    """One line of the table: `format` is called with the values that `keys` name ("trip.trigger" looks inside)."""

    group: str
    name: str
    keys: tuple[str, ...]
    format: Callable[..., str]
    term: str | None = None
    """The glossary entry that defines it, if one does."""
    optional: bool = False
    """Shown only where a run has it; the other rows are shown always, with a dash where they do not apply."""

    def value(self, summary: Mapping[str, Any]) -> str:
        return self.format(*(look_up(summary, key) for key in self.keys))


def look_up(summary: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key; None where it, or anything on the way to it, is missing or null."""
    value: Any = summary
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


_MONEY, _OWN = "Leverage, loans and the stablecoin", "Of this scenario"
_OUTCOME, _BREAKER, _MARKET, _LATENCY, _RUN = "Outcome", "Circuit breaker", "Market activity", "Latency", "The run"

_ROWS = (
    Row(_OUTCOME, "Drawdown", ("drawdown_bps",), formats.bps, "drawdown"),
    Row(_OUTCOME, "Trough, after the signal", ("trough_ms",), formats.milliseconds, "trough"),
    Row(
        _OUTCOME,
        "Bids exhausted, after the signal",
        ("exhausted_ms",),
        formats.milliseconds,
        "exhausted",
        optional=True,
    ),
    Row(_OUTCOME, "Loss of the crowd", ("loss_crowd",), formats.money, "loss"),
    Row(_OUTCOME, "Loss of all who lost", ("loss_total",), formats.money, "loss"),
    Row(_OUTCOME, "AAR ratio", ("aar_ratio",), formats.ratio, "aar-ratio"),
    Row(_OUTCOME, "Illusion ratio", ("illusion_ratio",), formats.ratio, "illusion-ratio"),
    Row(_OUTCOME, "Cost of the exit", ("exit_cost",), formats.money, "exit-cost", optional=True),
    Row(
        _OUTCOME,
        "Modelled cost of a coordinated exit",
        ("coordinated_cost",),
        formats.money,
        "exit-cost",
        optional=True,
    ),
    Row(_OUTCOME, "Cost that the agents planned", ("planned_cost",), formats.money, "exit-cost", optional=True),
    Row(_OUTCOME, "Price of being early", ("early_price_bps",), formats.bps, "early", optional=True),
    Row(_OUTCOME, "Recovered from the trough", ("recovered_bps",), formats.bps, "recovered", optional=True),
    Row(
        _OUTCOME, "Least bid depth, of that at the signal", ("depth_low_share",), formats.share, "depth", optional=True
    ),
    Row(_MONEY, "Margin calls", ("margin_calls",), formats.count, "liquidation", optional=True),
    Row(_MONEY, "Liquidations of margin accounts", ("liquidations",), formats.count, "liquidation", optional=True),
    Row(_MONEY, "Taken over by the insurance fund", ("taken_over",), formats.count, optional=True),
    Row(_MONEY, "Deleveraged", ("deleveraged",), formats.count, optional=True),
    Row(_MONEY, "Loans liquidated", ("loan_liquidations",), formats.count, "liquidation", optional=True),
    Row(_MONEY, "Attempts to liquidate a loan", ("loan_liquidation_attempts",), formats.count, optional=True),
    Row(_MONEY, "Liquidations in the fullest ms", ("liquidations_per_ms_peak",), formats.count, optional=True),
    Row(
        _MONEY,
        "Value liquidated in the fullest ms",
        ("liquidation_notional_per_ms_peak",),
        formats.money,
        optional=True,
    ),
    Row(_MONEY, "Paid by the insurance fund", ("insurance_fund_used",), formats.money, optional=True),
    Row(_MONEY, "Bad debt", ("bad_debt",), formats.money, "bad-debt", optional=True),
    Row(_MONEY, "Stablecoin's low, of par", ("coin_low_share_of_par",), formats.share, "coin", optional=True),
    Row(_MONEY, "Redemptions", ("redemptions",), formats.count, optional=True),
    Row(_MONEY, "Redemptions refused", ("redemptions_refused",), formats.count, optional=True),
    Row(_BREAKER, "Breaker", ("breaker",), formats.text, optional=True),
    Row(_BREAKER, "Market halted", ("halted",), formats.yes_no),
    Row(_BREAKER, "Tripped by", ("trip.trigger",), formats.text, "trip"),
    Row(_BREAKER, "Observed", ("trip.observed",), formats.count),
    Row(_BREAKER, "Threshold", ("trip.threshold",), formats.count),
    Row(_BREAKER, "Within", ("trip.window_ns",), formats.duration, optional=True),
    Row(_BREAKER, "Tripped at command", ("trip.sequence",), formats.count),
    Row(_BREAKER, "Tripped, after the signal", ("trip.since_signal_ms",), formats.milliseconds, optional=True),
    Row(_BREAKER, "Trades after the trip", ("trades_after_trip",), formats.count),
    Row(_BREAKER, "Agents notified", ("agents_notified",), formats.count, optional=True),
    Row(_BREAKER, "Trip to the last agent notified", ("trip_to_last_notified_ms",), formats.milliseconds),
    Row(_BREAKER, "Processes killed", ("killed_processes",), formats.count, optional=True),
    Row(
        _BREAKER,
        "Kill to the last process dead",
        ("kill_to_last_dead_ms",),
        formats.milliseconds,
        optional=True,
    ),
    Row(_MARKET, "Agents that started to leave", ("agents_exiting",), formats.count, optional=True),
    Row(_MARKET, "Lots that they planned to sell", ("planned_lots",), formats.count, optional=True),
    Row(_MARKET, "Lots of these that they sold", ("sold_lots",), formats.count, optional=True),
    Row(_MARKET, "Most lots sold at market in 100 ms", ("most_sold_lots_100ms",), formats.count, optional=True),
    Row(_MARKET, "Largest fall within 1 s", ("largest_fall_bps_1s",), formats.bps, optional=True),
    Row(
        _MARKET,
        "Their first orders, after the signal",
        ("stampede_first_ms", "stampede_last_ms"),
        formats.span,
        optional=True,
    ),
    Row(_MARKET, "Stampede ordered by", ("stampede_ordered_by",), formats.text, "ordered", optional=True),
    Row(
        _MARKET,
        "Waited for a core until then (p50 / p99 / max)",
        tuple(f"starvation.runqueue_wait_ns_{label}" for label in ("p50", "p99", "max")),
        formats.durations,
        "ordered",
        optional=True,
    ),
    Row(_MARKET, "Commands", ("commands",), formats.count),
    Row(_MARKET, "Events", ("events",), formats.count),
    Row(_MARKET, "Trades", ("trades",), formats.count),
    Row(_MARKET, "Rejects", ("rejects",), formats.count),
    Row(_RUN, "Scenario", ("scenario",), formats.text),
    Row(_RUN, "Seed", ("seed",), formats.identifier),
    Row(_RUN, "Agents requested", ("agents_requested",), formats.count),
    Row(_RUN, "Agent processes started", ("agent_processes_started",), formats.count),
    Row(_RUN, "Agent processes lost", ("agent_processes_lost",), formats.count),
    Row(_RUN, "Hosts", ("hosts",), formats.count),
    Row(_RUN, "Agents a core", ("starvation.agents_per_core",), formats.any_figure, optional=True),
    Row(_RUN, "Hosts' clocks agree within", ("clock_bound_ns",), formats.duration, optional=True),
    Row(_RUN, "State hash", ("state_hash",), formats.text, "state-hash"),
)


def rows_for(summaries: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Every row for these runs: the fixed ones, and one for each further figure and latency that any of them has."""
    rows = [row for row in _ROWS if not row.optional or any(_has(row, summary) for summary in summaries)]
    before = [row for row in rows if row.group != _RUN]
    latency = _latency_rows(summaries) + _calm_to_crash_rows(summaries)
    return before + _own_rows(summaries) + latency + [row for row in rows if row.group == _RUN]


def _has(row: Row, summary: Mapping[str, Any]) -> bool:
    return any(look_up(summary, key) is not None for key in row.keys)


def _own_rows(summaries: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The scenario's own measures, under the names that it gives them."""
    found = dict.fromkeys(name for summary in summaries for name in summary.get("scenario_measures") or ())
    return [
        Row(_OWN, name.replace("_", " ").capitalize(), (f"scenario_measures.{name}",), formats.any_figure)
        for name in found
    ]


def _calm_to_crash_rows(summaries: Sequence[Mapping[str, Any]]) -> list[Row]:
    """What crowding did to latency, of all or of each link."""
    links = dict.fromkeys(name for summary in summaries for name in look_up(summary, "latency_calm.links") or ())
    rows = []
    for link in links or [None]:
        inside, of = ("", "") if link is None else (f"links.{link}.", f", {link}")
        for name, family in (("Transit", "transit"), ("Venue", "venue"), ("Round trip", "round_trip")):
            keys = [
                f"{when}.{inside}{family}_ns_{q}" for when in ("latency_calm", "latency_crash") for q in ("p50", "p99")
            ]
            label = f"{name} in calm → in the crash (p50 / p99){of}"
            rows.append(Row(_LATENCY, label, tuple(keys), formats.change, "quantiles", optional=True))
    return [row for row in rows if any(_has(row, summary) for summary in summaries)]


def _latency_rows(summaries: Sequence[Mapping[str, Any]]) -> list[Row]:
    found = dict.fromkeys(
        match["family"] for summary in summaries for key in summary if (match := _LATENCY_KEY.fullmatch(key))
    )
    order = list(_LATENCY_NAMES)
    families = sorted(found, key=lambda family: order.index(family) if family in order else len(order))
    return [
        Row(
            _LATENCY,
            _LATENCY_NAMES.get(family, family.replace("_", " ").capitalize()),
            tuple(f"{family}_ns_{quantile}" for quantile in _QUANTILES),
            formats.durations,
            "quantiles",
        )
        for family in families
    ]
