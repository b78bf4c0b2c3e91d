"""The supervisor as a process: it follows the venue's commands with a twin of the engine, and may order a halt.

`python -m exchange.supervisor` takes one JSON object (SupervisorConfig) on standard input and says one JSON line when
it follows. A second line, {"until": n}, asks it to follow up to command n and to end with its figures; at the end of
standard input it ends at once. What is measured is indicators.py's; what it means is in docs/supervision.md.

The engine is a pure function of the commands, so the twin has the very books, positions and margin of the venue, and
its state hash proves it. Sequences have no gaps: where the feed left some out, the journal has them; without a journal
within reach it stops, because one command missed would make all that follows an invention.
"""

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import zmq
from pydantic import model_validator
from zmq.utils.monitor import recv_monitor_message

from exchange import clock, journal
from exchange.client import Operator
from exchange.config import Config, EngineConfig, SupervisionConfig
from exchange.engine import Engine, events_bound
from exchange.errors import ConfigurationError, JournalError, TornJournalError, VenueError
from exchange.indicators import Indicator, follow, new_watch
from exchange.keys import ClientKeys
from exchange.state import Array
from exchange.types import COMMAND, EVENT, NOBODY, CommandKind, Phase, Reason

FIFO_PRIORITY = 5
"""Below the venue, which it must never hold up; above those who start and kill agents, and above all agents."""
_PR_SET_PDEATHSIG = 1
_MESSAGES_AT_ONCE = 64
_WAITING_MESSAGES = 1 << 16
_CONNECT_S = 10.0
_LAST_WORDS_MS = 1000
_MOST_LAGS = 1 << 22
_END_COMMANDS = 1000
_OPEN = (Phase.CONTINUOUS, Phase.AUCTION, Phase.BATCH)


class SupervisorConfig(Config):
    engine: EngineConfig
    supervision: SupervisionConfig
    feed: str
    """ZeroMQ address of the venue's feed."""
    control: str | None = None
    """And of its control channel, for one that is authorised."""
    journal: Path | None = None
    """The venue's directory, if it is on this machine: what the feed left out is read there."""
    alerts: Path
    """Where alerts are written, one JSON object a line."""
    keys: ClientKeys | None = None
    """An operator's, if the venue has keys."""
    clock_offset_ns: int = 0
    """The venue's time − CLOCK_MONOTONIC, as the venue said when it started."""
    realtime: bool = True

    @model_validator(mode="after")
    def _it_can_do_what_it_may(self) -> "SupervisorConfig":
        if self.supervision.authorised and self.control is None:
            raise ValueError("authorised, but without the address of the control channel: give control")
        if self.supervision.instrument >= len(self.engine.instruments):
            raise ValueError(f"there is no instrument {self.supervision.instrument} to watch")
        return self


def ask_for_realtime(wanted: bool) -> str:
    """Take SCHED_FIFO below the venue's if wanted and permitted; returns the class in force."""
    if wanted:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(FIFO_PRIORITY))
            return f"SCHED_FIFO {FIFO_PRIORITY}"
        except PermissionError:
            pass
    return "SCHED_OTHER"


