"""The command line: a thin layer over aar_swarm.run, load and compare. Exit status 0 done, 1 failed, 2 bad input.

Progress goes to standard error; results, or one JSON object with --json, to standard output.
"""

import json
import math
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from aar_swarm import cli_sweeps
from aar_swarm.scenario import choices, load_scenario, scenario_names
from exchange.errors import ConfigurationError, JournalError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="A laboratory for markets emptied faster than anyone reacts.",
)
_out = Console(highlight=False)
_INTERRUPTED = 130
DEFENCES = "defences"
"""Not a scenario: `aar run defences` is the study of what the defences are worth."""

Scenario = Annotated[str, typer.Argument(help="Name of a scenario (see `aar scenarios`), or path of your own .toml.")]
Agents = Annotated[int | None, typer.Option(help="Number of agent processes. [default: the scenario's]")]
Breaker = Annotated[str, typer.Option(help="Name of one of the scenario's breakers, or off.")]
Size = Annotated[str, typer.Option(help="Name of one of the scenario's sizes, as small.")]
Alongside = Annotated[bool, typer.Option("--alongside", help="Share the machine with a run that is under way.")]
Seed = Annotated[int, typer.Option(help="Seed of every agent's random stream.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting, as crowd.shares=100; may be repeated."),
]
Address = Annotated[str | None, typer.Option(help="Of a Ray cluster. [default: start one for this run]")]
Out = Annotated[
    Path | None, typer.Option(help="Directory for the result; must be new or empty. [default: under runs/]")
]
Background = Annotated[
    str | None, typer.Option(metavar="lobster:FILE", help="A recorded day as the market that the crowd hits.")
]
Speed = Annotated[float, typer.Option(help="How many times as fast the recorded day is sent.")]
Port = Annotated[int, typer.Option(min=0, max=65533, help="Port of order entry; the next two are taken too. 0: any.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
AgentsPerProcess = Annotated[
    int, typer.Option(metavar="K", help="Of one group, so many share a process (docs/packed.md).")
]
Relay = Annotated[bool, typer.Option("--relay", help="One connection a host to the venue; with K above 1 always.")]
ConfigFile = Annotated[Path, typer.Option("--config", metavar="FILE", help="The venue's TOML; see docs/exchange.md.")]
Directory = Annotated[Path, typer.Argument(help="Directory of a run.")]


class Control(StrEnum):
    OPEN = "open"
    CLOSE = "close"
    DEPOSIT_CASH = "deposit-cash"
    DEPOSIT_LOTS = "deposit-lots"
    LIMIT = "limit"
    SIGNAL = "signal"
    MARGIN = "margin"
    WITHDRAW_CASH = "withdraw-cash"
    INDEX = "index"
    HALT = "halt"
    KILL = "kill"
    KILL_VENDOR = "kill-vendor"
    STATUS = "status"
    STOP = "stop"


def _finite(value: Any) -> Any:
    """The same for JSON, which has no infinite numbers: these as text."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _parse_settings(settings: list[str] | None) -> dict[str, str]:
    parsed = {}
    for setting in settings or []:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise ConfigurationError(f"--set {setting!r}: write it as key=value")
        parsed[key.strip()] = value.strip()
    return parsed


@app.command("run")
def run_command(
    context: typer.Context,
    scenario: Annotated[
        str, typer.Argument(help="Name of a scenario (see `aar scenarios`), path of your own .toml, or defences.")
    ],
    agents: Agents = None,
    breaker: Breaker = "default",
    size: Size = "default",
    seed: Seed = 1,
    settings: Settings = None,
    address: Address = None,
    out: Out = None,
    background: Background = None,
    speed: Speed = 1.0,
    port: Port = 0,
    alongside: Alongside = False,
    agents_per_process: AgentsPerProcess = 1,
    relay: Relay = False,
    scenarios: Annotated[
        list[str] | None, typer.Option("--scenario", help="Of `aar run defences`: these only; may be repeated.")
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(help="Of `aar run defences`: runs of each choice. [default: 5]")
    ] = None,
    ladder: Annotated[
        bool, typer.Option("--ladder", help="Of `aar run defences`: damage against reaction time only.")
    ] = False,
    calm: Annotated[
        int, typer.Option(metavar="N", help="Of `aar run defences`: only N runs without news, for false alarms.")
    ] = 0,
    as_json: AsJson = False,
) -> int:
    """Run a scenario with real agent processes, and leave a run directory. `aar run defences` is the study of what the
    four defences are worth: tables, ladder and calm runs; with the --out of an unfinished one it goes on."""
    if scenario == DEFENCES:
        return _study_defences(
            context, scenarios, repeats, ladder, calm, agents, seed, settings, address, out, size, alongside, as_json
        )
    _refuse_given(context, ("scenarios", "repeats", "ladder", "calm"), f"is for `aar run {DEFENCES}`")
    from aar_swarm.display import Display
    from aar_swarm.report import ordered
    from aar_swarm.report.pictures import conditions
    from aar_swarm.report.table import summary_table
    from aar_swarm.results import LOG
    from aar_swarm.runner import run

    with Display() as display:
        finished = run(
            scenario,
            agents=agents,
            breaker=breaker,
            size=size,
            seed=seed,
            settings=_parse_settings(settings),
            address=address,
            out=out,
            background=background,
            speed=speed,
            alongside=alongside,
            agents_per_process=agents_per_process,
            relay=relay,
            port=port,
            progress=display,
        )
    if as_json:
        print(json.dumps({**finished.summary, "directory": str(finished.directory)}))
    else:
        _out.print(summary_table([f"breaker {finished.summary['breaker']}"], [finished.summary]))
        if order := ordered.in_words(finished.summary):
            _out.print(f"Stampede: {order}", highlight=False)
        if finished.summary.get("background"):
            _out.print(f"Market: {conditions([finished])['market']}.")
        if finished.summary["links"]:
            _out.print(f"Links: {conditions([finished])['links']}.")
        _out.print(f"Run: {finished.directory}\nReport: {finished.report}", soft_wrap=True)
    for said in finished.summary["links_off_nominal"] or []:
        print(f"aar: {said}", file=sys.stderr)
    if lost := finished.summary["agent_processes_lost"]:
        said = finished.directory / LOG
        print(f"aar: {lost} agent processes ended before the session did; what they said is in {said}", file=sys.stderr)
    return 0


@app.command()
def compare(
    scenario: Scenario,
    vary: Annotated[
        list[str],
        typer.Option(metavar="KEY=A,B,…", help="A setting to vary: breaker, agents, or as in --set. Several: a grid."),
    ],
    repeats: Annotated[int, typer.Option(help="Runs of each combination; repeat r has seed + r - 1.")] = 1,
    agents: Agents = None,
    breaker: Breaker = "default",
    size: Size = "default",
    seed: Seed = 1,
    settings: Settings = None,
    address: Address = None,
    out: Out = None,
    background: Background = None,
    speed: Speed = 1.0,
    alongside: Alongside = False,
    agents_per_process: AgentsPerProcess = 1,
    relay: Relay = False,
    as_json: AsJson = False,
) -> int:
    """Run a scenario for each combination of values, one run after the other; one table, one report side by side."""
    from aar_swarm.comparison import compare as compare_runs
    from aar_swarm.comparison import parse_vary
    from aar_swarm.display import Display
    from aar_swarm.report.comparison_table import comparison_tables

    with Display() as display:
        found = compare_runs(
            scenario,
            parse_vary(vary),
            repeats,
            agents=agents,
            breaker=breaker,
            size=size,
            seed=seed,
            settings=_parse_settings(settings),
            address=address,
            out=out,
            background=background,
            speed=speed,
            alongside=alongside,
            agents_per_process=agents_per_process,
            relay=relay,
            progress=display,
        )
    if as_json:
        print(json.dumps(found.as_dict()))
    else:
        for part in comparison_tables(found.vary, found.settings):
            _out.print(part, soft_wrap=isinstance(part, str), markup=False)
        _out.print(f"Runs: {found.directory}\nReport: {found.report or 'none: no run finished'}", soft_wrap=True)
    return 1 if found.failures else 0


@app.command()
def designs(
    context: typer.Context,
    scenario: Annotated[
        str | None, typer.Argument(help="Scenario with [designs.NAME] tables. [default: latency-race]")
    ] = None,
    repeats: Annotated[int | None, typer.Option(help="Runs of each; repeat r has seed + r - 1. [default: 5]")] = None,
    chosen: Annotated[str, typer.Option("--designs", metavar="A,B,…", help="These only. [default: all]")] = "",
    agents: Agents = None,
    breaker: Breaker = "default",
    size: Size = "default",
    seed: Seed = 1,
    settings: Settings = None,
    address: Address = None,
    out: Annotated[
        Path | None, typer.Option(help="A new directory, or that of an unfinished one to go on with.")
    ] = None,
    alongside: Alongside = False,
    as_json: AsJson = False,
) -> int:
    """Compare designs of a market on one scenario: what speed takes, what trading costs, who wins the races."""
    from aar_swarm.designs import compare_designs
    from aar_swarm.display import Display
    from aar_swarm.report.designs_page import designs_table

    with Display() as display:
        found = compare_designs(
            scenario,
            repeats,
            [name.strip() for name in chosen.split(",") if name.strip()],
            agents=agents,
            breaker=breaker if _is_given(context, "breaker") else None,
            size=size if _is_given(context, "size") else None,
            seed=seed if _is_given(context, "seed") else None,
            settings=_parse_settings(settings),
            address=address,
            out=out,
            alongside=alongside,
            progress=display,
        )
    if as_json:
        print(json.dumps(found.as_dict()))
    else:
        for part in designs_table(found.settings):
            _out.print(part, soft_wrap=isinstance(part, str), markup=False)
        _out.print(f"Runs: {found.directory}\nPage: {found.page or 'none: no run finished'}", soft_wrap=True)
    return 1 if found.failures else 0


@app.command("replay")
def replay_command(
    directory: Directory,
    settings: Settings = None,
    until: Annotated[int | None, typer.Option(min=0, help="Replay only the first commands.")] = None,
    as_json: AsJson = False,
) -> None:
    """Rebuild every event of a run from its journal; with --set breaker.…, see what another breaker would have done."""
    from aar_swarm.replaying import replay_run

    found = replay_run(directory, _parse_settings(settings), until)
    if as_json:
        print(json.dumps(found))
    else:
        for halt in found["halts"] or [None]:
            halted = "never" if halt is None else ", ".join(f"{key} {value}" for key, value in halt.items())
            _out.print(f"{'halted':22} {halted}")
        for key, value in found.items():
            if key not in ("halts", "same"):
                _out.print(f"{key:22} {value}")
        if found["same"]:
            _out.print("Every event and the final state are those of the run.")
        if settings:
            _out.print("The same commands, another breaker: what agents would have sent instead, nobody knows.")


@app.command()
def report(directory: Directory) -> None:
    """Write a run's report.html anew."""
    from aar_swarm.report.pictures import write_run_report
    from aar_swarm.results import load

    run = load(directory)
    write_run_report(run)
    _out.print(str(run.report), soft_wrap=True)


@app.command()
def diversity(
    directory: Directory,
    window_ms: Annotated[float, typer.Option(min=0.1, help="Of herding.")] = 100.0,
    whole: Annotated[bool, typer.Option("--whole", help="The whole session, not only from the signal on.")] = False,
) -> None:
    """Measure how alike a run's participants were: concentration, herding, and who behaves as one under many names."""
    from aar_swarm.analysis.diversity import of_run
    from aar_swarm.results import load

    _out.print_json(json.dumps(of_run(load(directory), window_ms, since_signal=not whole)))


@app.command()
def races(
    directory: Directory,
    instrument: Annotated[int, typer.Option(help="By its number; 1 is the stablecoin, where there is one.")] = 0,
    horizon_us: Annotated[float, typer.Option(help="Longest time in which one races another.")] = 500.0,
    fixed: Annotated[bool, typer.Option("--fixed", help="Not shorter when the first answer came sooner.")] = False,
    participants: Annotated[int, typer.Option(min=2, max=10**6, help="At least so many different ones.")] = 2,
    takes: Annotated[int, typer.Option(min=1, max=10**6, help="At least so many.")] = 1,
    cancels: Annotated[int, typer.Option(min=0, max=10**6, help="At least so many.")] = 0,
    strict_failures: Annotated[
        bool, typer.Option("--strict-failures", help="Only expired orders and late cancels fail.")
    ] = False,
    strict_successes: Annotated[
        bool, typer.Option("--strict-successes", help="A take that failed must be priced exactly at the race's price.")
    ] = False,
    after_s: Annotated[float, typer.Option(min=0.0, max=1e6, help="How long after its start a race is valued.")] = 10.0,
    as_json: AsJson = False,
) -> None:
    """Find the latency races of a run: who raced whom for which quote, who won, and what it cost the market."""
    from aar_swarm.races.detection import Detection
    from aar_swarm.races.measures import of_run
    from aar_swarm.report.races import in_words
    from aar_swarm.results import RACES, load

    if not 0 < horizon_us <= 1e6:
        raise ConfigurationError(f"--horizon-us {horizon_us:g}: must be above 0 and at most 1000000")
    rule = Detection(
        horizon_us=horizon_us,
        fixed_horizon=fixed,
        participants=participants,
        takes=takes,
        cancels=cancels,
        strict_failures=strict_failures,
        strict_successes=strict_successes,
    )
    run = load(directory)
    figures, table = of_run(run, rule, round(after_s, 6), instrument)
    if as_json:
        print(json.dumps(figures))
    else:
        for line in in_words(figures):
            _out.print(line, soft_wrap=True, markup=False, highlight=False)
    table.write_parquet(run.directory / RACES)
    if not as_json:
        _out.print(f"One row a race: {run.directory / RACES}", soft_wrap=True, markup=False, highlight=False)


class Format(StrEnum):
    """What `aar export` writes."""

    HFT_RACES = "hft-races"
    LOBSTER = "lobster"
    PARQUET = "parquet"


@app.command()
def export(
    directory: Directory,
    format: Annotated[Format, typer.Option(help="Of the files.")],
    instrument: Annotated[int, typer.Option(help="By its number; 1 is the stablecoin, where there is one.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Directory, which must be new or empty. [default: in the run's]")
    ] = None,
) -> None:
    """Write a run's messages for other programs: the log of race studies, LOBSTER's two files, or Parquet."""
    from aar_swarm.exports.files import export as write
    from aar_swarm.results import load

    for path in write(load(directory), format.value, out, instrument):
        _out.print(str(path), soft_wrap=True, markup=False, highlight=False)


@app.command()
def stylised(
    directory: Directory,
    interval_ms: Annotated[float, typer.Option(min=1.0, help="Between the mids that returns are made of.")] = 50.0,
    as_json: AsJson = False,
) -> None:
    """Measure stylised facts of markets on a run's calm part: what it has in common with real ones, and what not."""
    from aar_swarm.analysis.stylised import of_run
    from aar_swarm.results import load

    found = of_run(load(directory), interval_ms)
    if as_json:
        print(json.dumps(found))
        return
    words = {True: "holds", False: "does not hold", None: "too little data"}
    for name, fact in found.items():
        _out.print(f"{name:28} {fact['value']!s:>10}  {words[fact['holds']]:16} {fact['expected']}", soft_wrap=True)


@app.command()
def scenarios() -> None:
    """List the scenarios: their breakers, their sizes and their dials, which `--set` and `--vary` turn."""
    for name in scenario_names():
        scenario = load_scenario(name)
        size = f"{scenario.default_agents:,} agents, {scenario.duration_s:g} s"
        _out.print(f"{name}: {scenario.title}. {size}.", soft_wrap=True)
        for what, names in choices(name).items():
            _out.print(f"  {what}: {', '.join(names)}", soft_wrap=True)
        for key, text in scenario.dials.items():
            value = scenario.value_of(key)
            shown = list(value) if isinstance(value, tuple) else value
            _out.print(f"  {key}={shown}: {text}", soft_wrap=True, markup=False)


@app.command()
def doctor() -> None:
    """Say what this machine can bear, and what a run would be measured with."""
    from aar_swarm.doctor import examine

    for line in examine():
        _out.print(line, soft_wrap=True)


@app.command()
def keys(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of the keys; new, or one to add to.")],
    accounts: Annotated[str, typer.Option(metavar="0-9,12", help="Accounts that get a key pair.")],
    operators: Annotated[str, typer.Option(metavar="NAME,…", help="Operators that get a key pair.")] = "",
) -> None:
    """Make a venue's keys and one pair for each account and operator; what is there is never overwritten."""
    from exchange.keys import create, parse_accounts

    numbers = parse_accounts(accounts)
    names = [name.strip() for name in operators.split(",")] if operators else []
    create(directory, numbers, names)
    _out.print(f"{directory}: {len(numbers)} accounts, {len(names)} operators", soft_wrap=True)


@app.command()
def exchange(config: ConfigFile) -> int:
    """Run the venue alone, for anyone's client; it goes on from its journal if it has one. Stop it with Ctrl-C."""
    from exchange.config_file import load
    from exchange.server import main_standalone

    return main_standalone(load(config))


@app.command("journal")
def journal_command(
    directory: Annotated[Path, typer.Argument(help="Directory of a venue's journal.")],
    until: Annotated[int | None, typer.Option(min=1, help="Only the commands up to this sequence number.")] = None,
) -> None:
    """Verify and replay the journal of a venue that `aar exchange` ran; it need not have stopped."""
    from exchange import journal
    from exchange.replay import replay

    recorded = journal.read(directory, until)
    found = replay(*recorded)
    counters = found.engine.state.counters[0]
    _out.print(
        json.dumps(
            {
                "commands": len(recorded.commands),
                "events": len(found.events),
                "starts": int(counters["starts"]),
                "resting_orders": int(counters["resting_orders"]),
                "state_hash": found.engine.state_hash(),
                "events_digest": found.events_digest,
            }
        ),
        soft_wrap=True,
    )


@app.command()
def control(
    config: ConfigFile,
    what: Annotated[Control, typer.Argument(help="What the venue is to do.")],
    account: Annotated[
        int | None, typer.Option(help="Of a deposit, a withdrawal, a limit, margin or kill (-1: everyone).")
    ] = None,
    instrument: Annotated[int, typer.Option(help="Of deposit-lots, signal, index and halt (-1: all).")] = 0,
    amount: Annotated[
        int | None,
        typer.Option(
            help="Minor units, lots, the limit (0: none), the signal's bps, 1 or 0 for margin, ticks of an index; "
            "of halt and kill the sequence of what you saw."
        ),
    ] = None,
    vendor: Annotated[int | None, typer.Option(help="Whose models: of kill-vendor.")] = None,
    limit: Annotated[str, typer.Option(help="Which limit: order_lots, open_orders, position_lots, …")] = "",
    operator: Annotated[
        str | None, typer.Option(help="Whose key to use, if the venue has keys. [default: the only one]")
    ] = None,
) -> int:
    """Operate a venue that `aar exchange` runs. `close` is for good: another day is another directory."""
    import zmq

    from exchange.client import Operator
    from exchange.config_file import keys_directory, load
    from exchange.errors import VenueError
    from exchange.keys import load_client
    from exchange.types import CommandKind, Limit, Reason
    from exchange.wire import MessageKind

    kinds: dict[Control, CommandKind | MessageKind] = {
        Control.OPEN: CommandKind.OPEN_SESSION,
        Control.CLOSE: CommandKind.CLOSE_SESSION,
        Control.DEPOSIT_CASH: CommandKind.DEPOSIT_CASH,
        Control.DEPOSIT_LOTS: CommandKind.DEPOSIT_POSITION,
        Control.LIMIT: CommandKind.SET_LIMIT,
        Control.SIGNAL: CommandKind.PUBLISH_SIGNAL,
        Control.MARGIN: CommandKind.SET_MARGIN,
        Control.WITHDRAW_CASH: CommandKind.WITHDRAW_CASH,
        Control.INDEX: CommandKind.PUBLISH_INDEX,
        Control.HALT: CommandKind.HALT,
        Control.KILL: CommandKind.KILL,
        Control.KILL_VENDOR: CommandKind.KILL_VENDOR,
        Control.STATUS: MessageKind.STATUS,
        Control.STOP: MessageKind.STOP,
    }
    if what is Control.LIMIT:
        names = [choice.name.lower() for choice in Limit]
        if limit not in names:
            raise ConfigurationError(f"--limit {limit!r}: choose one of {', '.join(names)}")
        instrument = Limit[limit.upper()]
    of_account = (
        Control.DEPOSIT_CASH,
        Control.DEPOSIT_LOTS,
        Control.LIMIT,
        Control.MARGIN,
        Control.WITHDRAW_CASH,
    )
    for option, value, needed in (
        ("--account", account, (*of_account, Control.KILL)),
        ("--vendor", vendor, (Control.KILL_VENDOR,)),
        ("--amount", amount, (*of_account, Control.SIGNAL, Control.INDEX)),
    ):
        if what in needed and value is None:
            raise ConfigurationError(f"{what}: needs {option}")
    venue = load(config)
    directory = keys_directory(config)
    keys = None
    if directory is not None:
        there = [path.stem for path in sorted((directory / "operators").glob("*.key_secret"))]
        if operator is None and len(there) != 1:
            raise ConfigurationError(f"--operator: name one of {', '.join(there) or 'none: make one with aar keys'}")
        keys = load_client(directory, operator=operator or there[0])
    context: zmq.Context[Any] = zmq.Context()
    try:
        client = Operator(context, venue.control_address, timeout_ms=5000, keys=keys)
        try:
            whom = vendor if what is Control.KILL_VENDOR else account
            done = client.request(kinds[what], whom or 0, instrument, amount or 0)
        except VenueError as error:
            raise ConfigurationError(f"{error}; is it running, and is this its configuration?") from None
        finally:
            client.close()
    finally:
        context.destroy(linger=0)
    if done.reason:
        raise ConfigurationError(f"the venue refused: {Reason(done.reason).name}")
    _out.print(json.dumps(done._asdict()), soft_wrap=True)
    return 0


@app.command("postmortem")
def postmortem_command(directory: Directory, as_json: AsJson = False) -> None:
    """Follow a run's crash from its first cause to its last loss, and say what each defence would have saved."""
    from aar_swarm.postmortem import PAGE, postmortem
    from aar_swarm.report.postmortem_text import parts

    found = postmortem(directory, lambda text: print(f"· {text}", file=sys.stderr))
    if as_json:
        print(json.dumps(found))
    else:
        for part in parts(found):
            _out.print(part)
        _out.print(f"Page: {directory / PAGE}", soft_wrap=True)


@app.command()
def explain(directory: Directory, as_json: AsJson = False) -> None:
    """Check the explanations that a run's orders carry: are there any, do they give the action again, are they true?"""
    from aar_swarm.analysis.explained import explain_run, lines

    found = explain_run(directory)
    if as_json:
        print(json.dumps(_finite(found)))
        return
    for line in lines(found):
        _out.print(line, soft_wrap=True, markup=False)


@app.command()
def why(
    directory: Directory,
    account: Annotated[int, typer.Argument(help="Who placed the order.")],
    order_id: Annotated[int, typer.Argument(help="The order's own number.")],
    as_json: AsJson = False,
) -> None:
    """Say why an order was placed: what its agent had heard, by which rule and inputs, and what became of it."""
    from aar_swarm.analysis.why import lines
    from aar_swarm.analysis.why import why as why_order

    found = why_order(directory, account, order_id)
    if as_json:
        print(json.dumps(_finite(found)))
        return
    for line in lines(found):
        _out.print(line, soft_wrap=True, markup=False)


def _refuse_given(context: typer.Context, options: tuple[str, ...], why: str) -> None:
    """Options that make no sense here. Raises: ConfigurationError."""
    for name in options:
        if _is_given(context, name):
            shown = {"scenarios": "scenario", "settings": "set"}.get(name, name)
            raise ConfigurationError(f"--{shown}: {why}; leave it out")


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _study_defences(
    context: typer.Context,
    scenarios: list[str] | None,
    repeats: int | None,
    ladder: bool,
    calm: int,
    agents: int | None,
    seed: int,
    settings: list[str] | None,
    address: str | None,
    out: Path | None,
    size: str,
    alongside: bool,
    as_json: bool,
) -> int:
    """`aar run defences`."""
    from aar_swarm.defences import measure_defences
    from aar_swarm.display import Display
    from aar_swarm.report.defences_table import defences_tables

    _refuse_given(context, ("breaker", "background", "speed", "port"), "the study chooses that itself")
    with Display() as display:
        found = measure_defences(
            scenarios or (),
            repeats,
            ladder=ladder,
            calm=calm,
            agents=agents,
            size=size if _is_given(context, "size") else None,
            seed=seed if _is_given(context, "seed") else None,
            settings=_parse_settings(settings),
            address=address,
            out=out,
            alongside=alongside,
            progress=display,
        )
    if as_json:
        print(json.dumps(found.as_dict()))
    else:
        for part in defences_tables(found.parts):
            _out.print(part, soft_wrap=isinstance(part, str), markup=False)
        _out.print(f"Study: {found.directory}\nPage: {found.page or 'none: no run finished'}", soft_wrap=True)
    return 1 if found.failures else 0


cli_sweeps.register(app)


def main() -> None:
    """Entry point: every foreseen error is one line on standard error."""
    sys.exit(_guarded(lambda: app(standalone_mode=False)))


def _guarded(call: Callable[[], Any]) -> int:
    from aar_swarm.analysis.measures import NotConserved
    from aar_swarm.swarm import RunFailed
    from aar_swarm.write_up import ReplayDiffers

    try:
        result = call()
        if result == _INTERRUPTED:  # typer turns Ctrl-C into a result
            raise KeyboardInterrupt
        return result if isinstance(result, int) else 0
    except (ConfigurationError, JournalError) as error:
        return _complain(str(error), 2)
    except typer.TyperException as error:
        if not error.format_message():  # no command was named, and the help was shown
            return 2
        return _complain(error.format_message().replace("\n", " "), 2)
    except (RunFailed, ReplayDiffers, NotConserved, OSError) as error:
        return _complain(str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        return _complain("interrupted; every process of the run is gone", _INTERRUPTED)


def _complain(text: str, status: int) -> int:
    print(f"aar: {text}", file=sys.stderr)
    return status


if __name__ == "__main__":
    main()
