"""One run from start to end: place the processes, let the session happen, take everything down, leave the directory.

Owns the order of those steps and what happens when one fails. Nothing it started outlives it: see cluster.guard for
the case that it is killed itself.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from polars.exceptions import PolarsError

from aar_swarm import lobster
from aar_swarm.agent_process import ROW_FIELDS, TARGET
from aar_swarm.agents.background import Background
from aar_swarm.analysis.measures import RECORDING
from aar_swarm.endowment import opening_commands, signal_commands
from aar_swarm.machine_lock import machine_to_itself
from aar_swarm.progress import Progress
from aar_swarm.results import ALERTS, JOURNAL, LOG, MANIFEST, VALIDATION, Run
from aar_swarm.scenario import Scenario, check_endowments, load_scenario
from aar_swarm.scenario_tables import Group
from aar_swarm.vendors import placement as vendors
from aar_swarm.versions import versions
from aar_swarm.write_up import write_up
from cluster import placement
from cluster.guard import Guard, new_run_id
from cluster.kill_switch import Kill, KillSwitchGone
from cluster.limits import check_machine
from cluster.zygote_client import ZygoteFailed, ZygoteGone
from exchange import clock
from exchange.errors import ConfigurationError, JournalError, VenueError
from exchange.keys import GeneratedKeys, generate
from exchange.types import CommandKind, Side

LEASE_S = 10.0
"""An agent that has heard nothing of the venue for so long ends by itself: its node may be cut off."""
_FORK_BATCH = 50
_READY_TIMEOUT_S = 120.0
_START_TIMEOUT_S = 440.0  # longer than the keeper waits for the venue, so that it can say what was wrong
_STOP_TIMEOUT_S = 60.0
_POLL_S = 0.1
_GRACE_S = 5.0
_SOCKET_PATH_BYTES = 20  # a temporary directory longer than this leaves no room for Ray's socket names (107 bytes)
_MAX_TIMINGS = 1 << 22
_OPERATOR, _SUPERVISOR = "runner", "supervisor"
_BACKGROUND_CASH, _BACKGROUND_SHARES = 1 << 50, 1 << 28
TMP_PREFIX = "aar-"


class RunFailed(RuntimeError):
    """The run started but could not be finished; everything it had started is gone."""


def run(
    scenario: str,
    agents: int | None = None,
    breaker: str = "default",
    seed: int = 1,
    settings: Mapping[str, Any] | None = None,
    address: str | None = None,
    out: str | Path | None = None,
    background: str | None = None,
    speed: float = 1.0,
    port: int = 0,
    progress: Progress | None = None,
    size: str = "default",
    alongside: bool = False,
) -> Run:
    """Run a scenario with real agent processes.

    Args: scenario: name, or path of one's own .toml; agents: how many processes (None: the scenario's default);
    breaker: a name of the scenario's, or "off"; settings: path → value, as `--set`; address: of a Ray cluster (None:
    start one for this run); out: directory for the run, which must not hold anything (None: a new one under runs/);
    background: "lobster:FILE", a recorded day as the market, `speed` times as fast; port: of order entry, the next two
    for market data and notices (0: any free ones); size: a name of the scenario's, settings that come before yours;
    alongside: do not wait until no other run of this user has this machine.
    Raises: ConfigurationError: what was asked for cannot be; RunFailed.
    """
    chosen, count = prepare(scenario, agents, breaker, seed, settings, address, background, speed, size)
    recording = None if background is None else background.removeprefix("lobster:")
    progress = progress or Progress()
    directory = _new_directory(out, chosen.name)
    with contextlib.ExitStack() as stack:
        if not alongside:
            try:
                stack.enter_context(machine_to_itself(progress))
            except BaseException:  # a Ctrl-C while it waits
                shutil.rmtree(directory)
                raise
        return _Run(chosen, count, seed, directory, address, port, recording, progress).perform()


def prepare(
    scenario: str,
    agents: int | None = None,
    breaker: str = "default",
    seed: int = 1,
    settings: Mapping[str, Any] | None = None,
    address: str | None = None,
    background: str | None = None,
    speed: float = 1.0,
    size: str = "default",
) -> tuple[Scenario, int]:
    """Everything that can be found out before anything starts; returns the scenario and the number of agents.

    Raises: ConfigurationError.
    """
    chosen = load_scenario(scenario, breaker, settings, size)
    if background is not None:
        chosen = _with_background(chosen, background, speed)
    elif speed != 1.0:
        raise ConfigurationError("--speed is the speed of a recorded day: it needs --background lobster:FILE")
    count = chosen.default_agents if agents is None else agents
    if count < 1:
        raise ConfigurationError(f"--agents {count}: there must be at least one")
    if not 0 <= seed < 1 << 63:
        raise ConfigurationError(f"--seed {seed}: must be from 0 to 2^63 - 1")
    chosen.counts(count)
    check_endowments(chosen, count)
    chosen = vendors.resolved(chosen, seed)
    if address is None:
        check_machine(count)
    else:
        placement.check_address(address)
    return chosen, count


def _with_background(scenario: Scenario, background: str, speed: float) -> Scenario:
    """The scenario with the recorded day in place of every participant but the crowd.

    Raises: ConfigurationError: not a recording, or one that cannot be read.
    """
    kind, _, name = background.partition(":")
    if kind != "lobster" or not name:
        raise ConfigurationError(f"--background {background!r}: write it as lobster:FILE")
    if not 0 < speed <= 1e6:
        raise ConfigurationError(f"--speed {speed}: must be above 0 and at most 1000000")
    path = Path(name).resolve()
    try:
        day = lobster.read(path)
        flow = lobster.order_flow(day)
    except lobster.LobsterError as error:
        raise ConfigurationError(str(error)) from None
    opening = flow[flow["row"] < 0]
    best_bid = int(opening["price_ticks"][opening["side"] == Side.BUY].max(initial=0))
    instrument = scenario.instrument.model_copy(
        update={
            "opening_ticks": best_bid or int(flow["price_ticks"].max()),
            "price_levels": lobster.price_levels_needed(flow),
            "tick_size": 0.01,
        }
    )
    group = Group(
        strategy=f"{Background.__module__}:{Background.__name__}",
        count=1,
        cash=_BACKGROUND_CASH,
        shares=_BACKGROUND_SHARES,
        params={"file": str(path), "speed": speed},
    )
    crowd = {name: group for name, group in scenario.participants.items() if group.count == "rest"}
    return scenario.model_copy(update={"instrument": instrument, "participants": {RECORDING: group, **crowd}})


def _new_directory(out: str | Path | None, name: str) -> Path:
    """Make the run's directory. Raises: ConfigurationError: it holds something, or cannot be made."""
    if out is None:
        stem = Path("runs") / f"{name}-{clock.utc_stamp()}"
        number = 1
        path = stem
        while path.exists():
            number += 1
            path = stem.with_name(f"{stem.name}-{number}")
    else:
        path = Path(out)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ConfigurationError(f"--out {path}: is there already and nothing is overwritten; name a new directory")
    try:
        (path / JOURNAL).mkdir(parents=True)
    except OSError as error:
        raise ConfigurationError(f"--out {path}: {error.strerror}; name a directory that can be written") from None
    return path.resolve()


