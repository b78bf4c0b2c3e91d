"""One node's agents: the class that a Ray actor runs on each node (`ray.remote(num_cpus=0)(AgentHost)`).

Owns the node's scoreboard, its zygote, and the table of which agent has which row and pid. Must not know what agents
do, nor carry any of their messages: an order never passes through here.

It is a plain class and can be used without Ray. As an actor it must be a synchronous one, without concurrency groups:
the methods of such an actor run in its main thread, which the zygote needs.
"""

import contextlib
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from cluster import clocks
from cluster.kill_switch import Kill, KillSwitch, KillSwitchGone
from cluster.limits import busy_core_s
from cluster.links import Link, Links
from cluster.relay import Relay, RelayGone, RelayStatus
from cluster.scoreboard import AgentState, Scoreboard, row_dtype
from cluster.zygote_client import Newborn, Zygote, ZygoteClosed, ZygoteGone
from exchange.keys import ClientKeys

MEMORY_SAMPLE_AGENTS = 50


class HostStatus(TypedDict):
    """`alive` counts processes, `agents_alive` the agents in them; the next four count scoreboard rows by their state
    now, living or not."""

    alive: int
    agents_alive: int
    started: int
    ready: int
    finished: int
    failed: int
    exited: list[tuple[int, int, int]]
    """(agent_id, pid, exit code; negative: the signal), in the order in which they were reaped."""
    fork_error: str | None
    """Why the last `spawn` started fewer than it was asked to."""


class NodeInfo(TypedDict):
    """Where a host runs. Equal boot_id: same kernel, so same CLOCK_MONOTONIC."""

    host_name: str
    node_ip: str
    pid: int
    boot_id: str
    cores: int
    """That its processes may use."""
    zygote_scheduling: str
    """"SCHED_FIFO", or "normal" where that is not permitted: then agents that compute delay forks and kills."""


