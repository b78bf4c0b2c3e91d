"""The hosts of a run: all asked at once, and during a session none waited for.

Owns which of them are lost. A host that dies, or is cut off, takes its agents with it and nothing else: the session's
times must not wait for it, nor for Ray, which notices a node without power after some 14 s and one that was cut off
after a minute.
"""

from typing import Any, NamedTuple

from cluster.host import HostStatus
from cluster.placement import CALL_TIMEOUT_S, Actor, ActorDied
from cluster.zygote_client import ZygoteGone
from exchange import clock

NO_STATUS = HostStatus(alive=0, started=0, ready=0, finished=0, failed=0, exited=[], fork_error=None)


class HostLost(NamedTuple):
    address: str
    agents: list[int]
    why: str


class RollCall:
    """Hosts by number, in the order in which they were added."""

    def __init__(self) -> None:
        self.hosts: list[Actor] = []
        self.lost: dict[int, HostLost] = {}
        self._agents: list[list[int]] = []
        self._asked: dict[int, Any] = {}  # host → its status, on its way
        self._latest: dict[int, HostStatus] = {}

    def add(self, host: Actor, agents: list[int]) -> None:
        self.hosts.append(host)
        self._agents.append(agents)

    def look(self) -> list[HostLost]:
        """Take the statuses that have come and ask for the next, waiting for none; returns who was found lost."""
        before = set(self.lost)
        for number in self._living():
            if number in self._asked and self.hosts[number].has_answered(self._asked[number]):
                status = self._end(number, self._asked.pop(number), CALL_TIMEOUT_S)
                if status is not None:
                    self._latest[number] = status
            if number not in self._asked and number not in self.lost:
                self._asked[number] = self.hosts[number].begin("status")
        return [self.lost[number] for number in self.lost if number not in before]

    def latest(self) -> list[HostStatus]:
        """Of each host what it said last; of one that is lost, that nothing lives there."""
        return [
            NO_STATUS if number in self.lost else self._latest.get(number, NO_STATUS)
            for number in range(len(self.hosts))
        ]

    def ask(self, method: str, *arguments: Any, timeout_s: float = CALL_TIMEOUT_S) -> dict[int, Any]:
        """Call it on all at once; the answers. Who has not answered when the time is over, or has died, is lost."""
        calls = {number: self.hosts[number].begin(method, *arguments) for number in self._living()}
        deadline_ns = clock.monotonic_ns() + int(timeout_s * clock.SECOND)
        answers = {}
        for number, call in calls.items():
            left_s = max(0.0, (deadline_ns - clock.monotonic_ns()) / clock.SECOND)
            answer = self._end(number, call, left_s)
            if number not in self.lost:
                answers[number] = answer
        return answers

    def kill_lost(self) -> None:
        """Have Ray end what of a lost host may still be there."""
        for number in self.lost:
            self.hosts[number].kill()

    def _living(self) -> list[int]:
        return [number for number in range(len(self.hosts)) if number not in self.lost]

    def _end(self, number: int, call: Any, timeout_s: float) -> Any:
        try:
            return self.hosts[number].end(call, timeout_s)
        except (ActorDied, ZygoteGone) as error:
            host = self.hosts[number]
            self.lost[number] = HostLost(host.node.address, self._agents[number], str(error))
            return None
