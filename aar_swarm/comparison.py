"""Several runs of one scenario, one setting apart, one after the other: timings must not contaminate each other."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aar_swarm.progress import Progress
from aar_swarm.report.pictures import write_comparison
from aar_swarm.results import REPORT, Run
from aar_swarm.runner import prepare, run
from exchange import clock
from exchange.errors import ConfigurationError


@dataclass(frozen=True)
class Comparison:
    values: list[str]
    runs: list[Run]
    report: Path


def compare(
    scenario: str,
    vary: str,
    values: list[str],
    *,
    agents: int | None = None,
    breaker: str = "default",
    settings: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
    alongside: bool = False,
    **common: Any,
) -> Comparison:
    """Run the scenario once for each value of `vary`: `breaker`, `agents`, or a key of `--set`.

    Raises: as run; a bad value is found before anything runs.
    """
    each: list[dict[str, Any]] = []
    for value in values:
        chosen: dict[str, Any] = {"agents": agents, "breaker": breaker, "settings": dict(settings or {})}
        if vary == "breaker":
            chosen["breaker"] = value
        elif vary == "agents":
            if not value.isdecimal():
                raise ConfigurationError(f"--vary agents={value}: must be a whole number")
            chosen["agents"] = int(value)
        else:
            chosen["settings"][vary] = value
        prepare(scenario, **chosen, **common)
        each.append(chosen)
    if len(set(values)) < len(values):
        raise ConfigurationError(f"--vary {vary}={','.join(values)}: names a value twice")
    directory = Path(out) if out is not None else Path("runs") / f"compare-{Path(scenario).stem}-{clock.utc_stamp()}"
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ConfigurationError(
            f"--out {directory}: is there already and nothing is overwritten; name a new directory"
        )
    runs = []
    for value, chosen in zip(values, each, strict=True):
        if progress is not None:
            progress.stage(f"{vary} = {value}")
        place = directory / f"{vary}={value}".replace("/", "_")
        runs.append(run(scenario, out=place, progress=progress, alongside=alongside, **chosen, **common))
    report = directory.resolve() / REPORT
    write_comparison(report, runs, [f"{vary} {value}" for value in values])
    return Comparison(values, runs, report)
