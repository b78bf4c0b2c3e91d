"""cluster/launch/ray-up.yaml for real, over sshd on hosts of this machine: scripts/try_ray_up.sh."""

import json
import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import aar_swarm

ROOT = Path(__file__).resolve().parent.parent
NOT_HERE = 77


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ray_up_a_run_on_its_cluster_and_ray_down(tmp_path: Path) -> None:
    kept = tmp_path / "run"
    prefix = f"t{secrets.token_hex(2)}"
    environment = {**os.environ, "AAR_HOSTS_PREFIX": prefix, "AAR_HOSTS_PYTHON": sys.executable}
    script = [str(ROOT / "scripts" / "try_ray_up.sh"), str(kept)]
    log = tmp_path / "log"  # not a pipe, which a daemon of Ray's could hold open
    with log.open("w") as output:
        process = subprocess.Popen(
            script, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        try:
            status = process.wait(timeout=800)
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)  # it takes its hosts down
            process.wait()
            raise
    said = log.read_text()
    if status == NOT_HERE:
        pytest.skip(said.strip().splitlines()[-1])
    assert status == 0, said
    assert "nodes: 3" in said.splitlines()
    manifest = json.loads((kept / "manifest.json").read_text())
    assert {host["host_name"] for host in manifest["hosts"]} == {f"{prefix}-1", f"{prefix}-2"}  # the head has none
    assert aar_swarm.load(kept).summary["agent_processes_lost"] == 0
    assert not (Path(os.environ.get("TMPDIR", "/tmp")) / f"{prefix}-hosts").exists()
    names = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert prefix not in names
