"""The processes of one run: a host actor on each node, the vendors' and the agents' processes that these fork.

Owns who runs where, their keys and models, how they are started, looked at, collected and ended. Must not know when the
session opens or closes; that is the runner's.
"""

import contextlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aar_swarm.agent_process import ROW_FIELDS, TARGET
from aar_swarm.progress import Progress
from aar_swarm.results import LOG
from aar_swarm.scenario import Scenario
from aar_swarm.vendors import placement as vendors
from cluster import placement
from cluster.kill_switch import Kill
from exchange import clock
from exchange.errors import ConfigurationError
from exchange.keys import GeneratedKeys, generate

LEASE_S = 10.0
"""An agent that has heard nothing of the venue for so long ends by itself: its node may be cut off."""
OPERATOR, SUPERVISOR = "runner", "supervisor"
_FORK_BATCH = 50
_READY_TIMEOUT_S = 120.0
_START_TIMEOUT_S = 240.0
_STOP_TIMEOUT_S = 60.0
_POLL_S = 0.1
_GRACE_S = 5.0


class RunFailed(RuntimeError):
    """The run started but could not be finished; everything it had started is gone."""


class Collected(NamedTuple):
    """What is known of the processes when all have ended."""

    rows: np.ndarray
    """The agents' rows of the scoreboard, one an account."""
    vendor_rows: np.ndarray
    kills: list[Kill]
    exited: list[tuple[int, int, int]]
    """(agent, pid, exit code) of every process that ended before it was told to."""


