"""What Prometheus is told is what was done."""

import socket
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from exchange.keys import generate
from exchange.server import EndowmentConfig
from exchange.types import CommandKind, Phase, Reason, Side
from tests.venues import check_replay, running_venue

pytestmark = pytest.mark.usefixtures("nothing_left")
RICH = EndowmentConfig(cash=10**9, lots=10**6)


def scrape(venue):
    """(name, labels as a sorted tuple of pairs): value"""
    port = venue.said["metrics_port"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_counters_say_what_was_done(tmp_path):
    with running_venue(tmp_path, metrics_port=0, endowment=RICH, open_at_start=True) as venue:
        before = scrape(venue)
        assert before["aar_commands_total", ()] == venue.status().commands
        assert not [name for name, _ in before if name.startswith("aar_rejects_")]
        session, other = venue.session(0), venue.session(1)
        for order_id in range(1, 11):
            session.place(order_id, Side.BUY, 100, 1)
        session.cancel(1)
        session.cancel(1)
        session.place(11, Side.BUY, 0, 1)
        session.socket.send(b"rubbish")
        session.socket.send(b"x" * 300)
        session.catch_up()
        other.place(1, Side.SELL, 100, 2)
        other.catch_up()
        other.log_off()
        other.catch_up()
        after = scrape(venue)
        status = venue.status()
        assert after["aar_commands_total", ()] == status.commands
        assert after["aar_messages_refused_total", ()] == status.refused == 2
        assert after["aar_sessions", ()] == status.logged_on == 1
        assert after["aar_logons_total", ()] == 2
        assert after["aar_resting_orders", ()] == 7
        assert after["aar_messages_received_total", ()] >= 2 + 10 + 5 + 1 + 3
        counted = [(labels, value) for (name, labels), value in after.items() if name == "aar_rejects_total"]
        rejects = {dict(labels)["reason"]: value for labels, value in counted}
        wanted = (Reason.UNKNOWN_ORDER, Reason.PRICE_OUT_OF_RANGE, Reason.MALFORMED, Reason.OVERSIZED)
        assert rejects == {reason.name: 1 for reason in wanted}
        phases = {tuple(value for _, value in labels) for (name, labels) in after if name == "aar_phase"}
        assert phases == {("0", Phase.CONTINUOUS.name), ("1", Phase.CONTINUOUS.name)}
        buckets = [value for (name, _), value in after.items() if name == "aar_gateway_latency_seconds_bucket"]
        assert buckets == sorted(buckets) and buckets[-1] == after["aar_commands_total", ()]
        assert after["aar_journal_unsynced", ()] != after["aar_journal_unsynced", ()]  # NaN: left to the kernel
        assert venue.operator.request(CommandKind.CLOSE_SESSION).reason == 0
        assert scrape(venue)["aar_phase", (("instrument", "0"), ("phase", "CLOSED"))] == 1
        said = venue.stop()
        replayed = check_replay(venue, said)
        assert after["aar_events_total", ()] < len(replayed.events) == said["events"]


@pytest.mark.parametrize("sync", ["interval", "batch"])
def test_the_journal_s_lag_is_known_where_it_is_synced(tmp_path, sync):
    with running_venue(tmp_path, metrics_port=0, endowment=RICH, sync=sync, sync_interval_ms=20) as venue:
        lag = scrape(venue)["aar_journal_unsynced", ()]
        assert 0 <= lag <= venue.status().commands
        if sync == "batch":
            assert lag == 0
        check_replay(venue, venue.stop())


def test_connections_without_a_key_are_counted(tmp_path):
    keys = generate([0], ["operator"])
    with running_venue(tmp_path, keys=keys, metrics_port=0) as venue:
        plain = venue.connection()
        plain.ask_log_on(0)
        assert plain.is_quiet(500)
        assert scrape(venue)["aar_handshakes_failed_total", ()] > 0


def test_a_port_that_is_taken_is_refused_in_words(tmp_path):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        with running_venue(tmp_path, metrics_port=holder.getsockname()[1]) as venue:
            assert "in use" in venue.said["error"]
            assert venue.process.wait(30) == 2
