"""scripts/test_hosts.sh: it refuses what it cannot do in a line, and leaves nothing whatever state it is in."""

import subprocess

import pytest

from tests.hosts import Hosts, some_hosts


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("up", "none"), "from 1 to 20 hosts"),
        (("exec", 0, "true"), "there is no host 0"),
        (("cut", 7), "there is no host 7"),
        ((), "test_hosts.sh up N"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(words, message):
    done = Hosts("tnone").call(*words, check=False)
    assert done.returncode == 2 and message in done.stderr


def test_hosts_have_names_addresses_and_processes_of_their_own_and_can_be_cut_off():
    with some_hosts(2, ray=False) as hosts:
        assert hosts.call("exec", 0, "hostname").stdout == f"{hosts.prefix}-0\n"
        assert hosts.call("exec", 1, "sh", "-c", "echo $$ $RAY_ADDRESS").stdout.endswith(" 10.77.0.10:6379\n")
        assert "is there already" in hosts.call("up", 2, check=False).stderr
        connect = ("exec", 1, "python3", "-c", "import socket as s;s.create_connection(('10.77.0.10',9),2)")
        assert "refused" in hosts.call(*connect, check=False).stderr  # it is there, and nobody listens
        hosts.call("cut", 1)
        assert "refused" not in hosts.call(*connect, check=False).stderr
        hosts.call("join", 1)
        left = subprocess.Popen(["ip", "netns", "exec", f"{hosts.prefix}-1", "sleep", "100"])
        hosts.call("kill-node", 1)
        assert "has no power" in hosts.call("exec", 1, "true", check=False).stderr
        hosts.call("down")
        assert left.wait(10) == -9  # what had only joined its network
        hosts.call("down")  # again, with nothing there