class Swarm:
    """Everything that a run starts besides the venue."""

    def __init__(self, scenario: Scenario, agents: int, seed: int, log: Path | None, progress: Progress) -> None:
        """log: where processes write what they print, on this machine; None: on other machines it stays there."""
        self.scenario = scenario
        self.agents = agents
        self.seed = seed
        self.groups = [name for name, _ in scenario.members(agents)]
        self.hosts: list[placement.Actor] = []
        self.keys: GeneratedKeys | None = None
        self.vendor_processes = vendors.count_processes(scenario)
        self._log = log
        self._progress = progress
        self._endowments = scenario.endowments(agents)
        self._models: list[list[dict[str, Any]]] = []
        """Of each account: what it tries to log on with."""
        self._host_key = vendors.key_numbers(scenario, agents).stop

    def make_keys(self) -> GeneratedKeys:
        """For a run over a network: nobody but its own agents may trade, each for its own account."""
        beyond = vendors.key_numbers(self.scenario, self.agents)
        self.keys = generate([*range(self.agents), *beyond, self._host_key], [OPERATOR, SUPERVISOR])
        return self.keys

    def start(self, nodes: list[placement.Node], endpoints: dict[str, str]) -> None:
        """Fork all agents, batch by batch on every node, and wait until each has logged on.

        Args: endpoints: of the venue. Raises: RunFailed, ConfigurationError: a node cannot start so many.
        """
        ranges = self._place_hosts(nodes)
        common = {
            "endpoints": endpoints,
            "seed": self.seed,
            "lease_ns": int(LEASE_S * clock.SECOND),
            "market": self.scenario.market(self.agents)._asdict(),
        }
        self._start_vendors(common)
        self._fork(ranges, common)
        self._arm(ranges, endpoints)
        self._wait_until_ready()

    def _place_hosts(self, nodes: list[placement.Node]) -> list[range]:
        """A host on every node that gets agents; returns which, of each host."""
        log = None if self._log is None else str(self._log)
        # Imported once, before the forks; a lone participant imports its own, which may start threads.
        counts = self.scenario.counts(self.agents)
        groups = self.scenario.participants.items()
        modules = sorted({group.strategy.partition(":")[0] for name, group in groups if counts[name] > 1})
        preload = [TARGET.partition(":")[0], *modules]
        ranges: list[range] = []
        first = 0
        for node, share in zip(nodes, placement.divide(self.agents, nodes), strict=True):
            if share:
                rows = share + self.vendor_processes
                self.hosts.append(placement.place_host(node, TARGET, preload, list(ROW_FIELDS), rows, log))
                ranges.append(range(first, first + share))
            first += share
        return ranges

    def _start_vendors(self, common: dict[str, Any]) -> None:
        """Those whom agents ask, before the agents."""
        if self.vendor_processes:
            self._progress.stage(f"starting {self.vendor_processes} vendor processes")
        keys = None if self.keys is None else self.keys.accounts
        self._models = vendors.start(self.scenario, self.agents, self.hosts, common, keys, _START_TIMEOUT_S)

    def _spec(self, agent: int) -> dict[str, Any]:
        group = self.scenario.participants[self.groups[agent]]
        return {
            "keys": None if self.keys is None else self.keys.accounts[agent],
            "strategy": group.strategy,
            "params": group.params,
            "endowment": self._endowments[agent],
            "rehearse": group.rehearse,
            "models": self._models[agent],
            "explains": self.scenario.explanations != "off",
        }

    def _fork(self, ranges: list[range], common: dict[str, Any]) -> None:
        self._progress.stage(f"starting {self.agents} agent processes")
        waiting = [[(agent, self._spec(agent)) for agent in agents] for agents in ranges]
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

    def _arm(self, ranges: list[range], endpoints: dict[str, str]) -> None:
        # A host's own key belongs to no account: with it one may listen.
        keys = None if self.keys is None else self.keys.accounts[self._host_key]
        arming = [
            (host, host.begin("arm_kill_switch", endpoints["notices"], list(agents), keys))
            for host, agents in zip(self.hosts, ranges, strict=True)
        ]
        for host, call in arming:
            host.end(call, _START_TIMEOUT_S)

    def _wait_until_ready(self) -> None:
        deadline = clock.monotonic_ns() + int(_READY_TIMEOUT_S * clock.SECOND)
        while (ready := self._show_ready()) < self.agents:
            if clock.monotonic_ns() > deadline:
                raise RunFailed(f"only {ready} of {self.agents} agents logged on within {_READY_TIMEOUT_S:.0f} s")
            self._check_nobody_died()
            clock.sleep(_POLL_S)
        for host in self.hosts:
            rows = host.call("rows")
            host.call("name_vendors", dict(zip(rows["agent_id"].tolist(), rows["vendor"].tolist(), strict=True)))

    def _statuses(self) -> list[dict[str, Any]]:
        calls = [(host, host.begin("status")) for host in self.hosts]
        return [host.end(call) for host, call in calls]

    def _show_ready(self) -> int:
        ready = sum(status["ready"] for status in self._statuses()) - self.vendor_processes
        self._progress.agents(ready, self.agents)
        return int(ready)

    def _check_nobody_died(self) -> None:
        for status in self._statuses():
            if status["exited"]:
                agent, _, code = status["exited"][0]
                log = self._log
                said = log.read_text(errors="replace").strip().splitlines()[-1:] if log and log.is_file() else []
                raise RunFailed(
                    f"agent {agent} ended with status {code} before the session: "
                    f"{' '.join(said) or 'no word'}; see {log or LOG}"
                )

    def memory_kb(self) -> int:
        """Of all agents together."""
        return sum(host.call("memory_kb") or 0 for host in self.hosts)

    def nodes(self) -> list[dict[str, Any]]:
        """Where each host runs."""
        return [host.call("node") for host in self.hosts]

    def busy_core_s(self) -> float | None:
        """Of all machines together, each counted once however many hosts it is; None if one does not say."""
        try:
            machines = {host.call("node")["boot_id"]: host for host in self.hosts}
            found = [host.call("busy_core_s") for host in machines.values()]
        except placement.ActorDied:
            return None
        return None if None in found else sum(found)

    def alive(self) -> int:
        """Agents that live now."""
        return sum(status["alive"] for status in self._statuses()) - self.vendor_processes

    def collect(self) -> Collected:
        """Let all finish and end the hosts."""
        deadline = clock.monotonic_ns() + int(_GRACE_S * clock.SECOND)
        while any(status["alive"] for status in self._statuses()) and clock.monotonic_ns() < deadline:
            clock.sleep(_POLL_S)
        rows = np.concatenate([host.call("rows") for host in self.hosts])
        rows = rows[np.argsort(rows["agent_id"])]
        is_agent = rows["agent_id"] < self.agents
        kills = [kill for host in self.hosts for kill in host.call("kills")]
        statuses = [host.call("stop", timeout_s=_STOP_TIMEOUT_S) for host in self.hosts]
        exited = [end for status in statuses for end in status["exited"]]
        return Collected(rows[is_agent], rows[~is_agent], kills, exited)

    def tear_down(self) -> None:
        """End everything, whatever state it is in."""
        for host in self.hosts:
            with contextlib.suppress(Exception):  # it is gone already, or will be with Ray
                host.call("stop")
