"""Prometheus metrics of a running venue, on a port of the loopback address.

Owns their names. They are read from the loop's own counters when somebody asks; the loop does nothing for them.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from exchange.errors import ConfigurationError
from exchange.types import Phase, Reason

if TYPE_CHECKING:
    from exchange.server import Venue

_FIRST_BUCKET, _LAST_BUCKET = 9, 30
"""Latencies are reported from 2^10 ns (1 µs) to 2^31 ns (2 s), in powers of two."""


class _VenueCollector(Collector):
    def __init__(self, venue: "Venue") -> None:
        self._venue = venue

    def collect(self) -> Iterator[Metric]:
        venue = self._venue
        loop = venue.loop
        status = {name: int(loop.status[0][name]) for name in loop.status.dtype.names or ()}
        for name, field, text in (
            ("aar_messages_received", "received", "Messages taken from participants and operators"),
            ("aar_messages_sent", "sent", "Messages handed to sockets: reports, notices, market data"),
            ("aar_messages_refused", "refused", "Messages that the gateway refused"),
            ("aar_reports_unsent", "unsent", "Reports that a full or vanished session did not take"),
            ("aar_market_data_conflated", "conflated", "Market data messages that a slow subscriber did not get"),
            ("aar_handshakes_failed", "handshakes_failed", "Connections that did not prove an allowed key"),
            ("aar_commands", "sequence", "Commands sequenced and journaled"),
            ("aar_events", "events", "Events of the engine"),
            ("aar_logons", "logons", "Sessions begun"),
            ("aar_batches", "batches", "Batches of commands committed"),
        ):
            yield CounterMetricFamily(name, text, value=status[field])
        rejects = CounterMetricFamily("aar_rejects", "Rejects and refusals, by reason", labels=["reason"])
        for reason in Reason:
            if reason and (count := int(loop.reasons[reason])):
                rejects.add_metric([reason.name], count)
        yield rejects
        yield GaugeMetricFamily("aar_sessions", "Sessions logged on", value=status["sessions"])
        yield GaugeMetricFamily(
            "aar_resting_orders", "Orders that rest", value=int(venue.engine.state.counters["resting_orders"][0])
        )
        yield GaugeMetricFamily(
            "aar_largest_batch", "Most commands that waited and were taken at once", value=status["largest_batch"]
        )
        lag = venue.journal_lag()
        yield GaugeMetricFamily(
            "aar_journal_unsynced",
            "Commands journaled, not forced to the disk; NaN: left to the kernel",
            value=lag,
        )
        yield GaugeMetricFamily(
            "aar_snapshots_failed",
            "1: no more snapshots are made; see the log",
            value=venue.snapshotter.failed is not None,
        )
        phases = GaugeMetricFamily("aar_phase", "Phase of each instrument", labels=["instrument", "phase"])
        for number, row in enumerate(venue.engine.state.instruments):
            phases.add_metric([str(number), Phase(int(row["phase"])).name], 1)
        yield phases
        counts = loop.latencies.tolist()
        buckets = []
        total = sum(counts[:_FIRST_BUCKET])
        for power in range(_FIRST_BUCKET, _LAST_BUCKET + 1):
            total += counts[power]
            buckets.append((f"{2.0 ** (power + 1) / 1e9:g}", total))
        total += sum(counts[_LAST_BUCKET + 1 :])
        buckets.append(("+Inf", total))
        latency = HistogramMetricFamily(
            "aar_gateway_latency_seconds", "From a command's receipt to its reports handed to the sockets"
        )
        latency.add_metric([], buckets, None)
        yield latency


class MetricsServer:
    def __init__(self, venue: "Venue", port: int) -> None:
        registry = CollectorRegistry()
        registry.register(_VenueCollector(venue))
        try:
            self._server, self._thread = start_http_server(port, addr="127.0.0.1", registry=registry)
        except OSError as error:
            raise ConfigurationError(f"metrics_port {port}: {error.strerror}; choose another, or 0 for any") from None
        self.port: int = self._server.server_port

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serve(venue: "Venue", port: int) -> MetricsServer:
    """Serve the venue's metrics until closed. Raises: ConfigurationError: the port is taken."""
    return MetricsServer(venue, port)
