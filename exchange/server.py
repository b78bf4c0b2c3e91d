"""The venue as a process: recovery, sockets, keys, real-time priority, signals, start and end.

`python -m exchange.server` takes one JSON object (VenueConfig) on standard input, which its parent then holds open: at
its end the venue stops. `aar exchange --config FILE` calls `main_standalone`, which needs no parent. On standard output
it says one JSON line when it is ready and one when it has stopped. Owns no rule of the market.
"""

import contextlib
import ctypes
import errno
import ipaddress
import json
import math
import os
import resource
import secrets
import select
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import zmq
from pydantic import Field, model_validator
from zmq.auth.thread import ThreadAuthenticator

from exchange import clock, journal, libzmq, metrics, recovery, snapshots
from exchange.config import MAX_PHASE_NS, MIN_PHASE_NS, Config, EngineConfig
from exchange.errors import ConfigurationError, JournalError
from exchange.keys import VenueKeys
from exchange.loop import (
    BATCH,
    CUT_BYTES,
    JOURNAL_FAILED,
    RECENT_REPORTS,
    SEGMENT_FULL,
    SLICE_OVER,
    STOPPED,
    LoopConfig,
    Sockets,
    command,
    journal_slack,
    new_loop,
    serve,
)
from exchange.replay import format_digest
from exchange.sequencing import SequencingConfig
from exchange.state import Array
from exchange.types import MAX_CASH, MAX_QUANTITY_LOTS, NOBODY, CommandKind, EventKind, Phase, Reason
from exchange.wire import MessageKind

_PR_SET_PDEATHSIG = 1
_SLICE_NS = 50_000_000
_BACKLOG = 4096
_FIFO_PRIORITY = 10
_HOUSEKEEPING_S = 0.02
_SWITCH_INTERVAL_S = 0.0002
"""How long another Python thread may keep the loop waiting when it comes back to Python."""
_MAX_IPC_BYTES = 107
_TRADE = int(MessageKind.TRADE) & 7
_FEED_MESSAGES = 1 << 16
"""That wait for a supervisor which does not read; it then misses some, and sees it."""
TIMINGS_FILE = "timings.npy"
ORDERS_DOMAIN, CONTROL_DOMAIN, PUBLIC_DOMAIN = "orders", "control", "public"


class EndowmentConfig(Config):
    """What every account gets when a journal is begun: cash in minor units, lots of every instrument."""

    cash: Annotated[int, Field(ge=0, le=MAX_CASH)] = 0
    lots: Annotated[int, Field(ge=0, le=MAX_QUANTITY_LOTS)] = 0


