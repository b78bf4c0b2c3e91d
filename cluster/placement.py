"""Where things run: a Ray cluster, the venue on one node, one host actor on every node, the agents divided among them.

Owns every call of Ray. What the actors start knows nothing of it.
"""

import contextlib
import os
import secrets
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.host import AgentHost
from cluster.priority import before_agents, go_before_agents
from cluster.venue import VenueKeeper
from exchange.errors import ConfigurationError

VENUE_RESOURCE = "exchange"
"""The custom resource that marks the node on which the venue should run."""

CALL_TIMEOUT_S = 15.0
"""How long an actor may take over an ordinary call; more than the operator's own patience with the venue."""
_CONNECT_TIMEOUT_S = 5.0
_TOKEN = secrets.token_hex(32)  # one a process: Ray reads it once


class ActorDied(RuntimeError):
    """A venue or host actor ended while the run needed it."""


class RayDidNotStart(RuntimeError):
    """As when the machine is too busy for it."""


@dataclass(frozen=True)
class Node:
    node_id: str
    address: str
    cores: float
    has_venue_resource: bool


@contextlib.contextmanager
def ray_session(address: str | None, temporary: str) -> Iterator[list[Node]]:
    """Connect to a cluster, or start one for this run alone when no address is given; its living nodes.

    Args: temporary: a short path for what a cluster of our own leaves; whoever made it removes it.
    Raises: ConfigurationError: there is no cluster at the address.
    """
    quiet = {"logging_level": "ERROR", "log_to_driver": False}
    environment = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    if address is None and not any(name.startswith("RAY_AUTH_TOKEN") for name in os.environ):
        # Else Ray would write a token into the home directory.
        token = Path(temporary) / "token"
        token.write_text(_TOKEN)
        environment["RAY_AUTH_TOKEN_PATH"] = str(token)
    if address is None:
        # A user's own strategies are imported from where the driver would import them.
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    with _environment(environment):
        try:
            if address is None:
                # "local", not None: None would join any cluster that happens to run here.
                ray.init(
                    address="local",
                    include_dashboard=False,
                    object_store_memory=128 << 20,
                    _temp_dir=temporary,
                    **quiet,  # type: ignore[arg-type]
                )
            else:
                ray.init(address=address, **quiet)  # type: ignore[arg-type]
        except (ConnectionError, ValueError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ConfigurationError(f"--address {address}: {reason}; is a Ray cluster running there?") from None
        except Exception as error:  # noqa: BLE001 - Ray raises a plain Exception when it does not come up in time
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise RayDidNotStart(f"Ray did not start: {reason}") from None
        try:
            found = [
                Node(
                    node["NodeID"],
                    node["NodeManagerAddress"],
                    node["Resources"].get("CPU", 0.0),
                    VENUE_RESOURCE in node["Resources"],
                )
                for node in ray.nodes()
                if node["Alive"]
            ]
            with before_agents():
                yield found
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def check_address(address: str) -> None:
    """Find out in seconds what Ray itself would try for minutes.

    Raises: ConfigurationError: nothing listens at HOST:PORT.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=_CONNECT_TIMEOUT_S).close()
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigurationError(f"--address {address}: {reason}; is a Ray cluster running there?") from None


class _VenueActor(VenueKeeper):
    """The keeper as a process of its own."""

    def start(self, *arguments: Any) -> dict[str, Any]:
        said = super().start(*arguments)
        go_before_agents()  # not before: the venue would inherit it, and on a fresh machine compile with it for minutes
        return said


class _HostActor(AgentHost):
    """The host as a process of its own."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        go_before_agents()


class Actor:
    """A handle whose methods are called and waited for: `actor.call("status")`."""

    def __init__(self, kind: type, node: Node, what: str, *arguments: Any) -> None:
        self.node = node
        self.what = what
        on_node = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
        remote: Any = ray.remote(num_cpus=0, max_restarts=0)(kind)
        self._handle = remote.options(scheduling_strategy=on_node).remote(*arguments)

    def begin(self, method: str, *arguments: Any) -> Any:
        """Start a call without waiting for it; give what this returns to `end`."""
        return getattr(self._handle, method).remote(*arguments)

    def end(self, call: Any, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        """The result of a call.

        Raises: what the method raised; ActorDied, also if it does not answer in time.
        """
        try:
            return ray.get(call, timeout=timeout_s)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayActorError:
            raise ActorDied(f"{self.what} on {self.node.address} died") from None
        except ray.exceptions.GetTimeoutError:
            raise ActorDied(f"{self.what} on {self.node.address} has not answered for {timeout_s:g} s") from None

    def call(self, method: str, *arguments: Any, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        return self.end(self.begin(method, *arguments), timeout_s)

    def kill(self) -> None:
        ray.kill(self._handle)


def place_venue(nodes: list[Node], log_path: str | None) -> Actor:
    """The venue's keeper: on the node with the resource `exchange`, else on the first."""
    node = next((node for node in nodes if node.has_venue_resource), nodes[0])
    return Actor(_VenueActor, node, "the venue actor", log_path)


def place_host(
    node: Node, target: str, preload: list[str], row_fields: list[Any], capacity: int, log_path: str | None
) -> Actor:
    return Actor(_HostActor, node, "the host actor", target, preload, row_fields, capacity, log_path)


def divide(count: int, nodes: list[Node]) -> list[int]:
    """How many of `count` agents go to each node, in proportion to its cores (largest remainders first)."""
    weights = [max(node.cores, 1.0) for node in nodes]
    exact = [count * weight / sum(weights) for weight in weights]
    shares = [int(share) for share in exact]
    by_remainder = sorted(range(len(nodes)), key=lambda n: shares[n] - exact[n])
    for n in by_remainder[: count - sum(shares)]:
        shares[n] += 1
    return shares
