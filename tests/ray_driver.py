"""A guarded driver with a local Ray and twenty agents: prints their pids, kills the actor when told to, then sleeps.

Arguments: run id, temporary directory.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from cluster.guard import Guard


def main() -> None:
    run_id, directory = sys.argv[1:]
    guard = Guard.start(run_id, directory)
    # Of this run only: Ray writes a missing token to the home directory.
    Path(os.environ["RAY_AUTH_TOKEN_PATH"]).write_text(run_id)

    import ray

    from cluster.host import AgentHost
    from tests.dummy_agent import FIELDS

    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, _temp_dir=f"{directory}/ray")
    host: Any = ray.remote(num_cpus=0)(AgentHost)
    host = host.remote("tests.dummy_agent:run", ["zmq"], FIELDS, 20)
    assert ray.get(host.spawn.remote([(number, {}) for number in range(20)], {"do": "stay"})) == 20
    while ray.get(host.status.remote())["ready"] < 20:
        time.sleep(0.05)
    node = ray.get(host.node.remote())
    assert node["node_ip"] == ray.util.get_node_ip_address(), node
    agents = ray.get(host.rows.remote())["pid"].tolist()
    print(json.dumps({"actor": node["pid"], "agents": agents, "guard": guard.pid}), flush=True)
    if sys.stdin.readline():
        ray.kill(host)
    time.sleep(3600)


if __name__ == "__main__":
    main()