class VenueConfig(Config):
    engine: EngineConfig
    directory: Path
    """Where the journal, the snapshots and the timings are. If there is a journal, the venue goes on from it."""
    host: str = "127.0.0.1"
    """Address to listen on. Without keys only a loopback address."""
    port: Annotated[int, Field(ge=0, le=65_533)] = 0
    """Of order entry; market data and notices take the next two. 0: any free ones."""
    control: str | None = None
    """ZeroMQ address of the control channel; by default `control` in the directory, which only this user can reach."""
    feed: str | None = None
    """ZeroMQ address at which supervisors hear every command as it was journaled, who sent what included; absent: none.
    With keys, only operators may listen."""
    keys: VenueKeys | None = None
    """CURVE keys of the venue, its participants and operators; without, everyone on this machine may trade."""
    max_sessions: Annotated[int, Field(ge=1, le=1 << 17)] = 1 << 13
    session_messages_per_s: Annotated[int, Field(ge=0, le=1_000_000_000)] = 0
    """Messages of one session beyond this rate are refused before they are journaled; 0: no limit."""
    reconnect_grace_ns: Annotated[int, Field(ge=0, le=MAX_PHASE_NS)] = 10_000_000_000
    """After a restart, how long the sessions of before may take to come back before they count as disconnected."""
    heartbeat_timeout_ms: Annotated[int, Field(ge=100, le=3_600_000)] = 30_000
    """A connection that answers no ZeroMQ heartbeat for this long has ended."""
    sync: Literal["never", "interval", "batch"] = "never"
    """When what was journaled is forced to the disk: left to the kernel, every sync_interval_ms, or with each batch
    before anything in it is acknowledged. A kill -9 of the venue loses nothing in any case; a power cut may, but for
    the last."""
    sync_interval_ms: Annotated[int, Field(ge=1, le=3_600_000)] = 100
    segment_records: Annotated[int, Field(ge=1 << 10, le=1 << 24)] = journal.SEGMENT_RECORDS
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] | None = None
    """Port of the Prometheus metrics on the loopback address; 0: any free one; absent: none."""
    endowment: EndowmentConfig = EndowmentConfig()
    open_at_start: bool = False
    """Open the session when a journal is begun, rather than by an operator."""
    loop: LoopConfig = LoopConfig()
    sequencing: SequencingConfig = SequencingConfig()
    """Whether messages are held before they are sequenced: speed bumps, hold-and-release."""
    realtime: bool = True
    max_timings: Annotated[int, Field(ge=0, le=1 << 24)] = 0
    """How many commands' times are kept for timings.npy."""

    @model_validator(mode="after")
    def _can_be_served(self) -> "VenueConfig":
        if self.keys is None:
            for address in (self.host, self.control or "ipc://", self.feed or "ipc://"):
                if not address.startswith("ipc://") and not _is_loopback(address):
                    raise ValueError(
                        f"without keys the venue listens on loopback only, not on {address}: "
                        f"make keys (aar keys DIR) and name them, or use 127.0.0.1"
                    )
        for instrument in self.engine.instruments:
            breaker = instrument.breaker
            for length in (instrument.opening_auction_ns, breaker.halt_ns, breaker.reopening_auction_ns):
                if 0 < length < MIN_PHASE_NS:
                    raise ValueError(f"a halt or an auction of {length} ns: give 0, or at least 1 ms ({MIN_PHASE_NS})")
        if len(self.sequencing.link_delays_ns) > self.engine.accounts:
            raise ValueError(
                f"sequencing.link_delays_ns has {len(self.sequencing.link_delays_ns)} delays for "
                f"{self.engine.accounts} accounts: give one for each, or none"
            )
        if self.segment_records < 4 * self.slack:
            raise ValueError(f"segment_records is {self.segment_records}: give at least {4 * self.slack}")
        return self

    @property
    def slack(self) -> int:
        return journal_slack(len(self.engine.instruments), self.max_sessions, self.sequencing.capacity)

    @property
    def control_address(self) -> str:
        return self.control or f"ipc://{self.directory}/control"


def _is_loopback(address: str) -> bool:
    host = address.removeprefix("tcp://").rsplit(":", 1)[0] if address.startswith("tcp://") else address
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def ask_for_realtime(wanted: bool) -> str:
    """Take SCHED_FIFO if wanted and permitted; returns the class in force, in words for the manifest.

    On few cores a stampede would otherwise measure the scheduler: the venue starves until nearly all racers ran.
    """
    if not wanted:
        return "SCHED_OTHER (as asked)"
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_FIFO_PRIORITY))
    except PermissionError:
        return "SCHED_OTHER (SCHED_FIFO not permitted here: latencies include the scheduler's)"
    return f"SCHED_FIFO {_FIFO_PRIORITY}"


def _bind(socket: zmq.Socket[bytes], host: str, port: int, name: str) -> str:
    try:
        if port == 0:
            port = socket.bind_to_random_port(f"tcp://{host}")
        else:
            socket.bind(f"tcp://{host}:{port}")
    except zmq.ZMQError as error:
        if error.errno == zmq.EADDRINUSE:
            raise ConfigurationError(
                f"port {port} for {name} is in use on {host}; choose another (--port, or in the file), or 0"
            ) from None
        raise ConfigurationError(
            f"cannot listen for {name} on {host}:{port}: {error.strerror}; is it an address of this machine?"
        ) from None
    return f"tcp://{host}:{port}"


