"""The study of scale: one scenario at several sizes, as a sweep; what each took, how it grows, one page.

Owns which sizes there are and the study's files: those of a sweep, scaling.json and scaling.html. What a figure means
is in `analysis.scaling`, how it looks in `report.scaling_page`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aar_swarm.analysis.scaling import FIGURES, Scaling, by_size, value
from aar_swarm.analysis.statistics import CONFIDENCE
from aar_swarm.progress import Progress
from aar_swarm.report.scaling_page import line_name, write_scaling_page
from aar_swarm.results import MANIFEST, read_json
from aar_swarm.sweeps.experiment import Experiment
from aar_swarm.sweeps.performing import Sweep, sweep
from aar_swarm.sweeps.records import DONE
from exchange import clock

JSON, PAGE = "scaling.json", "scaling.html"


@dataclass(frozen=True)
class Study:
    sweep: Sweep
    scaling: Scaling
    found: dict[str, Any]
    """What scaling.json holds."""

    @property
    def page(self) -> Path:
        return self.sweep.directory / PAGE


def measure_scaling(
    scenario: str = "exit-door",
    agents: Sequence[int] = (100, 300, 1000),
    hosts: Sequence[int] = (1,),
    agents_per_process: Sequence[int] = (1,),
    repeats: int = 1,
    *,
    breaker: str = "off",
    size: str = "default",
    cores: int | None = None,
    settings: Mapping[str, Any] | None = None,
    address: str | None = None,
    out: str | Path | None = None,
    retry_failed: bool = False,
    alongside: bool = False,
    progress: Progress | None = None,
) -> Study:
    """Run every size `repeats` times, or what is missing of it, and write table and page.

    Args: hosts: more than 1 needs the address of a cluster of just that many nodes; cores: of each run (None: all of
    a node); the rest as in performing.sweep.
    Raises: ConfigurationError, RunFailed. A run that fails is in the result.
    """
    grid: dict[str, Any] = {"agents": list(agents)}
    if list(hosts) != [1]:
        grid["hosts"] = list(hosts)
    if list(agents_per_process) != [1]:
        grid["agents_per_process"] = list(agents_per_process)
    asked = Experiment(
        scenario=scenario, breaker=breaker, size=size, settings=dict(settings or {}), grid=grid, repeats=repeats,
        cores=cores, at_once=1,
    )  # fmt: skip
    directory = Path(out) if out is not None else Path("runs") / f"scaling-{Path(scenario).stem}-{clock.utc_stamp()}"
    made = sweep(asked, directory, address, retry_failed=retry_failed, alongside=alongside, progress=progress)
    return write(scenario, made)


def write(scenario: str, made: Sweep) -> Study:
    """Write scaling.json and scaling.html of a sweep over sizes."""
    scaling = by_size(made.rows)
    told = conditions(scenario, made)
    found = as_dict(scenario, made, scaling, told)
    (made.directory / JSON).write_text(json.dumps(found, indent=1))
    failures = [f"{failed['trial']}: {failed['reason']}" for failed in made.failures]
    write_scaling_page(made.directory / PAGE, f"How {Path(scenario).stem} scales", scaling, failures, told)
    return Study(made, scaling, found)


def as_dict(scenario: str, made: Sweep, scaling: Scaling, told: Mapping[str, str]) -> dict[str, Any]:
    sizes = [
        {**size._asdict(), "runs": len(rows)} | {each.key: [value(row, each) for row in rows] for each in FIGURES}
        for size, rows in scaling.runs.items()
    ]
    growth = [
        {
            "hosts": line[0],
            "agents_per_process": line[1],
            **{
                key: None if (b := by_line[line]) is None else asdict(b) for key, by_line in scaling.exponents().items()
            },
        }
        for line in scaling.lines
    ]
    return {
        "scenario": scenario,
        "units": {each.key: each.unit for each in FIGURES},
        "confidence": CONFIDENCE,
        "sizes": sizes,
        "exponents": growth,
        "conditions": dict(told),
        **made.as_dict(),
        "page": str(made.directory / PAGE),
    }


def conditions(scenario: str, made: Sweep) -> dict[str, str]:
    """Under what circumstances the runs were made."""
    done = [record for record in made.records.values() if record["status"] == DONE]
    manifests = [read_json(Path(record["directory"]) / MANIFEST) for record in done]
    told = {"scenario": scenario, "runs": f"{made.done} of {len(made.planned)}, {len(made.failures)} failed"}
    if manifests:
        settings = {**done[0]["arguments"], **done[0]["settings"]}
        for name in ("scenario", "agents", "hosts", "agents_per_process"):
            settings.pop(name, None)
        told |= {
            "settings": ", ".join(f"{key} = {each}" for key, each in settings.items()) or "the scenario's own",
            "session": _each(f"{m['scenario']['duration_s']:g} s" for m in manifests),
            "cores of a run": _each(m["cores"] for m in manifests),
            "machines": _each(record["host"] for record in done),
            "venue's scheduling": _each(m["scheduling"] for m in manifests),
            "versions": _each(", ".join(f"{name} {v}" for name, v in m["versions"].items()) for m in manifests),
            "lines": "; ".join(line_name(line) for line in by_size(made.rows).lines),
        }
    return told


def _each(values: Any) -> str:
    return "; ".join(dict.fromkeys(map(str, values)))
