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

from polars.exceptions import PolarsError

from aar_swarm import lobster
from aar_swarm.agents.background import Background
from aar_swarm.analysis.measures import RECORDING
from aar_swarm.endowment import news_command, opening_commands, signal_commands
from aar_swarm.machine_lock import machine_to_itself
from aar_swarm.names import news_stream
from aar_swarm.news import drawn
from aar_swarm.packing import MAX_AGENTS_PER_PROCESS, packs
from aar_swarm.progress import Progress
from aar_swarm.results import ALERTS, JOURNAL, LOG, MANIFEST, VALIDATION, Run
from aar_swarm.scenario import Scenario, check_endowments, load_scenario
from aar_swarm.scenario_tables import Group
from aar_swarm.swarm import OPERATOR, SUPERVISOR, RunFailed, Swarm
from aar_swarm.vendors import placement as vendors
from aar_swarm.versions import versions
from aar_swarm.write_up import write_up
from cluster import placement
from cluster.clocks import Reading, host_clock, largest_bound_ns
from cluster.guard import Guard, new_run_id
from cluster.kill_switch import KillSwitchGone
from cluster.limits import check_machine
from cluster.links import LinkFailed
from cluster.relay import RelayGone
from cluster.zygote_client import ZygoteFailed, ZygoteGone
from exchange import clock
from exchange.errors import ConfigurationError, JournalError, VenueError
from exchange.types import CommandKind, Side

