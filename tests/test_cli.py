"""Bad input: one line that says what, where and what to do; exit status 2; nothing left running or overwritten."""

import json
import re
import socket
import subprocess
import sys

import pytest

from aar_swarm import cli, results
from tests.runs import aar, is_one_line, small, tree

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "exit-window"], "unknown scenario 'exit-window'; there are: .*exit-door"),
        (["run", "exit-door", "--set", "makers.levles=3"], "unknown setting 'makers.levles'"),
        (["run", "exit-door", "--set", "makers.levels"], "write it as key=value"),
        (["run", "exit-door", "--set", "makers.levels=0"], "makers.levels: .*greater than or equal to 1"),
        (["run", "exit-door", "--breaker", "loud"], "unknown breaker 'loud'"),
        (["run", "exit-door", "--size", "tiny"], "unknown size 'tiny'; scenario exit-door has: default, small"),
        (["compare", "exit-door", "--vary", "crowd.shares=1", "--size", "tiny"], "unknown size 'tiny'"),
        (["run", "exit-door", "--set", "stablecoin.reserves=5"], r"exit-door has no \[stablecoin\] table"),
        (["run", "exit-door", "--agents", "20"], "--agents 20: .*at least 40"),
        (["run", "exit-door", "--agents", "-5"], "--agents -5"),
        (["run", "exit-door", "--agents", "many"], "--agents.*valid integer"),
        (["run", "exit-door", "--agents", "90000"], "--agents 90000: .*ask for at most"),
        (["run", "exit-door", "--seed", "-1"], "--seed -1"),
        (["run", "exit-door", "--seed", "9" * 30], "--seed 999.*2.63"),
        (["run", "mine.toml"], "mine.toml: there is no such file"),
        (["run", "exit-door", "--set", "makers.strategy=7"], "makers.strategy: .*string"),
        (["run", "exit-door", "--set", "foo.bar=7"], "unknown setting 'foo.bar'"),
        (["compare", "exit-door", "--vary", "breaker=off,off"], "names a value twice"),
        (["run", "exit-door", "--port", "99999"], "port"),
        (["run", "exit-door", "--address", "127.0.0.1:1"], "--address 127.0.0.1:1"),
        (["run", "exit-door", "--out", "/proc/nothing"], "--out /proc/nothing: .*name a directory"),
        (["run", "exit-door", "--speed", "5"], "needs --background"),
        (["run", "exit-door", "--background", "abides:x"], "write it as lobster:FILE"),
        (["run", "exit-door", "--background", "lobster:/nonexistent.zip"], "/nonexistent.zip: .*no such file"),
        (["run", "exit-door", "--background", "lobster:/dev/null", "--speed", "-1"], "--speed -1"),
        (["run", "exit-door", "--colour"], "No such option"),
        (["run"], "Missing argument"),
        (["dance"], "No such command 'dance'"),
        (["compare", "exit-door", "--vary", "breaker"], "write it as key=a,b"),
        (["compare", "exit-door", "--vary", "breaker=off,loud"], "unknown breaker 'loud'"),
        (["compare", "exit-door", "--vary", "agents=100,few"], "agents=few"),
        (["compare", "exit-door", "--vary", "makers.levels=1,99"], "makers.levels"),
        (["replay", "/nonexistent"], "not the directory of a run"),
        (["report", "/nonexistent"], "not the directory of a run"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_status_two(arguments, message, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["aar", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    output, error = capfd.readouterr()
    assert (ended.value.code, output) == (2, ""), error
    assert is_one_line(error) and re.search(message, error), error
    assert not list(tmp_path.iterdir())


def test_bad_input_is_the_same_from_a_shell(tmp_path):
    done = aar("run", "exit-window")
    assert (done.returncode, done.stdout) == (2, "") and is_one_line(done.stderr)


def test_a_port_in_use_is_named(tmp_path):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        done = aar(*small(), "--out", tmp_path / "run", "--port", port)
    assert done.returncode == 2, done.stderr
    assert f"port {port} for orders is in use" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_a_directory_that_holds_something_is_not_overwritten(tmp_path, aar_here):
    (tmp_path / "thesis.txt").write_text("years of work")
    done = aar_here(*small(), "--out", tmp_path)
    assert done.returncode == 2 and is_one_line(done.stderr) and "nothing is overwritten" in done.stderr
    assert tree(tmp_path) == {"thesis.txt": b"years of work"}


def test_too_few_descriptors_are_found_before_anything_starts(tmp_path):
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512)); "
        "import aar_swarm.cli as cli; sys.argv = ['aar', 'run', 'exit-door', '--out', sys.argv[1]]; cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run")], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2 and is_one_line(done.stderr)
    assert "file descriptors" in done.stderr and "at most 104" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_corrupt_recording_is_named_with_its_row(tmp_path, aar_here):
    (tmp_path / "X_message_1.csv").write_text("34200.1,1,7,100,5794000,1\n34200.2,1,8,abc,5794100,1\n")
    (tmp_path / "X_orderbook_1.csv").write_text("5794200,10,5794000,100\n5794200,10,5794100,100\n")
    before = tree(tmp_path)
    done = aar_here(*small(), "--background", f"lobster:{tmp_path}/X_message_1.csv", "--out", tmp_path / "run")
    assert done.returncode == 2 and is_one_line(done.stderr), done.stderr
    assert "X_message_1.csv" in done.stderr and "row 2" in done.stderr
    assert tree(tmp_path) == before


def test_scenarios_and_doctor_answer(aar_here):
    listed = aar_here("scenarios").stdout
    assert "exit-door: " in listed and "sizes: default, small" in listed and "breakers: default, " in listed
    assert re.search(r"^  crowd.shares=60: .*holder", listed, re.MULTILINE)
    answer = aar("doctor").stdout
    assert "1000 agents: yes" in answer and "real-time priority" in answer
    assert aar_here("--help").returncode == 0


def test_a_run_that_did_not_finish_says_so(tmp_path, aar_here):
    (tmp_path / results.MANIFEST).write_text(json.dumps({}))
    done = aar_here("report", tmp_path)
    assert done.returncode == 2 and "did not finish" in done.stderr
