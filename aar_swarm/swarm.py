"""The processes of one run: a host actor on each node, the vendors' and the agents' processes that these fork.

Owns who runs where, their keys and models, how they are started, looked at, collected and ended. Must not know when the
session opens or closes; that is the runner's.
"""

import contextlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aar_swarm.agent_process import ROW_FIELDS, TARGET
from aar_swarm.analysis import link_check
from aar_swarm.packing import packs
from aar_swarm.progress import Progress
from aar_swarm.results import LOG
from aar_swarm.scenario import Scenario
from aar_swarm.vendors import placement as vendors
from cluster import clocks, placement
from cluster.kill_switch import Kill
from cluster.links import DIRECT
from cluster.roll_call import HostLost, RollCall
from cluster.scoreboard import row_dtype
from exchange import clock
from exchange.errors import ConfigurationError
from exchange.keys import ClientKeys, GeneratedKeys, generate

LEASE_S = 4.0
"""An agent that has heard nothing of the venue for so long ends by itself, found out within a second more: its node may
be cut off. The venue's heartbeat is every second."""
OPERATOR, SUPERVISOR = "runner", "supervisor"
_LEASE_ROUND_TRIPS = 6
"""More of a link's round trips than it takes to connect and log on."""
_LINK_CHECK_ROUND_TRIPS = 20
"""More of a link's round trips than a check of it takes, beyond seconds."""
_FORK_BATCH = 50
_READY_TIMEOUT_S, _READY_PER_AGENT_S = 120.0, 0.005
_START_TIMEOUT_S = 240.0
_STOP_TIMEOUT_S = 60.0
_POLL_S = 0.1
_GRACE_S = 5.0
_GRACE_PER_PACKED_AGENT_S = 0.0005
"""Before it hears of the close, a process hands what came before it to all of its agents."""


class RunFailed(RuntimeError):
    """The run started but could not be finished; everything it had started is gone."""


class Collected(NamedTuple):
    """What is known of the processes when all have ended."""

    rows: np.ndarray
    """The agents' rows of the scoreboard, one an account."""
    vendor_rows: np.ndarray
    kills: list[Kill]
    exited: list[tuple[int, int, int]]
    """(agent, pid, exit code) of every process that ended before it was told to; of many agents, the first one's."""
    hosts_lost: list[HostLost]
    """Of their agents nothing is known: their rows hold the agent's number alone."""
    logs: list[tuple[str, bytes]]
    """What processes of hosts printed whose files are not the driver's: (address, text)."""
    links: list[dict[str, Any]]
    """`link_check.told` of each host's links."""
    link_of: list[str]
    """Of each account: the link that it is behind."""
    pings: list[tuple[int, str, int, int]]
    """(host, link, the venue's clock, round trip) of every ping during the session."""
    processes: list[int]
    """Of every process of agents, its agent or the first of them."""
    relays: list[dict[str, Any] | None]
    """What the relay of each host did; none, if the run had none."""


