"""From a journal to a run directory: replay it, prove it the same, write tables, summary, notices and report."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from aar_swarm import results
from aar_swarm.analysis import link_check, tables
from aar_swarm.analysis.agreement import lobster_agreement
from aar_swarm.analysis.calm import calm, refusals
from aar_swarm.analysis.calm_crash import PING_COLUMNS, calm_and_crash
from aar_swarm.analysis.host_clocks import host_clocks, kills_on_venue_clock, rows_on_venue_clock
from aar_swarm.analysis.losses import losers_table
from aar_swarm.analysis.measures import RECORDING, Session, check_conservation, measure, own_measures
from aar_swarm.analysis.ordering import stampede_order
from aar_swarm.analysis.price import liquidity_table
from aar_swarm.analysis.supervision import supervision
from aar_swarm.analysis.timing import kill_times, starvation
from aar_swarm.report.pictures import write_run_report
from aar_swarm.scenario import Scenario
from aar_swarm.vendors import placement as vendors
from cluster.scoreboard import AgentState
from exchange import journal
from exchange.config import EngineConfig
from exchange.replay import replay, state_hashes
from exchange.server import TIMINGS_FILE
from exchange.state import Array
from exchange.types import DECISION_COMMANDS, BreakerAction, EventKind, Phase, Reason, Trigger

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
    clocks = host_clocks(manifest, len(groups))
    latency = tables.latency_table(recorded.commands, timings, clocks.offset_ns)
    coin = recorded.config.stablecoin
    session = Session(
        scenario,
        groups,
        recorded.commands,
        replayed.events,
        tops,
        recorded.config,
        coin_tops=None if coin is None else tables.trace_tops(recorded, coin.instrument),
        leverages=scenario.leverages(len(groups)),
    )
    rows = rows_on_venue_clock(outcome["rows"], clocks)
    kills = kills_on_venue_clock(outcome["kills"], clocks)
    delays = [scenario.link_delays_ns(link) for link in outcome["link_of"]]
    pings = pl.DataFrame(outcome["pings"], PING_COLUMNS, orient="row")
    measured, losses = measure(session, rows, latency, timings)
    gone = outcome["hosts_lost"]
    unknown = [agent for host in gone for agent in host.agents]
    killed = {agent for kill in kills for agent, _ in kill["deaths"]}
    lost = [end for end in outcome["exited"] if end[2] != 0 and end[0] not in killed]
    # A process's first agent has its state; an agent that was killed within a process that lived on is not lost.
    first = rows[np.isin(rows["agent_id"], outcome["processes"])]
    finished = int(((first["state"] == AgentState.FINISHED) & ~np.isin(first["agent_id"], list(killed))).sum())
    summary = {
        "scenario": scenario.name,
        "breaker": scenario.breaker_name,
        "seed": manifest["seed"],
        "agents_requested": manifest["agents"],
        "agents_per_process": manifest["agents_per_process"],
        "agent_processes_started": len(first),
        "agent_processes_lost": len(first) - finished - len(killed),
        "agents_killed_within_processes": _killed_within(rows, killed) if len(first) < len(rows) else None,
        "relay": relayed(outcome["relays"]),
        "agent_exits": sorted(lost)[:20],
        "session_s": round(outcome["session_s"], 3),
        "cores_busy": None if outcome["cores_busy"] is None else round(outcome["cores_busy"], 3),
        "agents_start_s": round(outcome["start_s"], 3),
        "agent_memory_kb": round(outcome["memory_kb"] / max(len(rows), 1)),
        "hosts": len(manifest["hosts"]),
        "hosts_lost": [{"address": host.address, "agents": len(host.agents), "why": host.why} for host in gone],
        "scheduling": manifest["scheduling"],
        "state_hash": final["state_hash"],
        "events_digest": final["events_digest"],
        **vendors.summarised(outcome["vendor_rows"]),
        "messages_refused": final["refused"],
        "messages_held": final["held"] if scenario.sequencing.config().capacity else None,
        "messages_held_late": final["held_late"] if scenario.sequencing.hold_ms else None,
        "reports_unsent": final["reports_unsent"],
        **measured,
        **calm_and_crash(session, latency, outcome["link_of"], pings, measured["stampede_last_ms"]),
        "links": outcome["links"] or None,
        "links_off_nominal": link_check.off_nominal(outcome["links"]) or None,
        **refusals(session),
        "calm": calm(session, outcome["supervisor"]),
        **own_measures(session, rows),
        **kill_times(session, kills),
        "clock_bound_ns": manifest["clock_bound_ns"],
        "starvation": starvation(rows, manifest["hosts"], manifest["cores"]),
        **stampede_order(session, outcome["rows"], timings, clocks, delays),
        "supervisor": supervision(session, outcome["supervisor"], final["state_hash"]),
    }
    if outcome["supervisor"]:
        (directory / results.ALERTS).write_text(outcome["supervisor"]["told"])
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
    losers_table(session).write_parquet(directory / results.LOSERS)
    liquidity_table(session).write_parquet(directory / results.LIQUIDITY)
    zero_ns = session.signal_ns or session.opened_ns or 0
    liquidations = tables.liquidations_table(replayed.events, groups, zero_ns)
    liquidations.write_parquet(directory / results.LIQUIDATIONS)
    if session.coin_tops is not None:
        tables.from_records(session.coin_tops).write_parquet(directory / results.COIN_BOOK)
    agents = agents_table(rows, groups, unknown).with_columns(pl.Series("link", outcome["link_of"]))
    agents.write_parquet(directory / results.AGENTS)
    if outcome["links"]:
        pings.write_parquet(directory / results.LINK_PINGS)
    write_notices(directory / results.NOTICES, recorded.config, recorded.commands, replayed.events, timings)
    (directory / results.SUMMARY).write_text(json.dumps(summary, indent=1))
    write_run_report(results.Run(directory))


def _killed_within(rows: np.ndarray, killed: set[int]) -> int:
    """Agents that were killed while their process lived on. killed: whose processes were; an agent of those may have
    heard of it, or not."""
    gone = np.isin(rows["pid"], rows["pid"][np.isin(rows["agent_id"], list(killed))])
    return int(((rows["killed_ns"] > 0) & ~gone).sum())


def relayed(relays: list[dict[str, Any] | None]) -> dict[str, Any] | None:
    """What the hosts' relays did together: sums, and of most_waiting and longest_pass_ns the highest; how many were
    lost, of which nothing is known. None without relays."""
    if not relays:
        return None
    known = [relay for relay in relays if relay is not None]
    found: dict[str, Any] = {"lost": len(relays) - len(known)}
    for name in known[0] if known else ():
        values = [relay[name] for relay in known]
        if name == "scheduling":
            found[name] = " and ".join(sorted(set(values)))
        else:
            found[name] = max(values) if name in ("most_waiting", "longest_pass_ns") else sum(values)
    return found


def agents_table(rows: Array, groups: list[str], unknown: list[int]) -> pl.DataFrame:
    """The agents' rows and groups; of the unknown, whose host was lost, nothing but who they are."""
    table = tables.from_records(rows).with_columns(pl.Series("participants", groups))
    known = ~pl.col("agent_id").is_in(unknown)
    said = [name for name in table.columns if name not in ("agent_id", "participants")]
    return table.with_columns(pl.when(known).then(pl.col(name)).alias(name) for name in said) if unknown else table


