"""The venue alone, by its commands: aar exchange, aar control, aar journal, and what they say of bad input."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exchange.client import Endpoints
from exchange.config_file import load
from exchange.errors import ConfigurationError
from exchange.session import Session
from exchange.types import Reason, Side

pytestmark = pytest.mark.usefixtures("nothing_left")
EXAMPLE = Path(__file__).resolve().parent.parent / "docs" / "exchange.toml"
SMALL = """
directory = "data"
open_at_start = true
max_sessions = 8
realtime = false
[endowment]
cash = 1000000
lots = 1000
[engine]
accounts = 4
[[engine.instruments]]
price_levels = 1024
"""


def aar(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "aar_swarm.cli", *map(str, arguments)], capture_output=True, text=True, timeout=120
    )


@pytest.fixture
def running(tmp_path) -> Iterator[tuple[Path, dict[str, Any], subprocess.Popen[bytes]]]:
    config = tmp_path / "venue.toml"
    config.write_text(SMALL)
    process = subprocess.Popen(
        [sys.executable, "-m", "aar_swarm.cli", "exchange", "--config", config],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    try:
        yield config, json.loads(process.stdout.readline()), process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def test_a_venue_is_run_operated_traded_on_and_replayed(running, aar_here):
    config, said, process = running
    assert said["ready"] and said["starts"] == 1 and said["commands_replayed"] == 0
    with Session(Endpoints(**said["endpoints"]), account=3) as session:
        order = session.place(instrument=0, side=Side.BUY, price_ticks=100, quantity_lots=10)
        assert session.wait_for(order).leaves_lots == 10
        status = json.loads(aar("control", "--config", config, "status").stdout)
        assert status["logged_on"] == 1 and status["refused"] == 0
        done = aar("control", "--config", config, "limit", "--account", 3, "--limit", "order_lots", "--amount", 5)
        assert done.returncode == 0, done.stderr
        refused = session.place(instrument=0, side=Side.BUY, price_ticks=100, quantity_lots=10)
        assert session.wait_for(refused).reason == Reason.ORDER_SIZE_LIMIT
    for arguments, message in (
        (("limit", "--account", 3, "--limit", "size", "--amount", 1), "choose one of order_lots, open_orders"),
        (("limit", "--account", 3, "--limit", "order_lots"), "needs --amount"),
        (("deposit-cash", "--amount", 5), "needs --account"),
        (("deposit-cash", "--account", 99, "--amount", 5), "UNKNOWN_ACCOUNT"),
        (("withdraw-cash", "--amount", 5), "needs --account"),
        (("margin", "--account", 3, "--amount", 1), "NO_SUCH_FACILITY"),
        (("index", "--amount", 0), "AMOUNT_OUT_OF_RANGE"),
    ):
        done = aar_here("control", "--config", config, *arguments)
        assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1, done.stderr
    live = json.loads(aar_here("journal", config.parent / "data").stdout)
    assert live["starts"] == 1 and live["resting_orders"] == 1
    process.send_signal(signal.SIGINT)
    last = json.loads(process.stdout.readline())
    assert process.wait(30) == 0
    replayed = json.loads(aar("journal", config.parent / "data").stdout)
    assert (replayed["state_hash"], replayed["events_digest"]) == (last["state_hash"], last["events_digest"])
    assert aar_here("journal", config.parent / "data", "--until", 3).stdout.startswith('{"commands": 3,')


def test_the_example_is_a_configuration():
    config = load(EXAMPLE)
    assert config.port == 7001 and len(config.engine.instruments) == 2 and config.engine.instruments[0].breaker.armed


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("directory = 3", "directory: give a path"),
        ("x = ", "is not TOML"),
        (SMALL.replace("price_levels", "price_level"), "engine.instruments.0.price_levels: is missing"),
        (SMALL + "max_quantity = 5\n", "engine.instruments.0.max_quantity: there is no such setting"),
        ('host = "0.0.0.0"\n' + SMALL, "without keys the venue listens on loopback only"),
        ('keys = "none"\n' + SMALL, "venue.key_secret"),
        ("segment_records = 1024\n" + SMALL, "segment_records is 1024: give at least"),
        (SMALL + "batch_interval_ns = 10\n", "at least 1 ms"),
        (SMALL + "[engine.instruments.breaker]\nprice_move_bps = 5\n", "could see one match at most"),
        (SMALL + "[engine.instruments.breaker]\nhalt_ns = 5000000\n", "reopens by a call auction"),
    ],
)
def test_a_bad_configuration_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "venue.toml"
    path.write_text(content)
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    assert message in str(caught.value) and str(path.parent) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_and_a_directory_that_cannot_be_made_are_named(tmp_path):
    done = aar("exchange", "--config", tmp_path / "none.toml")
    assert done.returncode == 2 and "none.toml: No such file" in done.stderr
    (tmp_path / "file").write_text("")
    (tmp_path / "venue.toml").write_text(SMALL.replace('"data"', '"file/data"'))
    done = aar("exchange", "--config", tmp_path / "venue.toml")
    assert done.returncode == 2 and "file/data: Not a directory" in done.stderr and done.stderr.count("\n") == 1
