"""What an agent notes of its own wait for a core, from its last rest before the signal to its first order and beyond.

Owns these fields of the agent's row. Must not delay what it measures: nothing is read between hearing the signal and
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


class ProcessWaits:
    """Of one process, however many agents it holds. Make it when the process's threads exist."""

    def __init__(self) -> None:
        self._core_wait = CoreWait()
        self.at_rest: Waited | None = None

    def before_rest(self) -> None:
        """It has nothing to do, and has not heard the signal."""
        self.at_rest = self._core_wait.read()

    def read(self) -> Waited | None:
        """Now; None where the kernel does not count."""
        return self._core_wait.read()

    def longest_ns(self) -> int:
        """How long it has waited for a core so far: its main thread, or libzmq's, whichever longer. 0: not known."""
        now = self.read()
        return 0 if now is None else max(now.waited_ns - now.others_waited_ns, now.others_waited_ns)


class StampedeWaits:
    """Of one agent. `row`: its own of the scoreboard; `process`: whose threads it lives in."""

    def __init__(self, row: Any, process: ProcessWaits) -> None:
        self._row = row
        self._process = process
        self._sent: Waited | None = None
        self._answered = False

    def on_first_order(self) -> None:
        """The first after the signal is with libzmq."""
        rest, now = self._process.at_rest, self._process.read()
        if now is None or rest is None:
            return
        self._sent = now
        self._row["stampede_on_core_ns"] = now.on_core_ns - rest.on_core_ns
        self._row["stampede_waited_ns"] = now.waited_ns - rest.waited_ns
        self._row["stampede_preempted"] = now.preempted - rest.preempted
        self._row["waits_known"] = 1

    def on_answer(self) -> None:
        """A report or refusal was heard."""
        if self._sent is not None and not self._answered:
            self._answered = True
            now = self._process.read()
            if now is not None:
                self._row["sending_waited_ns"] = now.others_waited_ns - self._sent.others_waited_ns

    def on_close(self) -> None:
        """The session's."""
        rest, now = self._process.at_rest, self._process.read()
        if now is not None and rest is not None:
            self._row["session_waited_ns"] = now.waited_ns - rest.waited_ns
