"""`aar postmortem`: the chain of a run's crash, and what each defence would have saved; from its journal alone.

Owns the assembly and the files. The chain is analysis/postmortem.py's, the replays are what_if.py's, the page and the
text are the report's.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import ValidationError

from aar_swarm import results, what_if
from aar_swarm.analysis import postmortem as chains
from aar_swarm.analysis.chain import Chain, build, worths
from aar_swarm.analysis.fall import deepest
from aar_swarm.analysis.session import BPS, RECORDING, Session
from aar_swarm.analysis.tables import trace_tops
from aar_swarm.scenario import Scenario, explain
from exchange import journal
from exchange.clock import MS
from exchange.errors import ConfigurationError
from exchange.journal import Journal, JournalError
from exchange.replay import replay
from exchange.types import EventKind

POSTMORTEM, PAGE = "postmortem.json", "postmortem.html"
CAUSES, STEP_LOSSES = "causes.parquet", "step_losses.parquet"
_REJECTS = (EventKind.ORDER_REJECTED, EventKind.CANCEL_REJECTED, EventKind.REQUEST_REJECTED)
_SAVED = ("drawdown_bps", "loss_subject", "loss_total", "bad_debt", "liquidations", "trades")


class PostMortem(NamedTuple):
    session: Session
    chain: Chain | None
    found: dict[str, Any]
    """postmortem.json; docs/postmortem.md has its schema."""


def read_session(directory: Path) -> tuple[Session, Journal, dict[str, Any]]:
    """A finished run's session from its journal, the journal, and its summary.

    Raises: ConfigurationError: no run, an unfinished one, or a damaged file; JournalError: the journal is damaged, or
    is not that of the summary.
    """
    run = results.load(directory)
    manifest, summary = run.manifest, run.summary
    try:
        scenario = Scenario.model_validate(manifest["scenario"])
        owners = sorted((first, end, name) for name, (first, end) in manifest["accounts"].items())
    except ValidationError as error:
        raise ConfigurationError(f"{directory / results.MANIFEST}: {explain(error, 'scenario.')}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{directory / results.MANIFEST}: {type(error).__name__}: {error}; take another copy of the run"
        ) from None
    groups = [name for first, end, name in owners for _ in range(end - first)]
    if not run.journal.is_dir():
        raise ConfigurationError(results.not_a_run(directory))
    recorded = journal.read(run.journal)
    replayed = replay(recorded.config, recorded.commands)
    if summary.get("state_hash") != replayed.engine.state_hash():
        raise JournalError(
            f"{directory}: the journal's replay does not end in the state of {results.SUMMARY}: one of the two was "
            "altered, or this is another version of the engine; see `aar replay`"
        )
    coin = recorded.config.stablecoin
    session = Session(
        scenario,
        groups,
        recorded.commands,
        replayed.events,
        trace_tops(recorded),
        recorded.config,
        coin_tops=None if coin is None else trace_tops(recorded, coin.instrument),
    )
    return session, recorded, summary


def examine(directory: Path, progress: Callable[[str], None] = lambda text: None) -> PostMortem:
    """The whole post-mortem of a run. progress is told what is being done. Raises: as read_session."""
    session, recorded, summary = read_session(directory)
    return examine_session(
        session, recorded, {"breaker": summary.get("breaker"), "seed": summary.get("seed")}, progress
    )


def examine_session(
    session: Session, recorded: Journal, run: dict[str, Any], progress: Callable[[str], None] = lambda text: None
) -> PostMortem:
    """run: what is said of the run beside the scenario's name."""
    progress("following every command back to its cause")
    chain = build(session)
    found: dict[str, Any] = {
        "scenario": session.scenario.name,
        **run,
        "commands": len(session.commands),
        "fell": chain is not None,
        "caveat": what_if.SAME_COMMANDS,
    }
    if chain is None:
        nothing: dict[str, Any] = {"chain": [], "decisions": [], "depths": [], "paths": {}, "stops": [], "defences": []}
        return PostMortem(session, None, found | {"fall": None, "first_cause": None} | nothing)
    told, _ = chains.steps(chain)
    found |= {
        "fall": _fall(chain),
        "first_cause": {
            "what": chain.cause,
            "sequence": chain.cause_sequence,
            "since_open_ms": _since_open_ms(session, chain.cause_sequence),
            "share_of_first_half": round(chain.cause_share, 4),
            "first_wave": chains.first_wave(chain),
        },
        "subject": chain.subject,
        "loss_subject": round(sum(step["loss_subject"] for step in told), 2),
        "chain": told,
        "decisions": chains.decisions(chain).to_dicts(),
        "depths": chains.depths(chain),
        "paths": chains.paths(chain),
        "stops": chains.stops(chain),
    }
    return PostMortem(session, chain, found | _defences(chain, recorded, progress))


