"""`aar races` and `aar export` on a run that ended well."""

import json
from pathlib import Path

import polars as pl
import pytest

from aar_swarm import lobster as recordings
from aar_swarm.exports.files import export
from aar_swarm.races.measures import of_run
from aar_swarm.results import load
from exchange.errors import ConfigurationError
from tests.runs import summary_of


@pytest.mark.usefixtures("nothing_left")
def test_a_run_has_its_races_told(finished, aar_here):
    directory, _ = finished
    told = summary_of(aar_here("races", directory, "--json"))
    figures, table = of_run(load(directory))
    assert told == json.loads(json.dumps(figures)) and told["races"] == len(table)
    assert told["seconds"] > 1 and told["messages"] > 40 and told["undecidable"] == 0
    assert (directory / "races.parquet").is_file()
    text = aar_here("races", directory).stdout
    assert "races a minute" in text and "sensitivities" in text.lower()
    with pytest.raises(ConfigurationError, match="--instrument"):
        of_run(load(directory), instrument=7)
    assert aar_here("races", directory, "--horizon-us", "0").returncode == 2


@pytest.mark.usefixtures("nothing_left")
def test_a_run_is_exported(finished, aar_here, tmp_path: Path):
    directory, _ = finished
    for format in ("hft-races", "lobster", "parquet"):
        done = aar_here("export", directory, "--format", format, "--out", tmp_path / format)
        paths = [Path(line) for line in done.stdout.split()]
        assert done.returncode == 0 and paths and all(path.stat().st_size for path in paths)
    day = recordings.read(next((tmp_path / "lobster").glob("*_message_*.csv")))
    executed = int(day.messages["size"][day.messages["type"] == recordings.MessageType.EXECUTE].sum())
    trades = load(directory).trades
    assert executed == trades.filter(pl.col("instrument") == 0)["quantity_lots"].sum()
    assert aar_here("export", directory, "--format", "lobster", "--out", tmp_path / "lobster").returncode == 2
    with pytest.raises(ConfigurationError, match="--instrument"):
        export(load(directory), "lobster", tmp_path / "other", instrument=9)