class Supervisor:
    """The twin, what it watches, and the sockets."""

    def __init__(self, config: SupervisorConfig) -> None:
        self.config = config
        self.engine = Engine(config.engine)
        self.watch = new_watch(config.supervision, self.engine.state)
        self.sequence = 0
        """Of the last command that the twin has applied."""
        self.gaps = 0
        self.caught_up = 0
        self.alerts = 0
        self.halts: list[dict[str, Any]] = []
        self._lags: list[Array] = []
        self._timed = 0
        self._events = np.zeros(events_bound(self.engine.state), EVENT)
        self._due: tuple[int, int] | None = None  # when to halt, because of which command
        self._unanswered = False
        follow(self.engine.state, self.watch, np.zeros(0, COMMAND), 0, self._events)  # compiles, before it follows
        # From here on: the thread that libzmq starts inherits the class.
        self.scheduling = ask_for_realtime(config.realtime)
        self._file: TextIO = config.alerts.open("a", buffering=1)
        self._context: zmq.Context[Any] = zmq.Context()
        self._operator: Operator | None = None
        self._poller = zmq.Poller()
        if config.supervision.authorised and config.control is not None:
            self._operator = Operator(self._context, config.control, keys=config.keys)
            self._poller.register(self._operator.socket, zmq.POLLIN)
        try:
            self._feed = self._connect(config)
        except VenueError:
            self.close()
            raise
        self._poller.register(self._feed, zmq.POLLIN)

    def _connect(self, config: SupervisorConfig) -> "zmq.Socket[Any]":
        """Raises: VenueError: nobody publishes there."""
        feed = self._context.socket(zmq.SUB)
        feed.setsockopt(zmq.RCVHWM, _WAITING_MESSAGES)
        feed.setsockopt(zmq.SUBSCRIBE, b"")
        if config.keys is not None:
            config.keys.apply(feed)
        monitor = feed.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        feed.connect(config.feed)
        connected = monitor.poll(int(_CONNECT_S * 1000))
        if connected:
            recv_monitor_message(monitor)
        feed.disable_monitor()
        monitor.close()
        if not connected:
            raise VenueError(f"no venue publishes its commands at {config.feed}; is its setting feed on?")
        return feed

    def begin(self) -> None:
        """Take what there is already, if the journal is within reach: then the feed goes on from it without a gap."""
        if self.config.journal is None:
            return
        try:
            commands = journal.read(self.config.journal).commands
        except TornJournalError as error:  # it is being written
            if not error.sound:
                return
            commands = journal.read(self.config.journal, error.sound).commands
        self._follow([commands], live=False)

    # ── following ────────────────────────────────────────────────────────────────────────────────────────────────────

    def hear(self) -> None:
        """Take what the feed holds, and follow it. One that is behind takes more at a time, and so comes up again."""
        run: list[Array] = []
        following = self.sequence + 1
        for _ in range(_MESSAGES_AT_ONCE):
            try:
                message = self._feed.recv(zmq.DONTWAIT)
            except zmq.Again:
                break
            commands = np.frombuffer(message, COMMAND).copy()  # read-only, it would be another type to compile for
            first = int(commands["sequence"][0])
            if first > following:
                self._follow(run)
                run = []
                self._catch_up(first - 1)
            elif first < following:  # of the journal already
                commands = commands[following - first :]
            if len(commands):
                run.append(commands)
                following = int(commands["sequence"][-1]) + 1
        self._follow(run)

    def _follow(self, run: list[Array], live: bool = True) -> None:
        if not sum(map(len, run)):
            return
        commands = run[0] if len(run) == 1 else np.concatenate(run)
        at = 0
        while at < len(commands):
            at, alerts = follow(self.engine.state, self.watch, commands, at, self._events)
            computed_ns = clock.monotonic_ns() + self.config.clock_offset_ns
            for alert in self.watch.alerts[:alerts]:
                self._tell(alert, computed_ns)
        self.sequence = int(commands["sequence"][-1])
        if not live:  # what was not heard in time has no lag; nor has what comes while nothing trades
            self.caught_up += len(commands)
        elif self.watch.watched["trading"][0] and self._timed < _MOST_LAGS:
            self._lags.append(computed_ns - commands["received_ns"])
            self._timed += len(commands)

    def _catch_up(self, until: int) -> None:
        """Take the commands up to `until` from the journal. Raises: VenueError: there is none; JournalError."""
        if until <= self.sequence:
            return
        if self.config.journal is None:
            raise VenueError(
                f"the feed went from command {self.sequence} to {until + 1} and no journal is within reach: what is "
                "between is unknown, so nothing after it can be; start again beside the venue"
            )
        if self.sequence:
            self.gaps += 1
        commands = journal.read(self.config.journal, until).commands[self.sequence :]
        self._follow([commands], live=False)

    def _tell(self, alert: np.void, computed_ns: int) -> None:
        told: dict[str, Any] = {name: int(alert[name]) for name in alert.dtype.names or ()}
        told["indicator"] = Indicator(told["indicator"]).name
        told["computed_ns"] = computed_ns
        self._file.write(json.dumps(told) + "\n")
        self.alerts += 1
        if self._operator is not None and self._due is None and not self._unanswered:
            self._due = computed_ns + self.config.supervision.reaction_ns, told["sequence"]

    # ── acting ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def act(self) -> None:
        """Order the halt that is due, if the instrument still trades."""
        now_ns = clock.monotonic_ns() + self.config.clock_offset_ns
        if self._due is None or self._operator is None or now_ns < self._due[0]:
            return
        evidence = self._due[1]
        self._due = None
        instrument = self.config.supervision.instrument
        if self.engine.state.instruments[instrument]["phase"] in _OPEN:
            self._operator.send(CommandKind.HALT, NOBODY, instrument, evidence)
            self._unanswered = True
            self.halts.append({"evidence": evidence, "sent_ns": now_ns})

    def heed(self) -> None:
        """The venue's answer to a halt."""
        assert self._operator is not None
        answer = self._operator.answer()
        self._unanswered = False
        self.halts[-1] |= {
            "sequence": answer.sequence,
            "refused": Reason(answer.reason).name if answer.reason else None,
        }

    def _patience_ms(self) -> int | None:
        if self._due is None:
            return None
        left_ns = self._due[0] - clock.monotonic_ns() - self.config.clock_offset_ns
        return max(0, -(-left_ns // clock.MS))

    def turn(self, others: int | None = None, most_ms: int | None = None) -> bool:
        """Wait for something to do, and do it.

        Args: others: a descriptor that ends the wait too; most_ms: to wait. Returns: whether `others` can be read.
        """
        if others is not None:
            self._poller.register(others, zmq.POLLIN)
        patience_ms = self._patience_ms()
        bounds = [each for each in (patience_ms, most_ms) if each is not None]
        ready = dict(self._poller.poll(min(bounds) if bounds else None))
        if self._feed in ready:
            self.hear()
        if self._operator is not None and self._operator.socket in ready:
            self.heed()
        self.act()
        return others in ready

    def finish(self, until: int) -> None:
        """Follow up to command `until`. Raises: VenueError, JournalError: it cannot be had."""
        while self.sequence < until:
            before = self.sequence
            self.turn(most_ms=_LAST_WORDS_MS)
            if self.sequence == before:
                self._catch_up(until)

    def figures(self) -> dict[str, Any]:
        lags = np.concatenate(self._lags) if self._lags else np.zeros(0, np.int64)
        last = lags[-_END_COMMANDS:]
        seen = [indicator for indicator in Indicator if self.watch.rules[indicator]["seen"]]
        return {
            "commands": self.sequence,
            "state_hash": self.engine.state_hash(),
            "alerts": self.alerts,
            "halts": self.halts,
            "gaps": self.gaps,
            "caught_up": self.caught_up,
            "lag_ns_p50": int(np.percentile(lags, 50, method="nearest")) if len(lags) else None,
            "lag_ns_p99": int(np.percentile(lags, 99, method="nearest")) if len(lags) else None,
            "lag_ns_max": int(lags.max()) if len(lags) else None,
            "lag_end_ns": int(np.median(last)) if len(last) else None,
            "least": {each.name: int(self.watch.rules[each]["least"]) for each in seen},
            "most": {each.name: int(self.watch.rules[each]["most"]) for each in seen},
            "scheduling": self.scheduling,
        }

    def close(self) -> None:
        self._file.close()
        if self._operator is not None:
            self._operator.close()
        self._context.destroy(linger=0)


def _say(**values: object) -> None:
    print(json.dumps(values), flush=True)


def _serve(supervisor: Supervisor) -> None:
    _say(ready=True, pid=os.getpid(), scheduling=supervisor.scheduling)
    asked = b""
    while not asked.endswith(b"\n"):
        if supervisor.turn(others=0):
            part = os.read(0, 4096)
            if not part:
                return  # nobody is there to hear the figures
            asked += part
    supervisor.finish(int(json.loads(asked)["until"]))
    _say(**supervisor.figures())


def _first_line() -> bytes:
    """Unbuffered: what comes behind it must be there for the poll."""
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(0, 1)
        if not part:
            break
        line += part
    return line


def main() -> int:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver
    supervisor = None
    try:
        supervisor = Supervisor(SupervisorConfig.model_validate_json(_first_line()))
        supervisor.begin()
        _serve(supervisor)
    except (ConfigurationError, JournalError, VenueError, ValueError, OSError, zmq.ZMQError) as error:
        _say(error=str(error))
        return 1
    finally:
        if supervisor is not None:
            supervisor.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