def _fall(chain: Chain) -> dict[str, Any]:
    fall = chain.fall
    lows = {name: value for name, value in fall._asdict().items() if not name.endswith("_sequence")}
    times = {
        f"{name.removesuffix('_sequence')}_ms": chain.ms(value)
        for name, value in fall._asdict().items()
        if name.endswith("_sequence")
    }
    return {"fall_bps": round(fall.fall_bps, 2), **lows, **times, "trough_sequence": fall.trough_sequence}


def _since_open_ms(session: Session, sequence: int) -> float | None:
    if session.opened_ns is None:
        return None
    return round((int(session.commands["received_ns"][sequence - 1]) - session.opened_ns) / MS, 3)


# ── what each defence would have saved ───────────────────────────────────────────────────────────────────────────────


def outcome(chain: Chain, session: Session, start: int, peak: int) -> dict[str, Any]:
    """How bad it was from command `start` on: of the run itself, or of a replay of it.

    Args: start, peak: sequences in it of the first cause and of the peak. drawdown_bps: the largest fall of the trades
    from the earlier of the two on; losses as of the steps; stopped_ms: the first halt of the main instrument since the
    first cause, null: none.
    """
    events = session.events[
        (session.events["sequence"] >= start) & (session.events["sequence"] < session.close_sequence)
    ]
    kinds = events["kind"]
    fills = session.fills[session.fills["sequence"] < session.close_sequence]
    prices = fills["price_ticks"][fills["sequence"] >= min(start, peak)]
    fallen = None
    if len(prices):
        high, low = deepest(prices)
        fallen = round(int(prices[high] - prices[low]) / int(prices[high]) * BPS, 2)
    worth = worths(session, [start, session.close_sequence])[:, : len(session.groups)] * session.tick_size
    lost = worth[0] - worth[1]
    counted = session.groups != RECORDING
    halts = session.events[
        (session.events["kind"] == EventKind.INSTRUMENT_HALTED) & (session.events["instrument"] == 0)
    ]
    cause_ns = int(chain.session.commands["received_ns"][chain.cause_sequence - 1])
    facilities = session.config.margin or session.config.lending
    return {
        "drawdown_bps": fallen,
        "loss_subject": round(float(lost[session.groups == chain.subject].sum()), 2),
        "loss_total": round(float(np.maximum(lost[counted], 0).sum()), 2),
        "bad_debt": round(int(events["value"][kinds == EventKind.BAD_DEBT_BOOKED].sum()) * session.tick_size, 2)
        if facilities
        else None,
        "liquidations": int(np.isin(kinds, (EventKind.LIQUIDATION_STARTED, EventKind.LOAN_LIQUIDATED)).sum())
        if facilities
        else None,
        "trades": int((kinds == EventKind.ORDER_FILLED).sum()),
        "refused": int(np.isin(kinds, _REJECTS).sum()),
        "stopped_ms": round((int(halts["time_ns"][0]) - cause_ns) / MS, 3) if len(halts) else None,
    }


def _defences(chain: Chain, recorded: Journal, progress: Callable[[str], None]) -> dict[str, Any]:
    session = chain.session
    chosen, supervisor = what_if.defences(session.scenario, recorded, chain.cause_sequence)
    if supervisor["first_alert"]:
        supervisor["first_alert"]["ms"] = chain.ms(supervisor["first_alert"]["sequence"])
    base = outcome(chain, session, chain.cause_sequence, chain.fall.peak_sequence)
    rows = []
    for defence in chosen:
        progress(f"replaying the same commands with {defence.name}")
        again = what_if.replay_with(recorded, defence)
        other = Session(
            session.scenario,
            session.groups.tolist(),
            again.journal.commands,
            again.events,
            again.tops,
            again.journal.config,
            coin_tops=again.coin_tops,
        )
        start, peak = (int(again.positions[each - 1]) for each in (chain.cause_sequence, chain.fall.peak_sequence))
        got = outcome(chain, other, start, peak)
        rows.append(
            {
                "defence": defence.name,
                "kind": defence.kind,
                "what": defence.words,
                **got,
                "saved": {name: _less(base[name], got[name]) for name in _SAVED},
                "timers_added": again.timers,
            }
        )
    return {"without": base, "supervisor": supervisor, "defences": rows}


def _less(base: float | None, with_it: float | None) -> float | None:
    return None if base is None or with_it is None else round(base - with_it, 2)


# ── the files ────────────────────────────────────────────────────────────────────────────────────────────────────────


def postmortem(directory: Path, progress: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Examine a run, write postmortem.json and .html (and, of a fall, causes.parquet and step_losses.parquet) into its
    directory, and return what the first of them says. Raises: as read_session."""
    from aar_swarm.report.postmortem_page import write_page

    examined = examine(directory, progress)
    progress("writing the page")
    (directory / POSTMORTEM).write_text(json.dumps(examined.found, indent=1))
    if examined.chain is not None:
        chains.causes_table(examined.chain).write_parquet(directory / CAUSES)
        chains.steps(examined.chain)[1].write_parquet(directory / STEP_LOSSES)
    write_page(directory / PAGE, examined.found, examined.chain, examined.session)
    return examined.found
