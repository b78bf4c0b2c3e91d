"""SQL over runs: what tables there are, and that a query changes nothing and reads nothing else."""

import json
from pathlib import Path

import polars as pl
import pytest

from aar_swarm.sweeps import sql, table
from aar_swarm.sweeps.sql import query
from exchange.errors import ConfigurationError
from tests.runs import is_one_line
from tests.synthetic_runs import write_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two whole runs, one whose tables are gone, half a run, and a sweep's table."""
    root = tmp_path_factory.mktemp("runs")
    for name, halted in (("a", False), ("deep/b", True)):
        (root / name).parent.mkdir(exist_ok=True)
        write_run(root / name, halted=halted)
    (root / "bare").mkdir()
    for name in ("manifest.json", "summary.json"):
        (root / "bare" / name).write_bytes((root / "a" / name).read_bytes())
    (root / "half").mkdir()
    (root / "half" / "manifest.json").write_text("{}")
    (root / "torn").mkdir()
    (root / "torn" / "manifest.json").write_text("{}")
    (root / "torn" / "summary.json").write_text('{"trades": 1')
    for number in (1, 2):
        (root / f"sweep{number}").mkdir()
        record = {"trial": "t", "arguments": {"agents": 5}, "settings": {}, "seed": number, "cores": [0]}
        table.write(root / f"sweep{number}", [table.row(record, {"trades": number})])
    return root


def test_every_run_is_a_row_and_every_tables_rows_know_their_run(runs):
    names, rows = query('SELECT run, halted, "trip.trigger" FROM runs ORDER BY run', [runs])
    assert names == ["run", "halted", "trip.trigger"]
    assert rows == [
        (str(runs / "a"), False, None), (str(runs / "bare"), False, None), (str(runs / "deep/b"), True, "SELL_VOLUME"),
    ]  # fmt: skip
    counted = dict(query("SELECT run, count(*) FROM trades GROUP BY run", [runs])[1])
    assert counted == {str(runs / n): pl.read_parquet(runs / n / "trades.parquet").height for n in ("a", "deep/b")}
    joined = query("SELECT count(*) FROM trades t JOIN runs r USING (run) WHERE r.halted", [runs])[1]
    assert joined == [(counted[str(runs / "deep/b")],)]


def test_trials_of_all_sweeps_are_one_table(runs):
    asked = "SELECT sweep, seed, agents, trades FROM trials ORDER BY seed"
    assert query(asked, [runs])[1] == [(str(runs / "sweep1"), 1, 5, 1), (str(runs / "sweep2"), 2, 5, 2)]
    assert query("SELECT count(*) FROM trials", [runs / "sweep1", runs / "sweep2"])[1] == [(2,)]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT nothing FROM runs", "nothing"),
        ("SELECT * FROM latency", "no latency below"),
        ("SELECT * FROM elsewhere", "elsewhere does not exist"),
        ("SELECT 1; SELECT 2", "2 statements"),
        ("", "0 statements"),
        ("COPY (SELECT 1) TO 'x.csv'", "COPY is not for here"),
        ("CREATE TABLE t (a INT)", "CREATE is not for here"),
        ("SET threads = 1", "SET is not for here"),
        ("EXPLAIN ANALYZE COPY (SELECT 1) TO 'x.csv'", "EXPLAIN is not for here"),
        ("SELECT * FROM read_text('/etc/hostname')", "disabled by configuration"),
        ("SELECT * FROM '/etc/hostname'", "/etc/hostname"),
    ],
)
def test_a_query_that_cannot_be_is_one_line_and_nothing_but_runs_is_read(runs, aar_here, asked, said):
    done = aar_here("sql", asked, runs)
    assert done.returncode == 2 and said in done.stderr and is_one_line(done.stderr), done.stderr


def test_no_directory_is_said_so(tmp_path):
    with pytest.raises(ConfigurationError, match="is no directory"):
        query("SELECT 1", [tmp_path / "none"])


def test_only_what_a_query_names_is_opened(runs, monkeypatch):
    def never(place: Path) -> None:
        raise AssertionError(f"{place} was read")

    monkeypatch.setattr(sql, "_run_row", never)
    assert query("SELECT max(trades) FROM trials", [runs])[1] == [(2,)]


def test_what_is_printed(runs, aar_here):
    asked = "SELECT seed, trades FROM trials ORDER BY seed"
    assert json.loads(aar_here("sql", asked, runs, "--json").stdout) == {
        "columns": ["seed", "trades"], "rows": [[1, 1], [2, 2]],
    }  # fmt: skip
    assert aar_here("sql", asked, runs, "--csv").stdout.split() == ["seed,trades", "1,1", "2,2"]
    assert "trades" in aar_here("sql", asked, runs).stdout
    assert aar_here("sql", asked, runs, "--csv", "--json").returncode == 2


@pytest.mark.parametrize("content", [b"PAR1", b"PAR1" + b"x" * 100 + b"PAR1", b""])
def test_a_damaged_table_is_named_in_one_line(tmp_path, aar_here, content):
    (tmp_path / table.TABLE).write_bytes(content)
    done = aar_here("sql", "SELECT * FROM trials", tmp_path)
    assert done.returncode == 2 and table.TABLE in done.stderr and is_one_line(done.stderr), done.stderr


def test_the_columns_are_told(runs):
    assert ("seed", "BIGINT") in [row[:2] for row in query("DESCRIBE trials", [runs])[1]]