class Swarm:
    """Everything that a run starts besides the venue."""

    def __init__(
        self,
        scenario: Scenario,
        agents: int,
        seed: int,
        log: Path | None,
        progress: Progress,
        agents_per_process: int = 1,
        relay: bool = False,
    ) -> None:
        """log: where processes write what they print, on this machine; None: on other machines it stays there.
        relay: one connection a host to the venue; so it is always where processes hold several agents."""
        self.scenario = scenario
        self.agents = agents
        self.seed = seed
        self.groups = [name for name, _ in scenario.members(agents)]
        self.roll_call = RollCall()
        self.ranges: list[range] = []
        """Of each host: which agents."""
        self.keys: GeneratedKeys | None = None
        self._key_of_host: list[int | None] = []
        self.vendor_processes = vendors.count_processes(scenario)
        self.agents_per_process = agents_per_process
        self.relayed = relay or agents_per_process > 1
        self._packs: list[list[range]] = []
        """Of each host: the agents of each process."""
        self._link_endpoints: list[dict[str, dict[str, str]]] = []
        """Of each host, by link: where its agents connect to."""
        self._links_of_accounts = [DIRECT] * agents
        self._first_pings: dict[int, dict[str, list[int]]] = {}
        self._log = log
        self._progress = progress
        self._endowments = scenario.endowments(agents)
        self._models: list[list[dict[str, Any]]] = []
        """Of each account: what it tries to log on with."""
        self._host_key = vendors.key_numbers(scenario, agents).stop

    def make_keys(self, nodes: list[placement.Node]) -> GeneratedKeys:
        """For a run over a network: nobody but its own agents may trade, each for its own account.

        Behind relays an account's key is its host's, as its session goes over the host's connection.
        """
        beyond = vendors.key_numbers(self.scenario, self.agents)
        of_hosts = range(self._host_key, self._host_key + len(nodes))
        own = [] if self.relayed else range(self.agents)
        self.keys = generate([*own, *beyond, *of_hosts], [OPERATOR, SUPERVISOR])
        if self.relayed:
            agent = 0
            for host_key, share in zip(of_hosts, self._divided(nodes), strict=True):
                public = self.keys.accounts[host_key].public
                self.keys.venue.accounts.update(dict.fromkeys(range(agent, agent + share), public))
                agent += share
        return self.keys

    def start(self, nodes: list[placement.Node], endpoints: dict[str, str]) -> None:
        """Fork all agents, batch by batch on every node, and wait until each has logged on.

        Args: endpoints: of the venue. Raises: RunFailed, ConfigurationError: a node cannot start so many.
        """
        self.ranges = ranges = self._place_hosts(nodes)
        self._packs = [packs(self.groups, agents, self.agents_per_process) for agents in ranges]
        common = {
            "endpoints": endpoints,
            "seed": self.seed,
            "lease_ns": int(LEASE_S * clock.SECOND),
            "market": self.scenario.market(self.agents)._asdict(),
        }
        self._open_links(ranges, endpoints)
        self._start_vendors(common)
        self._fork([{**common, "endpoints": reached, "relayed": self.relayed} for reached in self._relay(endpoints)])
        self._arm(endpoints)
        self._wait_until_ready()

    @property
    def hosts(self) -> list[placement.Actor]:
        return self.roll_call.hosts

    def _divided(self, nodes: list[placement.Node]) -> list[int]:
        """How many agents each node gets."""
        return placement.divide(self.agents, nodes, self.agents_per_process if self.relayed else 0)

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
        for number, (node, share) in enumerate(zip(nodes, self._divided(nodes), strict=True)):
            if share:
                rows = share + self.vendor_processes
                agents = range(first, first + share)
                host = placement.place_host(node, TARGET, preload, list(ROW_FIELDS), rows, log)
                self.roll_call.add(host, list(agents))
                ranges.append(agents)
                self._key_of_host.append(None if self.keys is None else self._host_key + number)
            first += share
        return ranges

    def link_delays_ns(self, nodes: list[placement.Node]) -> list[int]:
        """Of each account: what its messages are modelled to take to the venue, on those nodes."""
        shares = [share for share in self._divided(nodes) if share]
        hosts = np.repeat(np.arange(len(shares)), shares).tolist()
        links = [self.scenario.link_of(group, host) for group, host in zip(self.groups, hosts, strict=True)]
        return [self.scenario.link_delays_ns(link)[0] for link in links]

    def _open_links(self, ranges: list[range], endpoints: dict[str, str]) -> None:
        """On each host, those that its agents use."""
        calls = []
        for number, (host, agents) in enumerate(zip(self.hosts, ranges, strict=True)):
            for agent in agents:
                self._links_of_accounts[agent] = self.scenario.link_of(self.groups[agent], number)
            used = sorted({self._links_of_accounts[agent] for agent in agents} - {DIRECT})
            links = {name: self.scenario.links[name].in_ns() for name in used}
            calls.append((host, host.begin("open_links", links, endpoints, [self.seed, number], self._listening_key())))
        self._link_endpoints = [host.end(call, _START_TIMEOUT_S) for host, call in calls]

    def _listening_key(self) -> ClientKeys | None:
        """A host's own, which belongs to no account: with it one may listen."""
        return None if self.keys is None else self.keys.accounts[self._host_key]

    def _start_vendors(self, common: dict[str, Any]) -> None:
        """Those whom agents ask, before the agents."""
        if self.vendor_processes:
            self._progress.stage(f"starting {self.vendor_processes} vendor processes")
        keys = None if self.keys is None else self.keys.accounts
        self._models = vendors.start(self.scenario, self.agents, self.hosts, common, keys, _START_TIMEOUT_S)

    def _spec(self, agent: int, host: int) -> dict[str, Any]:
        group = self.scenario.participants[self.groups[agent]]
        return {
            **self._linked(self._links_of_accounts[agent], host),
            "keys": None if self.keys is None or self.relayed else self.keys.accounts[agent],
            "strategy": group.strategy,
            "params": group.params,
            "endowment": self._endowments[agent],
            "rehearse": group.rehearse,
            "models": self._models[agent],
            "explains": self.scenario.explanations != "off",
        }

    def _linked(self, link: str, host: int) -> dict[str, Any]:
        """What is different for an agent behind a link: where it connects to, how patient it is, and that it hears of
        a halt as late as its link lets it (the notice board of its host is not behind the link)."""
        if link == DIRECT:
            return {}
        away_ns = _LEASE_ROUND_TRIPS * self.scenario.links[link].in_ns().nominal_rtt_ns
        return {
            "endpoints": self._link_endpoints[host][link],
            "lease_ns": int(LEASE_S * clock.SECOND) + away_ns,
            "notice_board": None,
        }

    def _relay(self, endpoints: dict[str, str]) -> list[dict[str, str]]:
        """Start the relays; returns where the agents of each host connect."""
        if not self.relayed:
            return [endpoints] * len(self.hosts)
        starting = [
            (host, host.begin("start_relay", endpoints, self._keys_of(at))) for at, host in enumerate(self.hosts)
        ]
        return [host.end(call, _START_TIMEOUT_S) for host, call in starting]

    def _keys_of(self, host: int) -> ClientKeys | None:
        """A host's own: with it one may listen, and behind a relay trade for the host's accounts."""
        number = self._key_of_host[host]
        return None if self.keys is None or number is None else self.keys.accounts[number]

    def _process(self, agents: range, host: int) -> tuple[int, dict[str, Any]]:
        """What a process of these is forked from."""
        if len(agents) == 1:
            return agents.start, self._spec(agents.start, host)
        return agents.start, {"members": [self._spec(agent, host) for agent in agents]}

    def _fork(self, commons: list[dict[str, Any]]) -> None:
        processes = sum(map(len, self._packs))
        inside = f" with {self.agents} agents" if processes < self.agents else ""
        self._progress.stage(f"starting {processes} agent processes{inside}")
        at_once = max(1, _FORK_BATCH // self.agents_per_process)
        waiting = [[(agents, number) for agents in of_host] for number, of_host in enumerate(self._packs)]
        while any(waiting):
            calls = []
            for host, common, left in zip(self.hosts, commons, waiting, strict=True):
                batch, left[:] = [self._process(*each) for each in left[:at_once]], left[at_once:]
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

    def _arm(self, endpoints: dict[str, str]) -> None:
        arming = []
        for number, (host, processes) in enumerate(zip(self.hosts, self._packs, strict=True)):
            first = [agents.start for agents in processes]
            far = [agent for agent in first if self._links_of_accounts[agent] != DIRECT]
            arguments = (endpoints["notices"], first, self._keys_of(number), far)
            arming.append((host, host.begin("arm_kill_switch", *arguments)))
        for host, call in arming:
            host.end(call, _START_TIMEOUT_S)

    def _wait_until_ready(self) -> None:
        timeout_s = _READY_TIMEOUT_S + self.agents * _READY_PER_AGENT_S
        deadline = clock.monotonic_ns() + int(timeout_s * clock.SECOND)
        while (ready := self._show_ready()) < self.agents:
            if clock.monotonic_ns() > deadline:
                raise RunFailed(f"only {ready} of {self.agents} agents logged on within {timeout_s:.0f} s")
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
        for host, status in zip(self.hosts, self._statuses(), strict=True):
            if status["exited"]:
                agent, _, code = status["exited"][0]
                said = self._printed(host).strip().splitlines()[-1:]
                raise RunFailed(
                    f"agent {agent} ended with status {code} before the session: "
                    f"{' '.join(said) or 'no word'}; see {self._log or LOG}"
                )

    def _printed(self, host: placement.Actor) -> str:
        if self._log is None:
            return bytes(host.call("log")).decode(errors="replace")
        return self._log.read_text(errors="replace") if self._log.is_file() else ""

    def check_links(self) -> list[dict[str, Any]]:
        """Ping the venue over every link while the session has not begun, and begin to watch the links; what is known
        of each by then."""
        self._first_pings = self._ping_links()
        if self._any_link():
            self._ask_of_links("watch_links")
        return self._links_told({})

    def _any_link(self) -> bool:
        return any(self._link_endpoints)

    def _ask_of_links(self, method: str) -> dict[int, Any]:
        """Of each host that answers: a ping may take as long as its link does."""
        return self.roll_call.ask(method, timeout_s=_STOP_TIMEOUT_S + _LINK_CHECK_ROUND_TRIPS * self._longest_rtt_s())

    def _longest_rtt_s(self) -> float:
        """Of the links in use."""
        used = set(self._links_of_accounts) - {DIRECT}
        return max((self.scenario.links[name].in_ns().nominal_rtt_ns for name in used), default=0) / clock.SECOND

    def _ping_links(self) -> dict[int, dict[str, list[int]]]:
        if not self._any_link():
            return {}
        self._progress.stage("measuring the links")
        return self._ask_of_links("ping_links")

    def _links_told(self, last_pings: dict[int, dict[str, list[int]]]) -> list[dict[str, Any]]:
        """`link_check.told` of every link. last_pings: those after the session, by host."""
        told = []
        for number, of_host in (self._ask_of_links("link_counters") if self._any_link() else {}).items():
            first, last = self._first_pings.get(number, {}), last_pings.get(number, {})
            direct = first.get(DIRECT, []) + last.get(DIRECT, [])
            for name, counters in of_host.items():
                link = self.scenario.links[name].in_ns()
                pings = [first.get(name, []), last.get(name, [])]
                told.append(
                    link_check.told(number, self.hosts[number].node.address, name, link, pings, direct, counters)
                )
        return told

    def _watched_pings(self) -> list[tuple[int, str, int, int]]:
        watched = self._ask_of_links("watched_links") if self._any_link() else {}
        return [
            (number, name, *ping)
            for number, of_host in watched.items()
            for name, seen in of_host.items()
            for ping in seen
        ]

    def memory_kb(self) -> int:
        """Of all agents together, those of vendors too."""
        return sum(host.call("memory_kb") or 0 for host in self.hosts)

    def nodes(self) -> list[dict[str, Any]]:
        """Where each host runs, and which agents on it: [first, one past the last]."""
        return [
            {**host.call("node"), "agents": [agents.start, agents.stop]}
            for host, agents in zip(self.hosts, self.ranges, strict=True)
        ]

    def busy_core_s(self) -> dict[str, float]:
        """By machine (boot_id), however many hosts it is, of those that answer and say."""
        found: dict[str, float] = {}
        for told in self.roll_call.ask("busy_core_s").values():
            found |= told
        return found

    def read_clocks(self, venue: placement.Actor) -> tuple[list[clocks.Reading | None], str]:
        """Of each host, one after the other, its clock against the venue's, None where it does not answer; and the
        boot_id of the venue's node."""
        address, token, boot_id = venue.call("show_clock")
        readings: list[clocks.Reading | None] = []
        for number, host in enumerate(self.hosts):
            try:
                lost = number in self.roll_call.lost
                readings.append(None if lost else host.call("read_venue_clock", address, token))
            except placement.ActorDied:
                readings.append(None)
        venue.call("hide_clock")
        return readings, boot_id

    def look(self) -> int:
        """How many agents live, as far as is known now; waits for no host. Says who was lost.

        Raises: ActorDied: all hosts are.
        """
        for host in self.roll_call.look():
            self._progress.stage(f"{host.why}; the session goes on without its {len(host.agents)} agents")
        self._check_some_are_left()
        return sum(status["agents_alive"] for status in self.roll_call.latest()) - self.vendor_processes

    def _check_some_are_left(self) -> None:
        lost = list(self.roll_call.lost.values())
        if len(lost) == len(self.hosts):
            raise placement.ActorDied(f"{lost[0].why}, and no other host is left")

    def collect(self) -> Collected:
        """Let all finish and end the hosts. Whoever does not answer now is lost."""
        grace_s = _GRACE_S + _GRACE_PER_PACKED_AGENT_S * (self.agents - sum(map(len, self._packs)))
        grace_s += 2 * self._longest_rtt_s()
        deadline = clock.monotonic_ns() + int(grace_s * clock.SECOND)
        self.roll_call.look()
        while any(status["alive"] for status in self.roll_call.latest()) and clock.monotonic_ns() < deadline:
            clock.sleep(_POLL_S)
            self.roll_call.look()
        answered = self.roll_call.ask("rows")
        self._check_some_are_left()
        pings = self._watched_pings()
        links = self._links_told(self._ping_links())
        relays = self.roll_call.ask("relay") if self.relayed else {}
        kills = self.roll_call.ask("kills")
        logs = self.logs()
        statuses = self.roll_call.ask("stop", timeout_s=_STOP_TIMEOUT_S)
        self._check_some_are_left()
        lost = list(self.roll_call.lost.values())
        rows = self._rows([answered[number] for number in statuses], lost)
        is_agent = rows["agent_id"] < self.agents
        return Collected(
            rows[is_agent],
            rows[~is_agent],
            [kill for number in statuses for kill in kills[number]],
            [end for status in statuses.values() for end in status["exited"]],
            lost,
            logs,
            links,
            self._links_of_accounts,
            pings,
            [agents.start for of_host in self._packs for agents in of_host],
            [relays.get(number) for number in range(len(self.hosts))] if self.relayed else [],
        )

    def _rows(self, known: list[np.ndarray], lost: list[HostLost]) -> np.ndarray:
        """All in the order of their numbers; of the agents of a lost host the number, and else 0."""
        missing = np.zeros(sum(len(host.agents) for host in lost), row_dtype(ROW_FIELDS))
        missing["agent_id"] = [agent for host in lost for agent in host.agents]
        rows: np.ndarray = np.concatenate([*known, missing])
        return rows[np.argsort(rows["agent_id"])]

    def logs(self) -> list[tuple[str, bytes]]:
        """What the hosts' processes printed so far, where the driver has no file of it."""
        if self._log is not None:
            return []
        said = self.roll_call.ask("log")
        return [(self.hosts[number].node.address, text) for number, text in said.items() if text]

    def tear_down(self) -> None:
        """End everything, whatever state it is in."""
        with contextlib.suppress(Exception):  # it is gone already, or will be with Ray
            self.roll_call.ask("stop")
        with contextlib.suppress(Exception):
            self.roll_call.kill_lost()
