"""`aar export`: which files a format is, where they go, and what a run has to give for them."""

from pathlib import Path

from aar_swarm.analysis.tables import from_records, trace_tops
from aar_swarm.exports import hft_races, lobster
from aar_swarm.results import MANIFEST, Run, answered_ns
from exchange import journal
from exchange.errors import ConfigurationError
from exchange.replay import replay


def export(run: Run, format: str, out: Path | None = None, instrument: int = 0) -> list[Path]:
    """Write a run's messages; returns the files.

    Args: format: "hft-races" (docs/races.md), "lobster" or "parquet" (every command and event, all instruments); out:
    a directory that is new or empty (None: export-FORMAT in the run's). Raises: ConfigurationError; JournalError.
    """
    recorded = journal.read(run.journal)
    if not 0 <= instrument < len(recorded.config.instruments):
        raise ConfigurationError(
            f"--instrument {instrument}: {run.directory} has {len(recorded.config.instruments)}, from 0"
        )
    directory = out or run.directory / f"export-{format}"
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ConfigurationError(
            f"--out {directory}: is there already and nothing is overwritten; name a new directory"
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"--out {directory}: {error.strerror}; name one that can be written") from None
    events = replay(recorded.config, recorded.commands).events
    scenario = run.manifest.get("scenario")
    if scenario is None or "started_utc" not in run.manifest:
        raise ConfigurationError(
            f"{run.directory / MANIFEST}: names no scenario or start; take another copy of the run"
        )
    tick_size = float(scenario["instrument"]["tick_size"])
    stem = scenario["name"] if instrument == 0 else f"{scenario['name']}-{instrument}"
    if format == "parquet":
        paths = [directory / "commands.parquet", directory / "events.parquet"]
        from_records(recorded.commands).write_parquet(paths[0])
        from_records(events).write_parquet(paths[1])
        return paths
    if format == "lobster":
        return lobster.write(recorded, events, instrument, tick_size, directory / stem)
    path = directory / f"{stem}.csv"
    hft_races.write(
        recorded,
        events,
        trace_tops(recorded, instrument),
        answered_ns(run, recorded.commands),
        instrument,
        stem,
        run.manifest["started_utc"],
        tick_size,
        path,
    )
    return [path]
