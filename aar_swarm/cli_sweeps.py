"""The command line of experiments with many runs: `aar sweep`, `aar sql` and `aar scaling`. Thin, as cli.py is."""

import csv
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from exchange.errors import ConfigurationError

_out = Console(highlight=False)

Address = Annotated[str | None, typer.Option(help="Of a Ray cluster whose nodes make the trials. [default: this one]")]
Out = Annotated[Path | None, typer.Option(help="Directory; of the same sweep: go on with it. [default: under runs/]")]
Alongside = Annotated[bool, typer.Option("--alongside", help="Share the machine with a run that is under way.")]
Retry = Annotated[bool, typer.Option("--retry-failed", help="Also make those again that failed.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


def sweep(
    experiment: Annotated[Path, typer.Argument(metavar="EXPERIMENT.toml", help="See docs/sweep.md.")],
    out: Out = None,
    address: Address = None,
    retry_failed: Retry = False,
    alongside: Alongside = False,
    as_json: AsJson = False,
) -> int:
    """Make every trial of an experiment: a grid or a list of settings times seeds, each on cores of its own. With the
    --out of one that was ended, however it was, it goes on where it stopped."""
    from aar_swarm.display import Display
    from aar_swarm.sweeps.performing import sweep as perform

    with Display() as display:
        found = perform(experiment, out, address, retry_failed=retry_failed, alongside=alongside, progress=display)
    if as_json:
        print(json.dumps(found.as_dict()))
    else:
        print(f"{found.done} of {len(found.planned)} trials made, {len(found.failures)} failed.")
        for failed in found.failures:
            print(f"  {failed['trial']}: {failed['reason']}")
        print(f"Sweep: {found.directory}\nTable: {found.as_dict()['table']}")
    return 1 if found.failures or found.missing else 0


def sql(
    query: Annotated[str, typer.Argument(metavar="SELECT", help="One query, in DuckDB's SQL; see docs/sweep.md.")],
    directories: Annotated[
        list[Path] | None, typer.Argument(help="Where runs and sweeps are, at any depth. [default: runs]")
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
    as_json: AsJson = False,
) -> None:
    """Ask all runs and sweeps at once. Tables: trials, runs, and of each run events, decisions, latency, trades, book,
    agents, losses, losers, liquidity, liquidations, races, with its directory in the column run."""
    from aar_swarm.sweeps.sql import query as ask

    if as_csv and as_json:
        raise ConfigurationError("--csv: and --json exclude each other; leave one out")
    names, rows = ask(query, directories or ())
    if as_json:
        print(json.dumps({"columns": names, "rows": rows}, default=str))
    elif as_csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(names)
        writer.writerows(rows)
    else:
        shown = Table(*names)
        for row in rows:
            shown.add_row(*map(_cell, row))
        _out.print(shown, markup=False)


def scaling(
    scenario: Annotated[str, typer.Argument(help="Name of a scenario, or path of your own .toml.")] = "exit-door",
    agents: Annotated[str, typer.Option(metavar="A,B,…", help="Numbers of agents.")] = "100,300,1000",
    hosts: Annotated[str, typer.Option(metavar="A,B,…", help="Numbers of hosts; above 1 with --address.")] = "1",
    agents_per_process: Annotated[
        list[str] | None, typer.Option(metavar="K", help="Of each agent process; may be repeated. [default: 1]")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each size, with seeds 1, 2, …")] = 1,
    breaker: Annotated[str, typer.Option(help="Name of one of the scenario's breakers, or off.")] = "off",
    size: Annotated[str, typer.Option(help="Name of one of the scenario's sizes, as small.")] = "default",
    cores: Annotated[int | None, typer.Option(min=1, help="Of each run. [default: all of a node]")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="May be repeated.")] = None,
    out: Out = None,
    address: Address = None,
    retry_failed: Retry = False,
    alongside: Alongside = False,
    as_json: AsJson = False,
) -> int:
    """Measure how a scenario scales: agents, hosts and packing against start, orders a second, the stampede's spread,
    latency, memory and load. A sweep, one run at a time; with the --out of an unfinished one it goes on."""
    from aar_swarm.cli import _parse_settings
    from aar_swarm.display import Display
    from aar_swarm.report.scaling_page import FIGURES, cell, line_name, size_name, told
    from aar_swarm.sweeps.scaling import measure_scaling

    packed = _numbers("--agents-per-process", ",".join(agents_per_process or ["1"]))
    with Display() as display:
        found = measure_scaling(
            scenario,
            _numbers("--agents", agents),
            _numbers("--hosts", hosts),
            packed,
            repeats,
            breaker=breaker,
            size=size,
            cores=cores,
            settings=_parse_settings(settings),
            address=address,
            out=out,
            retry_failed=retry_failed,
            alongside=alongside,
            progress=display,
        )
    if as_json:
        print(json.dumps(found.found))
    else:
        shown = Table("Figure", *(size_name(size) for size in found.scaling.runs),
                      *(f"exponent, {line_name(line)}" for line in found.scaling.lines))  # fmt: skip
        exponents = found.scaling.exponents()
        for each in FIGURES:
            means = [cell(rows, each)[0] for rows in found.scaling.runs.values()]
            grown = [told(exponents[each.key][line]) for line in found.scaling.lines]
            shown.add_row(f"{each.name}, {each.unit}".rstrip(", "), *means, *grown)
        _out.print(shown, markup=False)
        for failed in found.sweep.failures:
            print(f"failed: {failed['trial']}: {failed['reason']}")
        print(f"Sweep: {found.sweep.directory}\nPage: {found.page}")
    return 1 if found.sweep.failures or found.sweep.missing else 0


def _numbers(option: str, text: str) -> list[int]:
    """Raises: ConfigurationError."""
    found = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in found) or len(set(found)) < len(found):
        raise ConfigurationError(f"{option} {text}: write different whole numbers above 0, as 100,300,1000")
    return [int(part) for part in found]


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(sweep)
    app.command()(sql)
    app.command()(scaling)