def _first_of_others(commands: Array, account: int) -> int:
    """Sequence of the first participant's command that is not the account's, or one past the end."""
    others = commands[np.isin(commands["kind"], DECISION_COMMANDS) & (commands["account"] != account)]
    return int(others["sequence"][0]) if len(others) else len(commands) + 1


_PUBLIC = (
    EventKind.INSTRUMENT_HALTED,
    EventKind.SESSION_OPENED,
    EventKind.SIGNAL_PUBLISHED,
    EventKind.SESSION_CLOSED,
    EventKind.PHASE_CHANGED,
    EventKind.PARTICIPANTS_KILLED,
    EventKind.AUCTION_EXTENDED,
    EventKind.THRESHOLD_PUBLISHED,
)


def write_notices(path: Path, config: EngineConfig, commands: Array, events: Array, timings: Array) -> None:
    """What was told to everyone about the session, one JSON object a line. What oracles said is in events.parquet.

    A halt and a kill have the state hash at their command, from a replay of what came before.
    """
    public = events[np.isin(events["kind"], _PUBLIC)]
    stops = public[np.isin(public["kind"], (EventKind.INSTRUMENT_HALTED, EventKind.PARTICIPANTS_KILLED))]
    hashes = state_hashes(config, commands, [int(number) for number in stops["sequence"]])
    with path.open("w") as file:
        for at, event in enumerate(public):
            kind, sequence = int(event["kind"]), int(event["sequence"])
            notice: dict[str, Any] = {
                "notice": EventKind(kind).name,
                "sequence": sequence,
                "received_ns": int(event["time_ns"]),
                "matched_ns": int(timings["matched_ns"][sequence - 1]) if sequence <= len(timings) else None,
            }
            if event["instrument"] >= 0:
                notice["instrument"] = int(event["instrument"])
            if kind == EventKind.INSTRUMENT_HALTED:
                until_ns = _phase_ends_ns(public[at + 1])  # the phase's change follows its halt
                notice |= _halt_told(event, until_ns) | {"state_hash": hashes[sequence]}
            elif kind == EventKind.PARTICIPANTS_KILLED:
                notice |= {
                    "trigger": Trigger(int(event["reason"])).name,
                    "account": None if event["account"] < 0 else int(event["account"]),
                    "participants": int(event["quantity_lots"]),
                    "orders_cancelled": int(event["threshold"]),
                    "answer_to_later_commands": Reason.IS_KILLED.name,
                    "state_hash": hashes[sequence],
                }
            elif kind == EventKind.SIGNAL_PUBLISHED:
                notice["bps"] = int(event["value"])
            elif kind == EventKind.PHASE_CHANGED:
                notice |= {"phase": Phase(int(event["value"])).name, "until_ns": _phase_ends_ns(event)}
            elif kind == EventKind.AUCTION_EXTENDED:
                notice |= {"price_ticks": int(event["price_ticks"]), "collar_bps": int(event["value"])}
                notice["reference_ticks"] = int(event["threshold"])
            elif kind == EventKind.THRESHOLD_PUBLISHED:
                notice |= {"trigger": Trigger(int(event["reason"])).name, "threshold": int(event["threshold"])}
                notice["window_ns"] = int(event["window_ns"])
            file.write(json.dumps(notice) + "\n")