class AgentHost:
    """Starts, watches and ends the agents of one node."""

    def __init__(
        self,
        target: str,
        preload: Sequence[str],
        row_descr: Sequence[tuple[str, str]],
        capacity: int,
        log_path: str | None = None,
    ) -> None:
        """Start the zygote; returns when it can fork.

        Args: target: "module:function" every agent runs; preload: modules to import once, before any fork;
        row_descr: fields of a scoreboard row, BASE_FIELDS first, all int64; capacity: most different agents ever;
        log_path: file that gets what agents print, tracebacks included.
        Errors: ValueError for a bad argument; RuntimeError outside the main thread; ZygoteFailed.
        """
        self._board = Scoreboard.create(row_dtype(row_descr), capacity)
        try:
            self._zygote = Zygote(target, self._board, preload, log_path)
        except BaseException:
            self._board.close()
            raise
        self._row_of: dict[int, int] = {}
        self._pid_of: dict[int, int] = {}  # of processes not known to have ended, by their first agent
        self._agents_of: dict[int, int] = {}  # how many agents a process has, by its first one
        self._exits_seen = 0
        self._stopped = False
        self._kill_switch: KillSwitch | None = None
        self._relay: Relay | None = None
        self._links: Links | None = None
        self._watched: set[int] = set()
        self._fork_error: str | None = None

    def spawn(self, agents: Sequence[tuple[int, Mapping[str, Any]]], common: Mapping[str, Any] | None = None) -> int:
        """Fork one process per (agent_id, spec).

        Args: agents: any distinct ids; specs are plain data (msgpack), each laid over `common`. An id may come
        again once its process has ended; its row is then cleared and used again. A process whose spec has "members" is
        for as many agents as that is long, their ids from agent_id on; it is known by the first.
        Returns: how many were forked, from the first; if fewer than asked for, `status()["fork_error"]` says why.
        Errors: ValueError, before any fork, for an id that is given twice or alive or for more agents than rows;
        TypeError or FrameTooLarge, also before any fork, for a spec; ZygoteClosed, ZygoteGone.
        """
        self._refresh()
        sizes = {agent_id: len(spec.get("members", (spec,))) for agent_id, spec in agents}
        self._check_ids([each for agent_id, _ in agents for each in range(agent_id, agent_id + sizes[agent_id])])
        newborns = [
            Newborn(agent_id, self._rows_for(agent_id, sizes[agent_id]), dict(spec), sizes[agent_id])
            for agent_id, spec in agents
        ]
        self._agents_of.update(sizes)
        pids, self._fork_error = self._zygote.spawn(newborns, dict(common or {}))
        born = {newborn.agent_id: pid for newborn, pid in zip(newborns, pids, strict=False)}
        self._pid_of.update(born)
        if self._kill_switch is not None and (again := {a: born[a] for a in self._watched & born.keys()}):
            self._kill_switch.add(again, self._agents_of)
        self._note_exits()
        return len(pids)

    def status(self, exits_from: int = 0) -> HostStatus:
        """Counts and ends; cheap. `exited` leaves out the first `exits_from` ends, which the caller has seen.

        After `stop` it tells the final state. Errors: ZygoteGone.
        """
        self._refresh()
        counts = self._board.counts()
        return HostStatus(
            alive=self._zygote.alive,
            agents_alive=sum(self._agents_of[first] for first in self._pid_of) - self._killed_in(self._pid_of),
            started=counts[AgentState.STARTED],
            ready=counts[AgentState.READY],
            finished=counts[AgentState.FINISHED],
            failed=counts[AgentState.FAILED],
            exited=[(end.agent_id, end.pid, end.exit_code) for end in self._zygote.exited[exits_from:]],
            fork_error=self._fork_error,
        )

    def rows(self) -> np.ndarray:
        """A copy of the scoreboard's used rows, in the order of first spawn. Never asks the zygote, so never blocks."""
        copied: np.ndarray = self._board.rows[: len(self._row_of)].copy()
        return copied

    def kill(self, agent_ids: Sequence[int] | None = None) -> list[int]:
        """SIGKILL these agents (None: all), wait until they are reaped; returns the pids of those dead.

        Ids that are unknown or have ended are passed over. Errors: ZygoteClosed, ZygoteGone.
        """
        dead = self._zygote.kill(agent_ids)
        self._note_exits()
        return dead

    def open_links(
        self,
        links: Mapping[str, Link],
        endpoints: Mapping[str, str],
        seed: Sequence[int],
        keys: ClientKeys | None = None,
    ) -> dict[str, dict[str, str]]:
        """Start a proxy for each of these links between this host and a venue.

        Args: endpoints: the venue's; seed: of their jitter; keys: of one who may listen to the venue, to ping it.
        Returns: of each link, the endpoints that an agent of this host connects to. Errors: ValueError: they are open
        already; LinkFailed.
        """
        if self._links is not None:
            raise ValueError("the links of this host are open already")
        self._links = Links(links, endpoints, seed, keys)
        return self._links.endpoints

    def ping_links(self) -> dict[str, list[int]]:
        """Round trips to the venue in ns: through each link, and (`DIRECT`) past them. Blocks for seconds."""
        return {} if self._links is None else self._links.ping()

    def watch_links(self) -> None:
        """Ping on over every link until `watched_links`, beside whatever this host does."""
        if self._links is not None:
            self._links.watch()

    def watched_links(self) -> dict[str, list[tuple[int, int]]]:
        """Stop that; by link: (the venue's clock at the answer, round trip), ns."""
        return {} if self._links is None else self._links.watched()

    def link_counters(self) -> dict[str, dict[str, Any] | None]:
        """Of each link: its scheduling class, what it has carried so far, and how late; None: its proxy has ended."""
        return {} if self._links is None else self._links.counters()

    def arm_kill_switch(
        self,
        notices: str,
        agent_ids: Sequence[int],
        keys: ClientKeys | None = None,
        far_ids: Sequence[int] = (),
    ) -> str:
        """From now on SIGKILL those of these agents whom the venue's notices (an endpoint) say to kill, and tell
        them of halts by the notice board.

        Args: agent_ids: of a process of many agents, the first one's. An agent that comes again is watched again.
        far_ids: those who are not told, as they are to hear of halts no sooner than their link lets them.
        Returns: the scheduling class of the process that does it. Errors: ValueError: it is armed already;
        KillSwitchGone.
        """
        if self._kill_switch is not None:
            raise ValueError("the kill switch of this host is armed already")
        self._refresh()
        self._watched = set(agent_ids)
        pids = {agent: self._pid_of[agent] for agent in agent_ids if agent in self._pid_of}
        self._kill_switch = KillSwitch(pids, self._zygote.pid, notices, keys, self._board.fd, far_ids, self._agents_of)
        return self._kill_switch.scheduling

    def start_relay(self, endpoints: Mapping[str, str], keys: ClientKeys | None = None) -> dict[str, str]:
        """Relay the sessions of this host's agents to a venue; returns the endpoints where they connect instead.

        Args: keys: the host's own, to which all its accounts belong at the venue. Errors: ValueError: it runs
        already; RelayGone.
        """
        if self._relay is not None:
            raise ValueError("the relay of this host runs already")
        self._relay = Relay(endpoints, keys)
        return self._relay.endpoints

    def relay(self) -> RelayStatus | None:
        """What its relay has done; None if it has none, or has lost it."""
        with contextlib.suppress(RelayGone):
            return None if self._relay is None else self._relay.status()
        return None

    def name_vendors(self, vendors: Mapping[int, int]) -> None:
        """Tell the kill switch whose model each agent logged on with. Errors: KillSwitchGone."""
        if self._kill_switch is not None:
            self._kill_switch.name_vendors(vendors)

    def kills(self) -> list[Kill]:
        """What the kill switch has done so far. Errors: KillSwitchGone."""
        return [] if self._kill_switch is None else self._kill_switch.kills()

    def stop(self, grace_s: float = 0.0) -> HostStatus:
        """Let agents finish for grace_s, kill the rest, end the zygote; returns the final status. Idempotent."""
        if self._kill_switch is not None:
            with contextlib.suppress(KillSwitchGone):
                self._kill_switch.kills()
            self._kill_switch.close()
        if self._relay is not None:
            self._relay.close()
        try:
            if grace_s <= 0 or self._zygote.wait(grace_s) > 0:
                self._zygote.kill(None)
        except (ZygoteClosed, ZygoteGone):
            pass  # then its agents are dead too
        if self._links is not None:
            self._links.close()
        self._zygote.close()
        self._board.close()
        self._stopped = True
        return self.status()

    def node(self) -> NodeInfo:
        """Where this host runs."""
        return NodeInfo(
            host_name=socket.gethostname(),
            node_ip=_node_ip(),
            pid=os.getpid(),
            boot_id=clocks.boot_id(),
            cores=len(os.sched_getaffinity(0)),
            zygote_scheduling=self._zygote.scheduling,
        )

    def read_venue_clock(self, address: tuple[str, int], token: bytes) -> clocks.Reading | None:
        """This host's clock against the venue's (clocks.py); None if that does not answer."""
        try:
            return clocks.measure((address[0], address[1]), token)
        except OSError:
            return None

    def memory_kb(self) -> int | None:
        """Memory of all living agents in kB, shared pages divided among their sharers; None if no agent lives.

        The sum of Pss in /proc/PID/smaps_rollup, extrapolated from at most MEMORY_SAMPLE_AGENTS evenly chosen ones.
        Errors: ZygoteGone.
        """
        self._refresh()
        pids = list(self._pid_of.values())
        step = max(1, -(-len(pids) // MEMORY_SAMPLE_AGENTS))
        sampled = [kb for pid in pids[::step] if (kb := _pss_kb(pid)) is not None]
        return round(sum(sampled) / len(sampled) * len(pids)) if sampled else None

    def busy_core_s(self) -> dict[str, float]:
        """This machine's boot_id and how long its cores have been busy; see cluster.limits. Empty: it does not say."""
        found = busy_core_s()
        return {} if found is None else {clocks.boot_id(): found}

    def _rows_for(self, first: int, count: int) -> int:
        """The first of its agents' rows. Errors: ValueError: they were never together."""
        rows = [self._row_of.setdefault(each, len(self._row_of)) for each in range(first, first + count)]
        if rows[-1] - rows[0] != count - 1:
            raise ValueError(
                f"agents {first} … {first + count - 1} were not in one process before, and their rows are apart"
            )
        return rows[0]

    def _killed_in(self, processes: Mapping[int, int]) -> int:
        """Agents of living processes that are killed."""
        rows = self._board.rows
        if "killed_ns" not in (rows.dtype.names or ()) or not processes:
            return 0
        return int((rows["killed_ns"][np.isin(rows["pid"], list(processes.values()))] > 0).sum())

    def _check_ids(self, agent_ids: list[int]) -> None:
        if len(set(agent_ids)) != len(agent_ids):
            raise ValueError("the same agent id is given twice")
        alive = [agent_id for agent_id in agent_ids if agent_id in self._pid_of]
        if alive:
            raise ValueError(f"agents {alive[:5]} are alive on this host; kill them first")
        needed = len(self._row_of.keys() | set(agent_ids))
        if needed > len(self._board.rows):
            raise ValueError(f"{needed} agents need {needed} rows; this host was made for {len(self._board.rows)}")

    def _refresh(self) -> None:
        if not self._stopped:  # otherwise the last reply was final
            self._zygote.status()
        self._note_exits()

    def _note_exits(self) -> None:
        for end in self._zygote.exited[self._exits_seen :]:
            if self._pid_of.get(end.agent_id) == end.pid:
                del self._pid_of[end.agent_id]
        self._exits_seen = len(self._zygote.exited)


def _pss_kb(pid: int) -> int | None:
    """Proportional set size in kB; None if the process has ended or the kernel does not say."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return None


def _node_ip() -> str:
    """The address by which other nodes reach this one: Ray's if Ray runs here, else that of the default route."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        return str(ray.util.get_node_ip_address())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent: this only asks for a route
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
