"""Where things run: a Ray cluster, the venue on one node, one host actor on every node, the agents divided among them.

Owns every call of Ray. What the actors start knows nothing of it.
"""

import contextlib
import importlib.metadata
import importlib.util
import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from cluster import code
from cluster.guard import RUN_ID_VARIABLE
from cluster.host import AgentHost
from cluster.limits import bearable_as_host, bearable_as_venue, in_processes_of
from cluster.priority import before_agents, go_before_agents
from cluster.venue import VenueKeeper
from exchange.errors import ConfigurationError

VENUE_RESOURCE = "exchange"
"""The custom resource that marks the node on which the venue should run."""
VENUE_CORES = 2
"""Of the venue's node, where there are others, not for agents: its loop, and libzmq's thread with the supervisor."""

CALL_TIMEOUT_S = 15.0
"""How long an actor may take over an ordinary call; more than the operator's own patience with the venue."""
_CONNECT_TIMEOUT_S = 5.0
_SURVEY_TIMEOUT_S = 60.0  # a node's first task of a run waits until the code is there
_RESERVE_TIMEOUT_S = 30.0
_MAX_LOG_BYTES = 1 << 24
_PIN = 0.001
_UNBOUNDED = 1 << 30
_TOKEN = secrets.token_hex(32)  # one a process: Ray reads it once


class ActorDied(RuntimeError):
    """A venue or host actor ended while the run needed it."""


class RayDidNotStart(RuntimeError):
    """As when the machine is too busy for it."""


@dataclass(frozen=True)
class Node:
    """A node that answers, and what of it is free."""

    node_id: str
    address: str
    cores: float
    has_venue_resource: bool
    agents_max: int = _UNBOUNDED
    """That its free memory and threads can bear."""
    agents_max_why: str = ""
    venue_agents_max: int = _UNBOUNDED
    """That a venue on it can bear, wherever they run."""
    venue_agents_max_why: str = ""
    strategy: Any = None
    """Ray's, for what is to run here."""


@contextlib.contextmanager
def ray_session(
    address: str | None, temporary: str, strategies: Iterable[str] = (), reserve: bool = True
) -> Iterator[list[Node]]:
    """Connect to a cluster, or start one for this run alone when no address is given; its living nodes, reserved.

    Args: temporary: a short path for what a cluster of our own leaves; whoever made it removes it; strategies: that
    agents will import, as "module:Class", for a cluster whose nodes have not our code; reserve: hold what is free of a
    cluster's nodes; not so for whoever asks for a part of it at a time.
    Raises: ConfigurationError: there is no cluster at the address, or nothing of it is free.
    """
    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
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
        if address is None:
            _start(temporary, quiet)
        else:
            _connect(address, strategies, quiet)
        try:
            # Ray prints of a worker that died on standard output, whatever it is told; there belongs the result alone.
            with before_agents(), contextlib.redirect_stdout(sys.stderr):
                if address is None or not reserve:
                    yield [_on(node) for node in _living()]
                else:
                    with _reserved(_surveyed(address), address) as nodes:
                        yield nodes
        finally:
            ray.shutdown()


def _start(temporary: str, quiet: dict[str, Any]) -> None:
    try:
        # "local", not None: None would join any cluster that happens to run here.
        ray.init(
            address="local",
            include_dashboard=False,
            object_store_memory=128 << 20,
            _temp_dir=temporary,
            **quiet,
        )
    except Exception as error:  # noqa: BLE001 - Ray raises a plain Exception when it does not come up in time
        raise RayDidNotStart(f"Ray did not start: {first_line(error)}") from None


