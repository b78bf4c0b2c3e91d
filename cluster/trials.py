"""Where a sweep's trials run: places with cores of their own, each a placement group of one bundle with an actor in it.

Owns which places there are on a cluster and that none shares its cores with another. Ray promises the count; the keeper
pins the processes, so that a core is one trial's alone. Cores that others use beside the sweep, Ray does not know.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.placement import ActorDied, Node, first_line
from cluster.trial_keeper import Outcome, Task, TrialKeeper
from exchange.errors import ConfigurationError

_PLACE_TIMEOUT_S = 60.0
_CALL_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 45.0


class Place:
    """One place where a trial can run; its methods are those of TrialKeeper, far away."""

    def __init__(self, node: Node, cores: int, number: int) -> None:
        self.node = node
        # `node:ADDRESS` is a resource that every node of Ray has of itself alone.
        bundle = {"CPU": float(cores), f"node:{node.address}": 0.001}
        self._group = placement_group([bundle], strategy="STRICT_PACK")
        self._cores, self._number = cores, number
        self._keeper: Any = None

    def wait(self, timeout_s: float) -> bool:
        """Whether the cluster gave the cores within that time."""
        if not self._group.wait(timeout_s):
            return False
        on_group = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=0)
        remote: Any = ray.remote(num_cpus=self._cores, max_restarts=0)(TrialKeeper)
        self._keeper = remote.options(scheduling_strategy=on_group).remote(self._cores, self._number)
        return True

    def check(self) -> None:
        """Raises: ActorDied; ConfigurationError: the node has fewer cores than Ray was told."""
        self._call("check", timeout_s=_PLACE_TIMEOUT_S)

    def start(self, task: Task) -> None:
        """Raises: ActorDied, OSError, RuntimeError."""
        self._call("start", tuple(task))

    def poll(self) -> Outcome | None:
        """Raises: ActorDied: the place is lost, and what ran there with it."""
        found: Outcome | None = self._call("poll")
        return found

    def stop(self) -> None:
        """Raises: ActorDied."""
        self._call("stop", timeout_s=_STOP_TIMEOUT_S)

    def give_back(self) -> None:
        if self._keeper is not None:
            ray.kill(self._keeper)
        remove_placement_group(self._group)

    def _call(self, method: str, *arguments: Any, timeout_s: float = _CALL_TIMEOUT_S) -> Any:
        try:
            return ray.get(getattr(self._keeper, method).remote(*arguments), timeout=timeout_s)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayActorError:
            raise ActorDied(f"the place for trials on {self.node.address} died") from None
        except ray.exceptions.GetTimeoutError:
            raise ActorDied(
                f"the place for trials on {self.node.address} has not answered for {timeout_s:g} s"
            ) from None
        except ray.exceptions.RayError as error:  # its answer was on a node that is gone
            raise ActorDied(f"the place for trials on {self.node.address}: {first_line(error)}") from None


@contextlib.contextmanager
def places(nodes: list[Node], cores: int, at_most: int) -> Iterator[list[Place]]:
    """As many places of `cores` cores each as the nodes have, at most so many.

    Raises: ConfigurationError: no node has so many cores, or none free, or fewer than Ray was told.
    """
    room = [(node, number) for node in nodes for number in range(int(node.cores) // cores)]
    if not room:
        most = max((int(node.cores) for node in nodes), default=0)
        raise ConfigurationError(f"cores {cores}: the largest node has {most}; ask for at most that")
    asked = [Place(node, cores, number) for node, number in room[:at_most]]
    try:
        # The first one waits; who asks for cores that others hold must not keep those waiting that are free.
        found = [place for at, place in enumerate(asked) if place.wait(_PLACE_TIMEOUT_S if at == 0 else 5.0)]
        if not found:
            raise ConfigurationError(f"cores {cores}: no node had them free within {_PLACE_TIMEOUT_S:.0f} s")
        alive = []
        for place in found:
            with contextlib.suppress(ActorDied):
                place.check()
                alive.append(place)
        if not alive:
            raise ConfigurationError(f"cores {cores}: no node answers as a place for trials; look at ray status")
        yield alive
    finally:
        for place in asked:
            with contextlib.suppress(Exception):  # the cluster is gone, or was never reached
                place.give_back()