_START_TIMEOUT_S = 440.0  # longer than the keeper waits for the venue, so that it can say what was wrong
_STOP_TIMEOUT_S = 60.0
_POLL_S = 0.1
_SOCKET_PATH_BYTES = 20  # a temporary directory longer than this leaves no room for Ray's socket names (107 bytes)
_MAX_TIMINGS = 1 << 22
_BACKGROUND_CASH, _BACKGROUND_SHARES = 1 << 50, 1 << 28
_PART_LOST = (placement.ActorDied, VenueError, ZygoteGone, ZygoteFailed, KillSwitchGone, LinkFailed, RelayGone)
TMP_PREFIX = "aar-"


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
    agents_per_process: int = 1,
    relay: bool = False,
) -> Run:
    """Run a scenario with real agent processes.

    Args: scenario: name, or path of one's own .toml; agents: how many processes (None: the scenario's default);
    breaker: a name of the scenario's, or "off"; settings: path → value, as `--set`; address: of a Ray cluster (None:
    start one for this run); out: directory for the run, which must not hold anything (None: a new one under runs/);
    background: "lobster:FILE", a recorded day as the market, `speed` times as fast; port: of order entry, the next two
    for market data and notices (0: any free ones); size: a name of the scenario's, settings that come before yours;
    alongside: do not wait until no other run of this user has this machine; agents_per_process: of one group at most
    so many share a process (docs/packed.md); relay: one connection a host to the venue, as then always.
    Raises: ConfigurationError: what was asked for cannot be; RunFailed.
    """
    chosen, count = prepare(
        scenario, agents, breaker, seed, settings, address, background, speed, size, agents_per_process, relay
    )
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
        made = _Run(chosen, count, seed, directory, address, port, recording, progress, agents_per_process, relay)
        return made.perform()


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
    agents_per_process: int = 1,
    relay: bool = False,
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
    if not 1 <= agents_per_process <= MAX_AGENTS_PER_PROCESS:
        raise ConfigurationError(
            f"--agents-per-process {agents_per_process}: must be from 1 to {MAX_AGENTS_PER_PROCESS}; use more processes"
        )
    if chosen.links and (relay or agents_per_process > 1):
        raise ConfigurationError(
            f"--relay, --agents-per-process: {chosen.name} has agents behind links, and a host's relay has one "
            "connection for all of them; leave both away"
        )
    chosen.counts(count)
    check_endowments(chosen, count)
    chosen = vendors.resolved(chosen, seed)
    if address is None:
        groups = [name for name, _ in chosen.members(count)]
        processes = len(packs(groups, range(count), agents_per_process))
        check_machine(count, processes if relay or agents_per_process > 1 else None)
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
        agents_per_process: int,
        relay: bool,
    ) -> None:
        self.scenario = scenario
        self.agents = agents
        self.seed = seed
        self.directory = directory
        self.address = address
        self.port = port
        self.recording = recording
        self.progress = progress
        self.log = directory / LOG if address is None else None
        self.swarm = Swarm(scenario, agents, seed, self.log, progress, agents_per_process, relay)
        self.venue: placement.Actor | None = None
        self.manifest: dict[str, Any] = {}
        self.session_s = 0.0
        self.cores_busy: float | None = None
        self.brought = False
        self.verdicts = vendors.examined(scenario)

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
            strategies = {group.strategy for group in self.scenario.participants.values()}
            with placement.ray_session(self.address, temporary, strategies) as nodes:
                try:
                    outcome = self._session(nodes)
                finally:
                    _ignore_interrupts()  # a second Ctrl-C must not interrupt the tidying up after the first
                    self._tear_down()
        except placement.RayDidNotStart as error:
            shutil.rmtree(self.directory)
            raise RunFailed(f"{error}; is the machine busy with something else?") from None
        except _PART_LOST as error:
            raise RunFailed(f"{error}; {self._where_the_journal_is()}") from None
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
            write_up(self.directory, self.scenario, self.swarm.groups, self.manifest, outcome, self.recording)
        except (OSError, JournalError, PolarsError) as error:
            reason = str(error).splitlines()[0]
            raise RunFailed(f"the session is over but could not be written up in {self.directory}: {reason}") from None
        return Run(self.directory)

    def _session(self, nodes: list[placement.Node]) -> dict[str, Any]:
        """Everything that needs processes; returns what is known only from them."""
        self.progress.stage("starting the venue (the first time, its kernels are compiled: two to four minutes)")
        started = self._start_venue(nodes)
        self._endow()
        assert self.venue is not None
        begun_ns = clock.monotonic_ns()
        self.swarm.start(nodes, started["endpoints"])
        start_s = (clock.monotonic_ns() - begun_ns) / clock.SECOND
        memory_kb = self.swarm.memory_kb()
        hosts = self.swarm.nodes()
        links = self.swarm.check_links()
        before, venue_boot_id = self.swarm.read_clocks(self.venue)
        self._write_manifest(started, hosts, links)
        self._note_clocks(before, [None] * len(hosts), venue_boot_id)
        self._play()
        after, _ = self.swarm.read_clocks(self.venue)
        self._note_clocks(before, after, venue_boot_id)
        self.progress.stage("collecting")
        collected = self.swarm.collect()
        final = self.venue.call("stop", timeout_s=_STOP_TIMEOUT_S)
        if "error" in final:
            raise VenueError(final["error"])
        supervisor = self.venue.call("stop_supervisor", final["commands"], timeout_s=2 * _STOP_TIMEOUT_S)
        self._bring(collected.logs)
        return {
            **collected._asdict(),
            "final": final,
            "supervisor": supervisor,
            "start_s": start_s,
            "session_s": self.session_s,
            "cores_busy": self.cores_busy,
            "memory_kb": memory_kb,
            "hosts": hosts,
        }

    def _start_venue(self, nodes: list[placement.Node]) -> dict[str, Any]:
        self.venue = placement.place_venue(nodes, None if self.log is None else str(self.log))
        validated = [verdict.declaration for verdict in self.verdicts if verdict.passed]
        config = {
            "engine": self.scenario.engine_config(self.agents, validated).model_dump(),
            "port": self.port,
            "loop": self.scenario.loop_config().model_dump(),
            "sequencing": self.scenario.sequencing.config(self.swarm.link_delays_ns(nodes)).model_dump(),
            "max_sessions": self.agents,
            "max_timings": _MAX_TIMINGS,
        }
        operator = None
        watcher_keys = None
        if len(nodes) > 1:
            keys = self.swarm.make_keys(nodes)
            config |= {"host": self.venue.node.address, "keys": keys.venue}
            operator, watcher_keys = keys.operators[OPERATOR], keys.operators[SUPERVISOR]
        directory = str(self.directory / JOURNAL) if self.address is None else None
        watcher = self.scenario.supervisor
        watching = watcher is not None and watcher.watching
        started: dict[str, Any] = self.venue.call(
            "start", config, directory, operator, watching, timeout_s=_START_TIMEOUT_S
        )
        if watcher is not None and watching:
            alerts = str(self.directory / ALERTS) if self.address is None else None
            arguments = (watcher.config(), alerts, watcher_keys)
            self.venue.call("start_supervisor", *arguments, timeout_s=_START_TIMEOUT_S)
        return started

    def _endow(self) -> None:
        assert self.venue is not None
        commands = opening_commands(self.scenario, self.agents)
        self.venue.call("request_many", commands, timeout_s=_START_TIMEOUT_S)

    def _write_manifest(
        self, started: dict[str, Any], hosts: list[dict[str, Any]], links: list[dict[str, Any]]
    ) -> None:
        groups = self.swarm.groups
        self.manifest = {
            "scenario": self.scenario.model_dump(),
            "agents": self.agents,
            "agents_per_process": self.swarm.agents_per_process,
            "relayed": self.swarm.relayed,
            "seed": self.seed,
            "accounts": {
                name: [groups.index(name), len(groups) - groups[::-1].index(name)] for name in dict.fromkeys(groups)
            },
            "started_utc": clock.utc_stamp(),
            "driver_host": socket.gethostname(),
            "hosts": hosts,
            "links": links or None,
            "scheduling": started["scheduling"],
            "cores": len(os.sched_getaffinity(0)),
            "versions": versions(),
        }
        if self.verdicts:
            told = [verdict._asdict() for verdict in self.verdicts]
            (self.directory / VALIDATION).write_text(json.dumps(told, indent=1))

    def _note_clocks(self, before: list[Reading | None], after: list[Reading | None], venue_boot_id: str) -> None:
        """Write the manifest with what is known of the clocks; clock_bound_ns null: of some host's nothing is."""
        hosts = self.manifest["hosts"]
        for host, first, last in zip(hosts, before, after, strict=True):
            host["clock"] = host_clock(first, last, host["boot_id"] == venue_boot_id)
        self.manifest["clock_bound_ns"] = largest_bound_ns([host["clock"] for host in hosts])
        (self.directory / MANIFEST).write_text(json.dumps(self.manifest, indent=1))

    def _play(self) -> None:
        """The session: open, signal, news, close, at the scenario's times; the run ends if the venue or a host dies."""
        assert self.venue is not None
        duration_s, signal, news = self.scenario.duration_s, self.scenario.signal, self.scenario.news
        agenda = [(signal.at_s, signal_commands(self.scenario))]
        if news is not None:
            pieces = drawn(news, signal.at_s, duration_s - news.quiet_ms / 1000, news_stream(self.seed))
            agenda += [(piece.at_s, [news_command(piece.bps)]) for piece in pieces]
        self.progress.stage("the session is open")
        busy_before_s = self.swarm.busy_core_s()
        opened_ns = clock.monotonic_ns()
        self.venue.call("request", CommandKind.OPEN_SESSION)
        done = 0
        while True:
            elapsed_s = (clock.monotonic_ns() - opened_ns) / clock.SECOND
            while done < len(agenda) and elapsed_s >= agenda[done][0]:
                self.venue.call("request_many", agenda[done][1])
                done += 1
            if elapsed_s >= duration_s:
                break
            status = self.venue.call("status")
            self.progress.session(elapsed_s, duration_s, status["commands"], self.swarm.look())
            due = agenda[done][0] if done < len(agenda) else duration_s
            elapsed_s = (clock.monotonic_ns() - opened_ns) / clock.SECOND
            clock.sleep(max(0.0, min(_POLL_S, due - elapsed_s)))
        self.venue.call("request", CommandKind.CLOSE_SESSION)
        self.session_s = (clock.monotonic_ns() - opened_ns) / clock.SECOND
        busy_s = self.swarm.busy_core_s()
        if busy_s and busy_s.keys() == busy_before_s.keys():
            self.cores_busy = sum(busy_s[machine] - busy_before_s[machine] for machine in busy_s) / self.session_s

    def _bring(self, logs: list[tuple[str, bytes]]) -> None:
        """The journal and what was printed, from the nodes to the run's directory; nothing to do where they share it.

        logs: of the hosts. Raises: ActorDied, OSError.
        """
        if self.address is None or self.venue is None or self.brought:
            return
        for name in self.venue.call("files"):
            (self.directory / JOURNAL / name).write_bytes(self.venue.call("file", name, timeout_s=_START_TIMEOUT_S))
        self.brought = True
        with (self.directory / LOG).open("wb") as file:
            for address, text in [(self.venue.node.address, self.venue.call("log")), *logs]:
                file.write(f"== printed on {address}\n".encode() + text)

    def _where_the_journal_is(self) -> str:
        if self.address is None or self.brought:
            return f"the journal so far is in {self.directory / JOURNAL}"
        where = "the venue's node" if self.venue is None else self.venue.node.address
        return f"the journal was on {where} and could not be brought"

    def _tear_down(self) -> None:
        """End everything, whatever state it is in. The guard sweeps up what this cannot reach."""
        if not self.brought:
            with contextlib.suppress(Exception):  # the venue's node may be what failed
                self._bring(self.swarm.logs())
        self.swarm.tear_down()
        if self.venue is not None:
            with contextlib.suppress(Exception):  # it is gone already, or will be with Ray
                self.venue.call("kill")