def _connect(address: str, strategies: Iterable[str], quiet: dict[str, Any]) -> None:
    environment = {
        "py_modules": code.shipped(strategies),
        "excludes": ["__pycache__"],  # with compiled kernels, which are of one place and one moment
        # With the mark, the guard ends at once what of a killed driver's run is on its own node; Ray ends the rest.
        "env_vars": code.variables() | {RUN_ID_VARIABLE: os.environ.get(RUN_ID_VARIABLE, "")},
    }
    try:
        ray.init(address=address, runtime_env=environment, **quiet)
    except ray.exceptions.AuthenticationError:
        raise ConfigurationError(
            f"--address {address}: the cluster's token is not known here; set RAY_AUTH_TOKEN_PATH or RAY_AUTH_TOKEN"
        ) from None
    except Exception as error:  # noqa: BLE001 - of every kind: no cluster, another version of Ray or Python, no token
        raise ConfigurationError(
            f"--address {address}: {first_line(error)}; is a Ray cluster running there, of this version "
            f"({ray.__version__}) and with this token?"
        ) from None


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _living() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _on(node: dict[str, Any], free: Mapping[str, float] | None = None, **found: Any) -> Node:
    """free: resources; None: all."""
    resources = node["Resources"] if free is None else free
    return Node(
        node["NodeID"],
        node["NodeManagerAddress"],
        resources.get("CPU", 0.0),
        resources.get(VENUE_RESOURCE, 0.0) > 0,
        strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        **found,
    )


def _free_resources() -> dict[str, dict[str, float]]:
    """Of every node by its id. As a task: a Ray client cannot ask for it."""
    found: dict[str, dict[str, float]] = ray._private.state.available_resources_per_node()
    return found


def _bearable() -> tuple[tuple[int, str], tuple[int, str]]:
    """On the node where it runs: the most agents that it can host, that a venue on it can serve, and why no more."""
    unbounded = (_UNBOUNDED, "")
    return min(bearable_as_host(), default=unbounded), min(bearable_as_venue(), default=unbounded)


def _surveyed(address: str) -> list[Node]:
    """The nodes that answer within _SURVEY_TIMEOUT_S, with what of them is free now.

    Ray goes on believing in a node that was cut off for a minute; its task would wait as long.
    Raises: ConfigurationError: none does.
    """
    living = _living()
    try:
        free = ray.get(ray.remote(num_cpus=0)(_free_resources).remote(), timeout=_SURVEY_TIMEOUT_S)
        asked = [ray.remote(num_cpus=0)(_bearable).options(scheduling_strategy=_on(node).strategy) for node in living]
        tasks = [task.remote() for task in asked]
        answered, silent = ray.wait(tasks, num_returns=len(tasks), timeout=_SURVEY_TIMEOUT_S)
        for task in silent:
            ray.cancel(task, force=True)
        nodes = []
        for node, task in zip(living, tasks, strict=True):
            if task in answered and node["NodeID"] in free:
                host, venue = ray.get(task)
                found = {
                    "agents_max": max(host[0], 0),
                    "agents_max_why": host[1],
                    "venue_agents_max": max(venue[0], 0),
                    "venue_agents_max_why": venue[1],
                }
                nodes.append(_on(node, free[node["NodeID"]], **found))
    except ray.exceptions.RayError as error:
        raise ConfigurationError(f"--address {address}: its nodes cannot run our code: {first_line(error)}") from None
    useful = [node for node in nodes if node.cores >= 1 or node.has_venue_resource]
    if not any(node.cores >= 1 for node in useful):
        raise ConfigurationError(
            f"--address {address}: no node has a free core ({len(nodes)} of {len(living)} nodes answered); "
            "wait until what runs there has ended (ray status)"
        )
    return useful


