"""What an agent notes of its own wait for a core, from its last rest before the signal to its first order and beyond.

Owns four fields of the agent's row. Must not delay what it measures: nothing is read between hearing the signal and
sending the order.
"""

from typing import Any

from cluster.core_wait import CoreWait, Waited

FIELDS = (
    "waits_known",  # 1: the kernel counts them, and the rest is measured
    "stampede_on_core_ns",  # last rest before the signal -> first order after it was sent: with a core
    "stampede_waited_ns",  # the same: runnable, without one
    "stampede_preempted",  # the same: how often a core was taken from it
    "sending_waited_ns",  # first order sent -> first answer heard: libzmq's threads, without a core
    "session_waited_ns",  # last rest before the signal -> the close heard: runnable, without one
)


class StampedeWaits:
    """Of one process with one agent. `row`: its own of the scoreboard."""

    def __init__(self, row: Any) -> None:
        """When the process's threads exist."""
        self._row = row
        self._core_wait = CoreWait()
        self._rest: Waited | None = None
        self._sent: Waited | None = None
        self._answered = False

    def before_rest(self) -> None:
        """It has nothing to do, and has not heard the signal."""
        self._rest = self._core_wait.read()

    def on_first_order(self) -> None:
        """The first after the signal is with libzmq."""
        now = self._core_wait.read()
        if now is None or self._rest is None:
            return
        self._sent = now
        self._row["stampede_on_core_ns"] = now.on_core_ns - self._rest.on_core_ns
        self._row["stampede_waited_ns"] = now.waited_ns - self._rest.waited_ns
        self._row["stampede_preempted"] = now.preempted - self._rest.preempted
        self._row["waits_known"] = 1

    def on_answer(self) -> None:
        """A report or refusal was heard."""
        if self._sent is not None and not self._answered:
            self._answered = True
            now = self._core_wait.read()
            if now is not None:
                self._row["sending_waited_ns"] = now.others_waited_ns - self._sent.others_waited_ns

    def on_close(self) -> None:
        """The session's."""
        now = self._core_wait.read()
        if now is not None and self._rest is not None:
            self._row["session_waited_ns"] = now.waited_ns - self._rest.waited_ns
        self._core_wait.close()