class _Housekeeper:
    """A thread beside the loop: the next segment is made ahead of time, ended ones are shortened, and what was
    journaled is synced if that is left to an interval.

    It stays in the loop's scheduling class, as every Python thread of this process: one that is interrupted while it
    holds the interpreter's lock would hold up the loop when that comes back to Python.
    """

    def __init__(self, writer: journal.Writer, status: Array, sync_interval_s: float | None) -> None:
        self.failed = 0
        """errno of a sync that failed: what was promised cannot be kept."""
        self.synced = int(status["journaled"][0])
        """The last command known to be on the disk."""
        self._writer = writer
        self._status = status
        self._sync_interval_s = sync_interval_s
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        prepared_ns = clock.monotonic_ns()
        try:
            while not self._end.wait(_HOUSEKEEPING_S if self._sync_interval_s is None else self._sync_interval_s):
                if self._sync_interval_s is not None:
                    written = int(self._status["journaled"][0])
                    if written != self.synced:
                        self._writer.sync()
                        self.synced = written
                if clock.monotonic_ns() - prepared_ns >= clock.SECOND // 50:
                    prepared_ns = clock.monotonic_ns()
                    with contextlib.suppress(OSError):  # the loop asks again, and stops if there is no room then
                        self._writer.prepare()
        except OSError as error:
            self.failed = error.errno or errno.EIO

    def close(self) -> None:
        self._end.set()
        self._thread.join()