@contextlib.contextmanager
def _reserved(nodes: list[Node], address: str) -> Iterator[list[Node]]:
    """Hold all that is free of these nodes for this run, or nothing: a bundle a node, each pinned to its node.

    A placement group, where the affinity to a node would do to place actors: it makes the free cores ours, all at once,
    so that no other job's tasks are timed together with our agents.
    Raises: ConfigurationError: somebody else took it meanwhile.
    """
    resources = {node["NodeID"]: node["Resources"] for node in _living()}
    bundles = []
    for node in nodes:
        bundle = {f"node:{node.address}": _PIN} if f"node:{node.address}" in resources[node.node_id] else {}
        if node.cores >= 1:
            bundle["CPU"] = node.cores
        if node.has_venue_resource:
            bundle[VENUE_RESOURCE] = _PIN
        bundles.append(bundle)
    group = placement_group(bundles, strategy="STRICT_SPREAD")
    try:
        if not group.wait(_RESERVE_TIMEOUT_S):
            raise ConfigurationError(
                f"--address {address}: the free cores of {len(nodes)} nodes could not be had together within "
                f"{_RESERVE_TIMEOUT_S:.0f} s; wait until what runs there has ended (ray status)"
            )
        yield _in_bundles(nodes, group)
    finally:
        with contextlib.suppress(Exception):  # the cluster may be gone
            remove_placement_group(group)


def _in_bundles(nodes: list[Node], group: PlacementGroup) -> list[Node]:
    """The same with Ray's strategy for each. Two nodes of one address, as in tests, may have changed bundles."""
    bundle_of = {node_id: bundle for bundle, node_id in placement_group_table(group)["bundles_to_node_id"].items()}
    return [
        Node(
            **{
                **node.__dict__,
                "strategy": PlacementGroupSchedulingStrategy(
                    group, placement_group_bundle_index=int(bundle_of[node.node_id])
                ),
            }
        )
        for node in nodes
    ]


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

    Raises: ConfigurationError: nothing listens at HOST:PORT, or Ray's client is not installed.
    """
    if address.startswith("ray://") and importlib.util.find_spec("grpc") is None:
        version = importlib.metadata.version("ray")
        raise ConfigurationError(
            f"--address {address}: Ray's client needs the package grpcio, which is not installed: "
            f"pip install 'ray[client]=={version}', or run on a node of the cluster with --address auto"
        )
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=_CONNECT_TIMEOUT_S).close()
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigurationError(f"--address {address}: {reason}; is a Ray cluster running there?") from None


class _Log:
    """What processes on this node print, where the driver has no file of it: a file without a name, which is gone with
    the actor."""

    def __init__(self, path: str | None) -> None:
        self._file = tempfile.TemporaryFile() if path is None else None  # noqa: SIM115 - as long as the actor
        self.path = path if self._file is None else f"/proc/{os.getpid()}/fd/{self._file.fileno()}"

    def text(self) -> bytes:
        """Its end, at most _MAX_LOG_BYTES; nothing if the driver has the file."""
        if self._file is None:
            return b""
        size = os.fstat(self._file.fileno()).st_size
        return os.pread(self._file.fileno(), _MAX_LOG_BYTES, max(0, size - _MAX_LOG_BYTES))


class _VenueActor(VenueKeeper):
    """The keeper as a process of its own."""

    def __init__(self, log_path: str | None) -> None:
        self._log = _Log(log_path)
        super().__init__(self._log.path)

    def start(self, *arguments: Any) -> dict[str, Any]:
        said = super().start(*arguments)
        go_before_agents()  # not before: the venue would inherit it, and on a fresh machine compile with it for minutes
        return said

    def log(self) -> bytes:
        return self._log.text()


class _HostActor(AgentHost):
    """The host as a process of its own."""

    def __init__(
        self, target: str, preload: Sequence[str], row_descr: Sequence[Any], capacity: int, log_path: str | None
    ) -> None:
        self._log = _Log(log_path)
        super().__init__(target, preload, row_descr, capacity, self._log.path)
        go_before_agents()

    def log(self) -> bytes:
        return self._log.text()


class Actor:
    """A handle whose methods are called and waited for: `actor.call("status")`."""

    def __init__(self, kind: type, node: Node, what: str, *arguments: Any) -> None:
        self.node = node
        self.what = what
        remote: Any = ray.remote(num_cpus=0, max_restarts=0)(kind)
        self._handle = remote.options(scheduling_strategy=node.strategy).remote(*arguments)

    def begin(self, method: str, *arguments: Any) -> Any:
        """Start a call without waiting for it; give what this returns to `end`."""
        return getattr(self._handle, method).remote(*arguments)

    def has_answered(self, call: Any) -> bool:
        """Whether `end` would return, or raise, at once."""
        return bool(ray.wait([call], timeout=0)[0])

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
            raise ActorDied(f"{self.what} on {self.node.address} has not answered for {timeout_s:.0f} s") from None
        except ray.exceptions.RayError as error:  # its answer was on a node that is gone
            raise ActorDied(f"{self.what} on {self.node.address}: {first_line(error)}") from None

    def call(self, method: str, *arguments: Any, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        return self.end(self.begin(method, *arguments), timeout_s)

    def kill(self) -> None:
        """Have Ray end it; waits for nothing."""
        ray.kill(self._handle)


def place_venue(nodes: list[Node], log_path: str | None) -> Actor:
    """The venue's keeper: on the node with the resource `exchange`, else on the first."""
    return Actor(_VenueActor, venue_node(nodes), "the venue actor", log_path)


