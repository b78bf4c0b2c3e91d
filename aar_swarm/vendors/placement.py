"""Vendors' processes among a run's hosts: started before the agents, told apart from them, counted at the end.

They are forked by the hosts' zygotes as agents are, under ids behind the agents'. On one node they listen on loopback,
on several on the node's address.
"""

from typing import Any

import numpy as np

from aar_swarm.scenario import Scenario
from aar_swarm.vendors.service import SOUND, VendorWorld
from aar_swarm.vendors.validation import Verdict, battery
from cluster.placement import Actor
from cluster.scoreboard import AgentState
from exchange import clock
from exchange.errors import VenueError
from exchange.keys import ClientKeys
from exchange.types import SystemAccount
from exchange.wire import Declaration

_POLL_S = 0.05
_LOOPBACK = "127.0.0.1"


def resolved(scenario: Scenario, seed: int) -> Scenario:
    """The scenario with the seed of its vendors' world and the fault as it will be, so that the manifest says both.

    Raises: ConfigurationError: no fault is as large as was asked for.
    """
    if scenario.vendors is None:
        return scenario
    vendors = scenario.vendors
    if vendors.seed is None:
        vendors = vendors.model_copy(update={"seed": seed})
    fault = VendorWorld(vendors).fault
    if fault is not None:
        vendors = vendors.model_copy(update={"fault_feature": fault.feature, "fault_factor": fault.factor})
    return scenario.model_copy(update={"vendors": vendors})


def examined(scenario: Scenario) -> list[Verdict]:
    """What the battery found of each vendor's model, where the scenario has a gate."""
    if scenario.vendors is None or not scenario.admission.validated:
        return []
    return battery(scenario.vendors, SOUND)


def count_processes(scenario: Scenario) -> int:
    return scenario.vendors.count * scenario.vendors.processes_per_vendor if scenario.vendors else 0


def key_numbers(scenario: Scenario, agents: int) -> range:
    """Behind every account of the venue, its own too: with such a key one may listen, and trade for nobody."""
    first = agents + len(SystemAccount)
    return range(first, first + count_processes(scenario))


def start(
    scenario: Scenario,
    agents: int,
    hosts: list[Actor],
    common: dict[str, Any],
    keys: dict[int, ClientKeys] | None,
    timeout_s: float,
) -> list[list[dict[str, Any]]]:
    """Start all processes, dealt to the hosts in turn, and wait until each listens.

    Returns: of each account, the models that it tries to log on with, in its order: {"declaration", "endpoint"}, the
    endpoint where it asks for valuations or None.
    Raises: VenueError: one did not start.
    """
    own: list[list[dict[str, Any]]] = [
        [{"declaration": declared, "endpoint": None}] for declared in scenario.declarations(agents)
    ]
    if scenario.vendors is None:
        return own
    settings = scenario.vendors.model_dump()
    processes = count_processes(scenario)
    numbers = key_numbers(scenario, agents)
    waiting: list[list[tuple[int, dict[str, Any]]]] = [[] for _ in hosts]
    addresses = [host.node.address if len(hosts) > 1 else _LOOPBACK for host in hosts]
    for process in range(processes):
        at = process % len(hosts)
        spec = {
            "is_vendor": True,
            "vendors": settings,
            "number": process // scenario.vendors.processes_per_vendor,
            "host": addresses[at],
            "keys": None if keys is None else keys[numbers[process]],
        }
        waiting[at].append((agents + process, spec))
    for host, specs in zip(hosts, waiting, strict=True):
        if host.call("spawn", specs, common, timeout_s=timeout_s) < len(specs):
            raise VenueError(f"vendors cannot start on {host.node.address}: {host.call('status')['fork_error']}")
    endpoints: dict[int, str] = {}
    deadline_ns = clock.monotonic_ns() + int(timeout_s * clock.SECOND)
    while len(endpoints) < processes:
        for host, address in zip(hosts, addresses, strict=True):
            rows = host.call("rows")
            for row in rows[(rows["agent_id"] >= agents) & (rows["port"] > 0)]:
                endpoints[int(row["agent_id"]) - agents] = f"tcp://{address}:{row['port']}"
            if any(end[2] for end in host.call("status")["exited"]) or clock.monotonic_ns() > deadline_ns:
                raise VenueError(f"a vendor did not start on {host.node.address}; see the run's log")
        clock.sleep(_POLL_S)
    per_vendor = scenario.vendors.processes_per_vendor
    asked = [0] * scenario.vendors.count
    for account, vendors in enumerate(scenario.vendors_of(agents)):
        if vendors:
            own[account] = []
        for vendor in vendors:
            process = vendor * per_vendor + asked[vendor] % per_vendor
            asked[vendor] += 1
            declared = Declaration(vendor + 1, 1, SOUND)
            own[account].append({"declaration": declared, "endpoint": endpoints[process]})
    return own


def summarised(rows: np.ndarray) -> dict[str, Any]:
    """Of the vendors' rows: how many processes, how many were lost, what they did; null without vendors."""
    given, batches = int(rows["valuations"].sum()), int(rows["batches"].sum())
    return {
        "vendor_processes": len(rows) or None,
        "vendor_processes_lost": int((rows["state"] != AgentState.FINISHED).sum()) if len(rows) else None,
        "valuations": given if len(rows) else None,
        "valuations_per_batch": round(given / batches, 2) if batches else None,
        "inference_us_mean": round(int(rows["valuation_ns"].sum()) / batches / 1000, 1) if batches else None,
    }