def _halt_told(event: np.void, until_ns: int | None) -> dict[str, Any]:
    """What tripped, the evidence, what it does and until when."""
    trigger = Trigger(int(event["reason"]))
    told: dict[str, Any] = {"trigger": trigger.name}
    if trigger == Trigger.MARKET:
        told["because_of_instrument"] = int(event["value"])
    elif trigger == Trigger.SUPERVISOR:
        told["evidence"] = {"sequence": int(event["maker_order_id"])}
    else:
        told |= {
            "observed": int(event["value"]),
            "threshold": int(event["threshold"]),
            "window_ns": int(event["window_ns"]),
            "evidence": {"first_sequence": int(event["maker_order_id"]), "last_sequence": int(event["sequence"])},
            "prevented": {
                "account": int(event["account"]),
                "order_id": int(event["order_id"]),
                "price_ticks": int(event["price_ticks"]),
                "quantity_lots": int(event["quantity_lots"]),
            },
            "action": BreakerAction(int(event["maker_leaves_lots"])).name,
        }
    return told | {
        "answer_to_later_commands": Reason.HALTED.name,
        "until": "the session closes" if until_ns is None else "the reopening auction begins",
        "until_ns": until_ns,
        "fix": _FIX_HALT,
    }


def _phase_ends_ns(changed: np.void) -> int | None:
    """When a timer ends the phase that a PHASE_CHANGED begins; None: none does."""
    return int(changed["threshold"]) or None