def _ignore_interrupts() -> None:
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _heed_interrupts() -> None:
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


class _Run:
    """The state of one run while it lasts."""

    def __init__(
        self,
        scenario: Scenario,
        agents: int,
        seed: int,
        directory: Path,
        address: str | None,
        port: int,
        recording: str | None,
        progress: Progress,
    ) -> None:
        self.scenario = scenario
        self.agents = agents
        self.seed = seed
        self.directory = directory
        self.address = address
        self.port = port
        self.recording = recording
        self.progress = progress
        self.groups = [name for name, _ in scenario.members(agents)]
        self.endowments = scenario.endowments(agents)
        self.venue: placement.Actor | None = None
        self.hosts: list[placement.Actor] = []
        self.manifest: dict[str, Any] = {}
        self.session_s = 0.0
        self.keys: GeneratedKeys | None = None
        self.kills: list[Kill] = []
        self.vendor_processes = vendors.count_processes(scenario)
        self.models: list[list[dict[str, Any]]] = []
        """Of each account: what it tries to log on with."""
        self.verdicts = vendors.examined(scenario)
        self._host_key = vendors.key_numbers(scenario, agents).stop

    def perform(self) -> Run:
        parent = tempfile.gettempdir()
        if len(parent) > _SOCKET_PATH_BYTES:
            parent = "/tmp"
        temporary = tempfile.mkdtemp(prefix=TMP_PREFIX, dir=parent)
        before = os.environ.get("AAR_TMP_DIR")
        os.environ["AAR_TMP_DIR"] = temporary
        guard = None
        try:
            guard = Guard.start(new_run_id(), temporary)
            self.progress.stage("starting Ray")
            with placement.ray_session(self.address, temporary) as nodes:
                try:
                    outcome = self._session(nodes)
                finally:
                    _ignore_interrupts()  # a second Ctrl-C must not interrupt the tidying up after the first
                    self._tear_down()
        except placement.RayDidNotStart as error:
            shutil.rmtree(self.directory)
            raise RunFailed(f"{error}; is the machine busy with something else?") from None
        except (placement.ActorDied, VenueError, ZygoteGone, ZygoteFailed, KillSwitchGone) as error:
            raise RunFailed(f"{error}; the journal so far is in {self.directory / JOURNAL}") from None
        except ConfigurationError:
            shutil.rmtree(self.directory)  # nothing was run: leave nothing
            raise
        finally:
            if guard is not None:
                guard.close()
            shutil.rmtree(temporary, ignore_errors=True)
            _heed_interrupts()
            if before is None:
                os.environ.pop("AAR_TMP_DIR", None)
            else:
                os.environ["AAR_TMP_DIR"] = before
        self.progress.stage("replaying the journal, writing tables and report")
        try:
            write_up(self.directory, self.scenario, self.groups, self.manifest, outcome, self.recording)
        except (OSError, JournalError, PolarsError) as error:
            reason = str(error).splitlines()[0]
            raise RunFailed(f"the session is over but could not be written up in {self.directory}: {reason}") from None
        return Run(self.directory)

    def _session(self, nodes: list[placement.Node]) -> dict[str, Any]:
        """Everything that needs processes; returns what is known only from them."""
        self.progress.stage("starting the venue (the first time, its kernels are compiled: two to four minutes)")
        started = self._start_venue(nodes)
        self._endow()
        begun_ns = clock.monotonic_ns()
        self._start_agents(nodes, started["endpoints"])
        start_s = (clock.monotonic_ns() - begun_ns) / clock.SECOND
        memory_kb = [host.call("memory_kb") or 0 for host in self.hosts]
        hosts = [host.call("node") for host in self.hosts]
        self._write_manifest(started, hosts)
        self._play()
        rows, vendor_rows, statuses = self._collect()
        assert self.venue is not None
        final = self.venue.call("stop", timeout_s=_STOP_TIMEOUT_S)
        if "error" in final:
            raise VenueError(final["error"])
        supervisor = self.venue.call("stop_supervisor", final["commands"], timeout_s=2 * _STOP_TIMEOUT_S)
        if self.address is not None:
            for name, content in self.venue.call("files", timeout_s=_START_TIMEOUT_S).items():
                (self.directory / JOURNAL / name).write_bytes(content)
        return {
            "final": final,
            "supervisor": supervisor,
            "rows": rows,
            "vendor_rows": vendor_rows,
            "start_s": start_s,
            "session_s": self.session_s,
            "memory_kb": sum(memory_kb),
            "exited": [end for status in statuses for end in status["exited"]],
            "hosts": hosts,
            "kills": self.kills,
        }

    def _start_venue(self, nodes: list[placement.Node]) -> dict[str, Any]:
        log = str(self.directory / LOG) if self.address is None else None
        self.venue = placement.place_venue(nodes, log)
        validated = [verdict.declaration for verdict in self.verdicts if verdict.passed]
        config = {
            "engine": self.scenario.engine_config(self.agents, validated).model_dump(),
            "port": self.port,
            "loop": self.scenario.loop_config().model_dump(),
            "max_sessions": self.agents,
            "max_timings": _MAX_TIMINGS,
        }
        operator = None
        if len(nodes) > 1:  # over a network: nobody but this run's agents may trade, each for its own account
            beyond = vendors.key_numbers(self.scenario, self.agents)
            self.keys = generate([*range(self.agents), *beyond, self._host_key], [_OPERATOR, _SUPERVISOR])
            config |= {"host": self.venue.node.address, "keys": self.keys.venue}
            operator = self.keys.operators[_OPERATOR]
        directory = str(self.directory / JOURNAL) if self.address is None else None
        watcher = self.scenario.supervisor
        watching = watcher is not None and watcher.watching
        started: dict[str, Any] = self.venue.call(
            "start", config, directory, operator, watching, timeout_s=_START_TIMEOUT_S
        )
        if watcher is not None and watching:
            keys = None if self.keys is None else self.keys.operators[_SUPERVISOR]
            alerts = str(self.directory / ALERTS) if self.address is None else None
            arguments = (watcher.config(), alerts, keys)
            self.venue.call("start_supervisor", *arguments, timeout_s=_START_TIMEOUT_S)
        return started

    def _endow(self) -> None:
        assert self.venue is not None
        commands = opening_commands(self.scenario, self.agents)
        self.venue.call("request_many", commands, timeout_s=_START_TIMEOUT_S)

    def _spec(self, agent: int) -> dict[str, Any]:
        name = self.groups[agent]
        group = self.scenario.participants[name]
        return {
            "keys": None if self.keys is None else self.keys.accounts[agent],
            "strategy": group.strategy,
            "params": group.params,
            "endowment": self.endowments[agent],
            "rehearse": group.rehearse,
            "models": self.models[agent],
            "explains": self.scenario.explanations != "off",
        }

    def _start_agents(self, nodes: list[placement.Node], endpoints: dict[str, str]) -> None:
        """Fork all agents, batch by batch on every node, and wait until each has logged on."""
        log = str(self.directory / LOG) if self.address is None else None
        # Imported once, before the forks; a lone participant imports its own, which may start threads.
        counts = self.scenario.counts(self.agents)
        groups = self.scenario.participants.items()
        modules = sorted({group.strategy.partition(":")[0] for name, group in groups if counts[name] > 1})
        shares = placement.divide(self.agents, nodes)
        ranges: list[range] = []  # of each host: which agents
        first = 0
        for node, share in zip(nodes, shares, strict=True):
            if share:
                preload = [TARGET.partition(":")[0], *modules]
                rows = share + self.vendor_processes
                self.hosts.append(placement.place_host(node, TARGET, preload, list(ROW_FIELDS), rows, log))
                ranges.append(range(first, first + share))
            first += share
        common = {
            "endpoints": endpoints,
            "seed": self.seed,
            "lease_ns": int(LEASE_S * clock.SECOND),
            "market": self.scenario.market(self.agents)._asdict(),
        }
        self._start_vendors(common)
        waiting = [[(agent, self._spec(agent)) for agent in agents] for agents in ranges]
        self.progress.stage(f"starting {self.agents} agent processes")
        while any(waiting):
            calls = []
            for host, agents in zip(self.hosts, waiting, strict=True):
                batch, agents[:] = agents[:_FORK_BATCH], agents[_FORK_BATCH:]
                if batch:
                    calls.append((host, len(batch), host.begin("spawn", batch, common)))
            for host, asked, call in calls:
                if host.end(call, _START_TIMEOUT_S) < asked:
                    error = host.call("status")["fork_error"]
                    raise ConfigurationError(
                        f"--agents {self.agents}: {host.node.address} cannot start so many processes ({error}); "
                        "ask for fewer"
                    )
            self._show_ready()
        # A host's own key belongs to no account: with it one may listen.
        keys = None if self.keys is None else self.keys.accounts[self._host_key]
        arming = [
            (host, host.begin("arm_kill_switch", endpoints["notices"], list(agents), keys))
            for host, agents in zip(self.hosts, ranges, strict=True)
        ]
        for host, call in arming:
            host.end(call, _START_TIMEOUT_S)
        deadline = clock.monotonic_ns() + int(_READY_TIMEOUT_S * clock.SECOND)
        while (ready := self._show_ready()) < self.agents:
            if clock.monotonic_ns() > deadline:
                raise RunFailed(f"only {ready} of {self.agents} agents logged on within {_READY_TIMEOUT_S:.0f} s")
            self._check_nobody_died()
            clock.sleep(_POLL_S)
        for host in self.hosts:
            rows = host.call("rows")
            host.call("name_vendors", dict(zip(rows["agent_id"].tolist(), rows["vendor"].tolist(), strict=True)))

    def _start_vendors(self, common: dict[str, Any]) -> None:
        """Those whom agents ask, before the agents."""
        if self.vendor_processes:
            self.progress.stage(f"starting {self.vendor_processes} vendor processes")
        keys = None if self.keys is None else self.keys.accounts
        self.models = vendors.start(self.scenario, self.agents, self.hosts, common, keys, _START_TIMEOUT_S)

    def _statuses(self) -> list[dict[str, Any]]:
        calls = [(host, host.begin("status")) for host in self.hosts]
        return [host.end(call) for host, call in calls]

    def _show_ready(self) -> int:
        ready = sum(status["ready"] for status in self._statuses()) - self.vendor_processes
        self.progress.agents(ready, self.agents)
        return int(ready)

    def _check_nobody_died(self) -> None:
        for status in self._statuses():
            if status["exited"]:
                agent, _, code = status["exited"][0]
                log = self.directory / LOG
                said = log.read_text(errors="replace").strip().splitlines()[-1:] if log.is_file() else []
                raise RunFailed(
                    f"agent {agent} ended with status {code} before the session: "
                    f"{' '.join(said) or 'no word'}; see {log}"
                )

    def _write_manifest(self, started: dict[str, Any], hosts: list[dict[str, Any]]) -> None:
        one_clock = len({host["boot_id"] for host in hosts}) == 1
        self.manifest = {
            "scenario": self.scenario.model_dump(),
            "agents": self.agents,
            "seed": self.seed,
            "accounts": {
                name: [self.groups.index(name), len(self.groups) - self.groups[::-1].index(name)]
                for name in dict.fromkeys(self.groups)
            },
            "started_utc": clock.utc_stamp(),
            "driver_host": socket.gethostname(),
            "hosts": hosts,
            "scheduling": started["scheduling"],
            # One kernel, one CLOCK_MONOTONIC. Between hosts nothing is known of the offset, and null says so.
            "clock_bound_ns": 0 if one_clock else None,
            "cores": os.cpu_count(),
            "versions": versions(),
        }
        (self.directory / MANIFEST).write_text(json.dumps(self.manifest, indent=1))
        if self.verdicts:
            told = [verdict._asdict() for verdict in self.verdicts]
            (self.directory / VALIDATION).write_text(json.dumps(told, indent=1))

    def _play(self) -> None:
        """The session: open, signal, close, at the scenario's times; the run ends if the venue or a host dies."""
        assert self.venue is not None
        duration_s, signal = self.scenario.duration_s, self.scenario.signal
        self.progress.stage("the session is open")
        opened_ns = clock.monotonic_ns()
        self.venue.call("request", CommandKind.OPEN_SESSION)
        signalled = False
        while True:
            elapsed_s = (clock.monotonic_ns() - opened_ns) / clock.SECOND
            if not signalled and elapsed_s >= signal.at_s:
                self.venue.call("request_many", signal_commands(self.scenario))
                signalled = True
            if elapsed_s >= duration_s:
                break
            status = self.venue.call("status")
            alive = sum(host["alive"] for host in self._statuses()) - self.vendor_processes
            self.progress.session(elapsed_s, duration_s, status["commands"], alive)
            due = signal.at_s if not signalled else duration_s
            elapsed_s = (clock.monotonic_ns() - opened_ns) / clock.SECOND
            clock.sleep(max(0.0, min(_POLL_S, due - elapsed_s)))
        self.venue.call("request", CommandKind.CLOSE_SESSION)
        self.session_s = (clock.monotonic_ns() - opened_ns) / clock.SECOND

    def _collect(self) -> tuple[np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Let all finish; returns the agents' rows, one an account, the vendors', and the hosts' last word."""
        self.progress.stage("collecting")
        deadline = clock.monotonic_ns() + int(_GRACE_S * clock.SECOND)
        while any(status["alive"] for status in self._statuses()) and clock.monotonic_ns() < deadline:
            clock.sleep(_POLL_S)
        rows = np.concatenate([host.call("rows") for host in self.hosts])
        rows = rows[np.argsort(rows["agent_id"])]
        is_agent = rows["agent_id"] < self.agents
        self.kills = [kill for host in self.hosts for kill in host.call("kills")]
        statuses = [host.call("stop", timeout_s=_STOP_TIMEOUT_S) for host in self.hosts]
        return rows[is_agent], rows[~is_agent], statuses

    def _tear_down(self) -> None:
        """End everything, whatever state it is in. The guard sweeps up what this cannot reach."""
        for actor in (*self.hosts, self.venue):
            if actor is not None:
                try:
                    actor.call("stop" if actor is not self.venue else "kill")
                except Exception:  # noqa: BLE001 - it is gone already, or will be with Ray
                    pass
