"""From a journal to a run directory: replay it, prove it the same, write tables, summary, notices and report."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from aar_swarm import results
from aar_swarm.analysis import tables
from aar_swarm.analysis.agreement import lobster_agreement
from aar_swarm.analysis.measures import RECORDING, Session, check_conservation, measure
from aar_swarm.report.pictures import write_run_report
from aar_swarm.scenario import Scenario
from cluster.scoreboard import AgentState
from exchange import journal
from exchange.replay import replay
from exchange.server import TIMINGS_FILE
from exchange.state import Array
from exchange.types import ORDER_COMMANDS, EventKind, Reason, Trigger

# FIX codes beside ours: SecurityTradingStatus (326), SecurityTradingEvent (1174), MassActionReason (2675).
_FIX_HALT = {"SecurityTradingStatus": 2, "SecurityTradingEvent": 3, "MassActionReason": 11}


class ReplayDiffers(RuntimeError):
    """A replay did not give what the venue had: a fault of this program or of the disk."""


def write_up(
    directory: Path,
    scenario: Scenario,
    groups: list[str],
    manifest: dict[str, Any],
    outcome: dict[str, Any],
    recording: str | None,
) -> None:
    """Write everything of a run that derives from its journal.

    Raises: ReplayDiffers: the journal's replay is not what the venue said; NotConserved.
    """
    recorded = journal.read(directory / results.JOURNAL)
    replayed = replay(recorded.config, recorded.commands)
    final = outcome["final"]
    for what, live, again in (
        ("state hash", final["state_hash"], replayed.engine.state_hash()),
        ("events' digest", final["events_digest"], replayed.events_digest),
    ):
        if live != again:
            raise ReplayDiffers(f"{what}: the venue said {live} and its journal gives {again}")
    check_conservation(replayed.engine, replayed.events)
    timings = np.load(directory / results.JOURNAL / TIMINGS_FILE)
    tops = tables.trace_tops(recorded)
    latency = tables.latency_table(recorded.commands, timings)
    session = Session(scenario, groups, recorded.commands, replayed.events, tops)
    rows = outcome["rows"]
    measured, losses = measure(session, rows, latency, timings)
    lost = [end for end in outcome["exited"] if end[2] != 0]
    finished = int((rows["state"] == AgentState.FINISHED).sum())
    summary = {
        "scenario": scenario.name,
        "breaker": scenario.breaker_name,
        "seed": manifest["seed"],
        "agents_requested": manifest["agents"],
        "agent_processes_started": len(rows),
        "agent_processes_lost": len(rows) - finished,
        "agent_exits": sorted(lost)[:20],
        "session_s": round(outcome["session_s"], 3),
        "agents_start_s": round(outcome["start_s"], 3),
        "agent_memory_kb": round(outcome["memory_kb"] / max(len(rows), 1)),
        "hosts": len(manifest["hosts"]),
        "scheduling": manifest["scheduling"],
        "state_hash": final["state_hash"],
        "events_digest": final["events_digest"],
        "messages_refused": final["refused"],
        "reports_unsent": final["reports_unsent"],
        **measured,
    }
    if recording is not None:
        summary["background"] = lobster_agreement(
            recording,
            recorded.commands,
            tops,
            groups.index(RECORDING),
            _first_of_others(recorded.commands, groups.index(RECORDING)),
        )
    tables.from_records(replayed.events).write_parquet(directory / results.EVENTS)
    tables.trades_table(replayed.events).write_parquet(directory / results.TRADES)
    tables.decisions_table(recorded.commands, groups).write_parquet(directory / results.DECISIONS)
    tables.from_records(tops).write_parquet(directory / results.BOOK)
    latency.write_parquet(directory / results.LATENCY)
    losses.write_parquet(directory / results.LOSSES)
    tables.from_records(rows).with_columns(pl.Series("participants", groups)).write_parquet(directory / results.AGENTS)
    _write_notices(directory / results.NOTICES, replayed.events, timings)
    (directory / results.SUMMARY).write_text(json.dumps(summary, indent=1))
    write_run_report(results.Run(directory))


def _first_of_others(commands: Array, account: int) -> int:
    """Sequence of the first participant's command that is not the account's, or one past the end."""
    others = commands[np.isin(commands["kind"], ORDER_COMMANDS) & (commands["account"] != account)]
    return int(others["sequence"][0]) if len(others) else len(commands) + 1


def _write_notices(path: Path, events: Array, timings: Array) -> None:
    """What was told to everyone, one JSON object a line."""
    public = np.isin(
        events["kind"],
        (
            EventKind.INSTRUMENT_HALTED,
            EventKind.SESSION_OPENED,
            EventKind.SIGNAL_PUBLISHED,
            EventKind.SESSION_CLOSED,
        ),
    )
    with path.open("w") as file:
        for event in events[public]:
            sequence = int(event["sequence"])
            notice: dict[str, Any] = {
                "notice": EventKind(int(event["kind"])).name,
                "sequence": sequence,
                "received_ns": int(event["time_ns"]),
                "matched_ns": int(timings["matched_ns"][sequence - 1]) if sequence <= len(timings) else None,
            }
            if event["kind"] == EventKind.INSTRUMENT_HALTED:
                notice |= {
                    "instrument": int(event["instrument"]),
                    "trigger": Trigger(int(event["reason"])).name,
                    "observed": int(event["value"]),
                    "threshold": int(event["threshold"]),
                    "window_ns": int(event["window_ns"]),
                    "prevented": {
                        "account": int(event["account"]),
                        "order_id": int(event["order_id"]),
                        "price_ticks": int(event["price_ticks"]),
                        "quantity_lots": int(event["quantity_lots"]),
                    },
                    "answer_to_later_commands": Reason.HALTED.name,
                    "until": "the session closes",
                    "fix": _FIX_HALT,
                }
            elif event["kind"] == EventKind.SIGNAL_PUBLISHED:
                notice |= {"instrument": int(event["instrument"]), "bps": int(event["value"])}
            file.write(json.dumps(notice) + "\n")