def place_host(
    node: Node, target: str, preload: list[str], row_fields: list[Any], capacity: int, log_path: str | None
) -> Actor:
    return Actor(_HostActor, node, "the host actor", target, preload, row_fields, capacity, log_path)


def venue_node(nodes: list[Node]) -> Node:
    """The first with the resource `exchange`, else the first."""
    return next((node for node in nodes if node.has_venue_resource), nodes[0])


def divide(count: int, nodes: list[Node], packed: int = 0) -> list[int]:
    """How many of `count` agents go to each node, in proportion to its free cores (largest remainders first), and to
    none more than its free memory and threads can bear.

    Args: packed: how many share a process, behind a relay, which spares the venue's descriptors; 0: no relay.
    The venue's node is counted with VENUE_CORES fewer, unless it is the only one with cores.
    Raises: ConfigurationError: they cannot bear so many.
    """
    venue = venue_node(nodes)
    if not packed and count > venue.venue_agents_max:
        raise ConfigurationError(
            f"--agents {count}: on {venue.address} {venue.venue_agents_max_why}; ask for at most "
            f"{venue.venue_agents_max}"
        )
    others = any(node.cores >= 1 for node in nodes if node is not venue)
    cores = [node.cores - VENUE_CORES * (node is venue and others) for node in nodes]
    bearable = [in_processes_of(packed, node.agents_max) if packed else node.agents_max for node in nodes]
    weights = [max(each, 1.0 if node is venue and not others else 0.0) for node, each in zip(nodes, cores, strict=True)]
    shares = [0] * len(nodes)
    left, open_nodes = count, [n for n, weight in enumerate(weights) if weight > 0]
    while left and open_nodes:
        given = _in_proportion(left, [weights[n] for n in open_nodes])
        for n, share in zip(open_nodes, given, strict=True):
            taken = min(share, bearable[n] - shares[n])
            shares[n] += taken
            left -= taken
        open_nodes = [n for n in open_nodes if shares[n] < bearable[n]]
    if left:
        tight = ", ".join(f"{nodes[n].address}: {nodes[n].agents_max_why}" for n in range(len(nodes)) if weights[n])
        raise ConfigurationError(f"--agents {count}: {tight}; ask for at most {count - left}")
    return shares


def _in_proportion(count: int, weights: list[float]) -> list[int]:
    exact = [count * weight / sum(weights) for weight in weights]
    shares = [int(share) for share in exact]
    by_remainder = sorted(range(len(weights)), key=lambda n: shares[n] - exact[n])
    for n in by_remainder[: count - sum(shares)]:
        shares[n] += 1
    return shares
