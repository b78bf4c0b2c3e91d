"""Hosts' times on the venue's clock: which agent ran where, and what its host's clock was off by.

From the manifest's hosts: `agents` [first, one past the last] and `clock` (cluster.clocks.HostClock). A run that has
neither, as one of an earlier version, is taken to be on one clock if its clock_bound_ns is 0.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from cluster.kill_switch import Kill
from exchange.state import Array


class HostClocks(NamedTuple):
    """By account, int64[n]. host: its number; -1 if that is not known."""

    host: Array
    offset_ns: Array
    """To add to its times to have the venue's."""
    bound_ns: Array
    """offset_ns is wrong by no more; -1: nothing is known."""
    base_rtt_ns: Array
    """Smallest round trip between its host and the venue's; 0 where both are of one kernel, with no network between."""

    def pair_bound_ns(self, first: Array, second: Array) -> Array:
        """By how much times of two accounts on the venue's clock may be misplaced to each other: 0 within one host,
        else the sum of both bounds; -1: not known."""
        bounds = self.bound_ns[first] + self.bound_ns[second]
        unknown = (self.bound_ns[first] < 0) | (self.bound_ns[second] < 0)
        one_host = (self.host[first] == self.host[second]) & (self.host[first] >= 0)
        return np.where(one_host, 0, np.where(unknown, -1, bounds))


def host_clocks(manifest: Mapping[str, Any], accounts: int) -> HostClocks:
    """Of the accounts of a run. The venue's own accounts, and others beyond, are on its clock."""
    bound = manifest.get("clock_bound_ns")
    found = HostClocks(
        np.full(accounts, -1), np.zeros(accounts, np.int64), np.full(accounts, -1 if bound is None else bound),
        np.zeros(accounts, np.int64),
    )  # fmt: skip
    for number, host in enumerate(manifest["hosts"]):
        known = host.get("clock")
        if known is None or "agents" not in host:
            continue
        part = slice(*host["agents"])
        found.host[part] = number
        found.offset_ns[part] = known["offset_ns"]
        found.bound_ns[part] = -1 if known["bound_ns"] is None else known["bound_ns"]
        if known["bound_ns"] != 0:
            found.base_rtt_ns[part] = known["smallest_rtt_ns"] or 0
    return found


def rows_on_venue_clock(rows: Array, clocks: HostClocks) -> Array:
    """A copy of the scoreboard's rows with all moments on the venue's clock. 0 stays 0: it has not happened."""
    moved = rows.copy()
    offsets = clocks.offset_ns[rows["agent_id"]]
    for name in MOMENTS:
        if name in (rows.dtype.names or ()):
            moved[name] = np.where(rows[name] > 0, rows[name] + offsets, rows[name])
    return moved


MOMENTS = ("ready_ns", "signal_heard_ns", "decided_ns", "halt_heard_ns", "close_heard_ns", "withdrawal_heard_ns")
"""Fields of a row that are readings of its host's clock."""


def kills_on_venue_clock(kills: list[Kill], clocks: HostClocks) -> list[Kill]:
    """The same of what kill switches did, each on one host. One that killed nobody stays as it is."""
    moved = []
    for kill in kills:
        agents = [agent for agent, _ in kill["deaths"]] + kill["alive"]
        offset = int(clocks.offset_ns[agents[0]]) if agents and agents[0] < len(clocks.offset_ns) else 0
        deaths = [(agent, at_ns + offset) for agent, at_ns in kill["deaths"]]
        moved.append(
            Kill(
                sequence=kill["sequence"],
                heard_ns=kill["heard_ns"] + offset,
                signalled_ns=kill["signalled_ns"] + offset,
                deaths=deaths,
                alive=kill["alive"],
            )
        )
    return moved