class Venue:
    """The sockets, the journal and the engine of one venue process."""

    def __init__(self, config: VenueConfig) -> None:
        self.config = config
        recovered = recovery.recover(config.directory, config.engine)
        self.warnings = recovered.warnings
        self.commands_replayed = recovered.commands_replayed
        self.engine = recovered.engine
        fresh = recovered.next_sequence == 1
        self.slack = config.slack
        self.longest = 1 if any(row.batch_interval_ns for row in config.engine.instruments) else BATCH
        self.loop = new_loop(self.engine.state, config.loop, config.max_sessions, config.max_timings, config.sequencing)
        self._take_up(recovered)
        # Compiles, and touches no socket.
        self.loop.status["journal_room"] = self.slack
        serve(self.loop, self.engine.state, Sockets(0, 0, 0, 0, 0, 0), 0, self.slack, self.longest)
        self.snapshotter = snapshots.Snapshotter(config.directory)
        # From here on: threads that libzmq starts inherit the class.
        self.scheduling = ask_for_realtime(config.realtime)
        # libzmq numbers connections from rand(), which is the same in every process unless somebody seeds it; who can
        # guess the next number can take it, and libzmq then aborts.
        ctypes.CDLL(None).srand(secrets.randbits(32))
        self.context: zmq.Context[Any] = zmq.Context()
        self.context.set(zmq.MAX_SOCKETS, 64)
        self._authenticator = self._start_authenticator() if config.keys else None
        self._open_sockets()
        self.housekeeper: _Housekeeper | None = None
        self.metrics = metrics.serve(self, config.metrics_port) if config.metrics_port is not None else None
        self.writer = journal.Writer(
            config.directory,
            config.engine,
            config.segment_records,
            recovered.next_sequence,
            None if fresh else recovered.check,
        )
        self._use_segment()
        interval = config.sync_interval_ms / 1000 if config.sync == "interval" else None
        self.housekeeper = _Housekeeper(self.writer, self.loop.status, interval)
        self._begin()
        self.terminated = False

    def _take_up(self, recovered: recovery.Recovered) -> None:
        status = self.loop.status[0]
        status["sequence"] = status["journaled"] = self.recovered_until = recovered.next_sequence - 1
        status["last_ns"] = recovered.last_ns
        # CLOCK_MONOTONIC begins anew with the machine; the venue's time must not.
        status["clock_offset_ns"] = max(0, recovered.last_ns - clock.monotonic_ns())
        status["check"] = recovered.check
        status["digest"] = recovered.events_digest
        status["events"] = recovered.events
        status["sync_each_batch"] = self.config.sync == "batch"
        status["with_keys"] = self.config.keys is not None
        limit = self.config.session_messages_per_s
        status["session_interval_ns"] = clock.SECOND // limit if limit else 0
        if self.config.keys is not None:
            for account, key in self.config.keys.accounts.items():
                if account < len(self.loop.account_keys):
                    self.loop.account_keys[account] = np.frombuffer(key.encode(), np.uint8)
        kinds = recovered.recent["kind"]
        are_reports = ((kinds <= EventKind.MASS_CANCELLED) & (kinds != EventKind.INSTRUMENT_HALTED)) | (
            kinds >= EventKind.MARGIN_CALLED
        )
        reports = recovered.recent[are_reports]
        # An operator's reject is no report. A participant's has an order id, or for its reason that it has none.
        named = (reports["order_id"] != 0) | (reports["reason"] == Reason.ORDER_ID_NOT_INCREASING)
        reports = reports[(reports["kind"] != EventKind.ORDER_REJECTED) | named][-RECENT_REPORTS:]
        self.loop.recent[: len(reports)] = reports
        status["recent"] = len(reports)
        if len(recovered.recent) < recovered.events:
            status["forgotten"] = recovered.recent["sequence"][0]
        self._number_trades(recovered.recent)
        self._show_empty_books()

    def _number_trades(self, recent: Array) -> None:
        """Trades are counted from the venue's start; volumes say what was before. Kept ones may be asked for again."""
        for fill in recent[recent["kind"] == EventKind.ORDER_FILLED]:
            numbers = self.loop.numbers[fill["instrument"]]
            numbers[_TRADE] += 1
            ring = self.loop.trades[fill["instrument"]]
            side = 2 if fill["reason"] == Reason.AUCTION else fill["side"]
            ring[numbers[_TRADE] & (len(ring) - 1)] = (
                numbers[_TRADE],
                fill["sequence"],
                fill["time_ns"],
                fill["price_ticks"],
                fill["quantity_lots"],
                side,
            )

    def _show_empty_books(self) -> None:
        """Until something is published of an instrument (of a sealed book not before its batch), its book is empty."""
        for number, row in enumerate(self.engine.state.instruments):
            self.loop.depths[number, :6] = (MessageKind.DEPTH, number, 0, 0, 0, row["phase"])
            self.loop.published[number, 1] = number
            self.loop.published[number, 5] = row["phase"]
            self.loop.published[number, 8] = row["price_levels"]

    def _start_authenticator(self) -> ThreadAuthenticator:
        keys = self.config.keys
        assert keys is not None
        allowed = {
            ORDERS_DOMAIN: set(keys.accounts.values()),
            CONTROL_DOMAIN: set(keys.operators.values()),
            PUBLIC_DOMAIN: {*keys.accounts.values(), *keys.operators.values()},
        }

        class AllowList:
            """ZAP (RFC 27): who may connect to which socket."""

            def callback(self, domain: str, key: bytes) -> bool:
                return key.decode() in allowed.get(domain, ())  # pyzmq gives it as Z85

        authenticator = ThreadAuthenticator(self.context)
        authenticator.start()
        for domain in allowed:
            authenticator.configure_curve_callback(domain, credentials_provider=AllowList())
        return authenticator

    def _socket(self, kind: int, domain: str) -> zmq.Socket[bytes]:
        socket = self.context.socket(kind)
        socket.setsockopt(zmq.LINGER, 200)
        socket.setsockopt(zmq.BACKLOG, _BACKLOG)
        socket.setsockopt(zmq.MAXMSGSIZE, CUT_BYTES)
        socket.setsockopt(zmq.HEARTBEAT_IVL, self.config.heartbeat_timeout_ms // 3)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, self.config.heartbeat_timeout_ms)
        if self.config.keys is not None:
            socket.setsockopt_string(zmq.ZAP_DOMAIN, domain)
            socket.setsockopt(zmq.CURVE_SERVER, 1)
            socket.setsockopt(zmq.CURVE_SECRETKEY, self.config.keys.secret.encode())
        return socket

    def _open_sockets(self) -> None:
        config = self.config
        self._orders = self._socket(zmq.ROUTER, ORDERS_DOMAIN)
        # Bounded per session: one that does not read loses its own reports, and one that floods waits for itself.
        self._orders.setsockopt(zmq.SNDHWM, RECENT_REPORTS + config.engine.max_orders)
        self._orders.setsockopt(zmq.RCVHWM, 4_000)
        self._orders.setsockopt(zmq.ROUTER_MANDATORY, 1)  # so that a report nobody can take is an error, and counted
        self._orders.monitor(
            "inproc://orders-monitor", zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | libzmq.EVENTS_HANDSHAKE_FAILED
        )
        self._monitor = self.context.socket(zmq.PAIR)
        self._monitor.setsockopt(zmq.RCVHWM, 0)
        self._monitor.connect("inproc://orders-monitor")
        self._control = self._socket(zmq.ROUTER, CONTROL_DOMAIN)
        self._control.setsockopt(zmq.SNDHWM, 0)
        self._market_data = self._socket(zmq.PUB, PUBLIC_DOMAIN)
        self._market_data.setsockopt(zmq.SNDHWM, 4000)
        self._market_data.setsockopt(zmq.XPUB_NODROP, 1)  # so that a slow subscriber's loss is known, and counted
        self._notices = self._socket(zmq.PUB, PUBLIC_DOMAIN)
        self._notices.setsockopt(zmq.SNDHWM, 0)  # never dropped
        for socket in (self._market_data, self._notices):  # all that comes to them are subscriptions and handshakes
            socket.setsockopt(zmq.MAXMSGSIZE, 64 if config.keys is None else 512)
        self.endpoints = {
            name: _bind(socket, config.host, config.port and config.port + offset, name)
            for offset, (name, socket) in enumerate(
                (("orders", self._orders), ("market_data", self._market_data), ("notices", self._notices))
            )
        }
        self.control = self._bind_private(self._control, "control", config.control_address)
        feed = 0
        self.feed = None
        if config.feed is not None:
            self._feed = self._socket(zmq.PUB, CONTROL_DOMAIN)
            self._feed.setsockopt(zmq.SNDHWM, _FEED_MESSAGES)
            self.feed = self._bind_private(self._feed, "feed", config.feed)
            feed = self._feed.underlying
        self.sockets = Sockets(
            self._orders.underlying,
            self._control.underlying,
            self._market_data.underlying,
            self._notices.underlying,
            self._monitor.underlying,
            feed,
        )

    def _bind_private(self, socket: zmq.Socket[bytes], name: str, address: str) -> str:
        """Listen where, on this machine, only this user can connect."""
        path = address.removeprefix("ipc://")
        if path != address:
            if len(path.encode()) > _MAX_IPC_BYTES:
                raise ConfigurationError(
                    f"{name}: the path {path} is longer than the {_MAX_IPC_BYTES} bytes that a socket may have; "
                    f"give a shorter one, as in {name} = 'ipc:///tmp/{name}'"
                )
            with _only_for_this_user():
                return self._try_bind(socket, name, address)
        return self._try_bind(socket, name, address)

    def _try_bind(self, socket: zmq.Socket[bytes], name: str, address: str) -> str:
        try:
            socket.bind(address)
        except zmq.ZMQError as error:
            raise ConfigurationError(f"cannot listen for {name} on {address}: {error.strerror}") from None
        return socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def _use_segment(self) -> None:
        status = self.loop.status[0]
        status["journal_descriptor"] = self.writer.descriptor
        status["journal_offset"] = self.writer.offset
        status["journal_room"] = self.writer.room

    def journal_lag(self) -> float:
        """How many journaled commands a power cut might lose now, at most; NaN if that is left to the kernel."""
        if self.config.sync == "never":
            return math.nan
        if self.config.sync == "batch":
            return 0
        synced = self.recovered_until if self.housekeeper is None else self.housekeeper.synced
        return int(self.loop.status["journaled"][0]) - synced

    def _roll(self) -> bool:
        """Go on in the journal's next segment; False if the disk has no room for one."""
        status = self.loop.status[0]
        try:
            ended = self.writer.roll(int(status["sequence"]) + 1, int(status["check"]))
        except OSError as error:
            status["journal_errno"] = error.errno or 0
            return False
        self._use_segment()
        if status["sync_each_batch"]:
            self.writer.sync()
        self.snapshotter.segment_finished(ended)
        return True

    def _begin(self) -> None:
        if self.loop.status[0]["journal_room"] < self.slack and not self._roll():
            raise JournalError(f"the journal has no room: {os.strerror(int(self.loop.status[0]['journal_errno']))}")
        state = self.engine.state
        if state.counters["starts"][0] == 0:  # the first start, or one that a kill interrupted: START comes last
            endowment = self.config.endowment
            for account in range(self.config.engine.accounts):
                if endowment.cash and not state.accounts["cash"][account]:
                    self._command(CommandKind.DEPOSIT_CASH, account, NOBODY, endowment.cash)
                for instrument in range(len(self.config.engine.instruments)):
                    if endowment.lots and not state.positions["quantity_lots"][account, instrument]:
                        self._command(CommandKind.DEPOSIT_POSITION, account, instrument, endowment.lots)
            if self.config.open_at_start and (state.instruments["phase"] == Phase.PRE_OPEN).any():
                self._command(CommandKind.OPEN_SESSION)
        self._command(CommandKind.START)

    def _command(self, kind: CommandKind, account: int = NOBODY, instrument: int = NOBODY, amount: int = 0) -> None:
        if self.loop.status[0]["journal_room"] < self.slack and not self._roll():
            raise JournalError(f"the journal has no room: {os.strerror(int(self.loop.status[0]['journal_errno']))}")
        reason = command(self.loop, self.engine.state, self.sockets, int(kind), account, instrument, amount)
        if reason < 0:
            raise JournalError(
                f"the journal cannot be written: {os.strerror(int(self.loop.status[0]['journal_errno']))}"
            )
        if reason > 0:
            raise ConfigurationError(f"endowment: the engine refused a deposit with reason {reason}: it is too large")

    def run(self, parent: int | None) -> int:
        """Serve until an operator, a signal or the end of `parent` (a descriptor to read) stops it; returns the loop's
        last code."""
        signal.signal(signal.SIGTERM, self.stop)
        state = self.engine.state
        status = self.loop.status[0]
        status["grace_ends_ns"] = clock.monotonic_ns() + status["clock_offset_ns"] + self.config.reconnect_grace_ns
        while not self.terminated:
            until_ns = clock.monotonic_ns() + _SLICE_NS
            code = int(serve(self.loop, state, self.sockets, until_ns, self.slack, self.longest))
            if code == SEGMENT_FULL and not self._roll():
                return JOURNAL_FAILED
            if code in (STOPPED, JOURNAL_FAILED):
                return code
            if self.housekeeper is not None and self.housekeeper.failed:
                status["journal_errno"] = self.housekeeper.failed
                return JOURNAL_FAILED
            if parent is not None and select.select([parent], [], [], 0)[0] and not os.read(parent, 1):
                break  # the parent is gone
        return SLICE_OVER

    def stop(self, _signal: int, _frame: object) -> None:
        """Stop in order, from a signal."""
        self.terminated = True

    def close(self) -> dict[str, object]:
        """Write out what was measured, close everything, and say how it ended."""
        status = self.loop.status[0]
        if self.config.max_timings:
            with contextlib.suppress(OSError):  # a full disk: the timings are measurements, the journal is the truth
                np.save(self.config.directory / TIMINGS_FILE, self.loop.timings[: int(status["timings"])])
        if self.metrics is not None:
            self.metrics.close()
        if self.housekeeper is not None:
            self.housekeeper.close()
        with contextlib.suppress(OSError):
            self.writer.close(int(status["sequence"]) + 1)
        self.snapshotter.close()
        if self._authenticator is not None:
            self._authenticator.stop()
        self._orders.disable_monitor()
        self.context.destroy(linger=200)
        phases = [Phase(int(row["phase"])).name for row in self.engine.state.instruments]
        return {
            "commands": int(status["sequence"]),
            "events": int(status["events"]),
            "events_digest": format_digest(int(status["digest"])),
            "state_hash": self.engine.state_hash(),
            "phases": phases,
            "sessions_logged_on": int(status["logons"]),
            "refused": int(status["refused"]),
            "handshakes_failed": int(status["handshakes_failed"]),
            "reports_unsent": int(status["unsent"]),
            "market_data_conflated": int(status["conflated"]),
            "held": int(self.loop.hold.rules["held"][0]),
            "held_late": int(self.loop.hold.rules["late"][0]),
            "journal_errno": int(status["journal_errno"]),
            "snapshots_failed": self.snapshotter.failed,
        }


@contextlib.contextmanager
def _only_for_this_user() -> Any:
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def _say(**values: object) -> None:
    print(json.dumps(values), flush=True)


def _prepare_process() -> None:
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _live(venue: Venue, parent: int | None) -> int:
    _say(
        ready=True,
        endpoints=venue.endpoints,
        control=venue.control,
        feed=venue.feed,
        scheduling=venue.scheduling,
        pid=os.getpid(),
        starts=int(venue.engine.state.counters["starts"][0]),
        commands_replayed=venue.commands_replayed,
        clock_offset_ns=int(venue.loop.status["clock_offset_ns"][0]),
        warnings=venue.warnings,
        metrics_port=None if venue.metrics is None else venue.metrics.port,
    )
    code = venue.run(parent)
    result = venue.close()
    if code == JOURNAL_FAILED:
        error_number = int(str(result["journal_errno"]))
        _say(**result, error=f"the journal could not be written: {os.strerror(error_number)}; nothing unwritten counts")
        return 1
    _say(**result)
    return 0


def main() -> int:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which stops the venue in order
    _prepare_process()
    try:
        venue = Venue(VenueConfig.model_validate_json(sys.stdin.buffer.readline()))
    except (ConfigurationError, JournalError, ValueError, OSError, zmq.ZMQError) as error:
        _say(error=str(error))
        return 2
    return _live(venue, 0)


def main_standalone(config: VenueConfig) -> int:
    """Run the venue in this process until SIGTERM, SIGINT or an operator's STOP; returns the exit status.

    Raises: ConfigurationError, JournalError, OSError: it cannot start.
    """
    _prepare_process()
    try:
        config.directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"directory {config.directory}: {error.strerror}; name one that can be made") from None
    print("Starting; the first time, the kernels are compiled: two to four minutes.", file=sys.stderr, flush=True)
    venue = Venue(config)
    signal.signal(signal.SIGINT, venue.stop)
    if config.keys is None:
        print(
            "No keys: listening on loopback only; anyone on this machine may trade for any account. See aar keys.",
            file=sys.stderr,
        )
    for warning in venue.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return _live(venue, None)


if __name__ == "__main__":
    sys.exit(main())
