"""`aar replay`: the same events, bit for bit; or what another breaker would have done to the same commands."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from aar_swarm import results
from aar_swarm.scenario import explain
from aar_swarm.scenario_tables import MAIN, Breaker
from aar_swarm.what_if import with_breaker
from exchange import clock, journal
from exchange.config import EngineConfig
from exchange.errors import ConfigurationError
from exchange.replay import replay
from exchange.types import EventKind, Trigger


def replay_run(directory: Path, settings: Mapping[str, Any], until: int | None) -> dict[str, Any]:
    """Replay a run's journal, and say whether it is what the venue had.

    Args: settings: breaker.NAME → value for a what-if; until: only the first commands.
    Returns: commands, events, trades, state_hash, events_digest, same (None if it is a what-if, partial, or the run
    left no summary to compare with), halts, and what it took.
    Raises: ConfigurationError; JournalError.
    """
    if not (directory / results.JOURNAL).is_dir():
        raise ConfigurationError(results.not_a_run(directory))
    recorded = journal.read(directory / results.JOURNAL, until)
    config = _with_breaker(recorded.config, settings)
    begun_ns = clock.monotonic_ns()
    replayed = replay(config, recorded.commands)
    took_s = (clock.monotonic_ns() - begun_ns) / clock.SECOND
    found = {
        "commands": len(recorded.commands),
        "events": len(replayed.events),
        "trades": int((replayed.events["kind"] == EventKind.ORDER_FILLED).sum()),
        "state_hash": replayed.engine.state_hash(),
        "events_digest": replayed.events_digest,
    }
    summary = directory / results.SUMMARY
    same = None
    if summary.is_file() and not settings and until is None:
        said = results.read_json(summary)
        if any(key not in said for key in ("commands", "state_hash", "events_digest", "events")):
            raise ConfigurationError(f"{summary}: does not hold a run's figures; take another copy of the run")
        if said["commands"] != found["commands"]:
            raise journal.JournalError(
                f"{directory}: the journal holds {found['commands']} commands and the run had {said['commands']}: "
                f"it is cut off at a record's end or another run's; replay it with --until {found['commands']}"
            )
        same = all(said[key] == found[key] for key in ("state_hash", "events_digest", "events"))
        if not same:
            raise journal.JournalError(
                f"{directory}: the replay gives state {found['state_hash']} and the run had {said['state_hash']}: "
                "the journal or the summary was altered, or this is another version of the engine"
            )
    halts = replayed.events[replayed.events["kind"] == EventKind.INSTRUMENT_HALTED]
    return {
        **found,
        "same": same,
        "halts": [
            {
                "sequence": int(halt["sequence"]),
                "trigger": Trigger(int(halt["reason"])).name,
                "observed": int(halt["value"]),
                "threshold": int(halt["threshold"]),
            }
            for halt in halts
        ],
        "lowest_trade_ticks": _lowest(replayed.events),
        "replay_s": round(took_s, 3),
    }


def _lowest(events: np.ndarray) -> int | None:
    fills = events[(events["kind"] == EventKind.ORDER_FILLED) & (events["instrument"] == MAIN)]
    return int(fills["price_ticks"].min()) if len(fills) else None


def _with_breaker(config: EngineConfig, settings: Mapping[str, Any]) -> EngineConfig:
    """The configuration with changed breaker settings, named as in a scenario, of the main instrument."""
    changes = {}
    for key, value in settings.items():
        table, _, name = key.partition(".")
        if table != "breaker" or name not in Breaker.model_fields:
            known = ", ".join(f"breaker.{field}" for field in Breaker.model_fields)
            raise ConfigurationError(f"unknown setting {key!r}; a replay can change: {known}")
        changes[name] = value
    if not changes:
        return config
    main = config.instruments[MAIN]
    try:
        had = Breaker.from_ns(main.breaker, config.market_breaker).model_dump()
        breaker = Breaker.model_validate({**had, **changes})
        return with_breaker(config, breaker)  # one that could never trip is refused here too
    except ValidationError as error:
        raise ConfigurationError(explain(error, "breaker.")) from None
