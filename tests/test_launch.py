"""The manifests of cluster/launch/: valid as far as schemas can tell, and saying what docs/cluster.md says they say."""

import copy
import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from cluster.limits import MEMORY_PER_AGENT_KB
from cluster.placement import VENUE_RESOURCE, Node, divide, venue_node
from tests import kuberay

ROOT = Path(__file__).resolve().parent.parent
LAUNCH = ROOT / "cluster" / "launch"


def load(name: str) -> dict[str, Any]:
    loaded = yaml.safe_load((LAUNCH / name).read_text())
    assert isinstance(loaded, dict)
    return loaded


def cluster_spec() -> dict[str, Any]:
    spec: dict[str, Any] = load("kuberay-cluster.yaml")["spec"]
    return spec


def groups() -> list[dict[str, Any]]:
    spec = cluster_spec()
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def worker_group(name: str) -> dict[str, Any]:
    return next(group for group in cluster_spec()["workerGroupSpecs"] if group["groupName"] == name)


def container(group: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = group["template"]["spec"]["containers"][0]
    return found


def locked(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9_.-]+)==(\S+)", path.read_text(), re.MULTILINE))


@pytest.mark.parametrize("name", ["kuberay-cluster.yaml", "kuberay-job.yaml", "kuberay-results.yaml"])
def test_kubernetes_manifests_fit_the_schemas(name: str) -> None:
    assert kuberay.problems(load(name)) == []


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (["spec", "headGroupSpecs"], {}, "headGroupSpecs"),
        (["spec", "workerGroupSpecs", 0, "replicas"], "1", "replicas"),
        (["spec", "workerGroupSpecs", 0, "rayStartParams", "num-cpus"], 0, "num-cpus"),
        (["spec", "workerGroupSpecs", 0, "template", "spec", "containers", 0, "ulimits"], {}, "ulimits"),
        (["spec", "headGroupSpec", "template", "spec", "volumes", 0, "size"], "1Gi", "size"),
        (["spec", "authOptions", "mode"], "tokens", "tokens"),
        (["kind"], "RayCluster", None),
    ],
)
def test_the_schemas_refuse_what_is_wrong(path: list[Any], value: Any, complaint: str | None) -> None:
    manifest = copy.deepcopy(load("kuberay-cluster.yaml"))
    *parents, last = path
    place: Any = manifest
    for step in parents:
        place = place[step]
    place[last] = value
    said = kuberay.problems(manifest)
    if complaint is None:
        assert said == []
    else:
        assert any(complaint in line for line in said), said


def test_the_job_runs_on_the_cluster_of_the_other_manifest() -> None:
    job = load("kuberay-job.yaml")["spec"]
    assert job["rayClusterSpec"] == cluster_spec()
    assert job["shutdownAfterJobFinishes"] is True
    assert job["backoffLimit"] == 0  # a run that failed is not run again until it fits
    assert isinstance(yaml.safe_load(job["runtimeEnvYAML"]), dict)


def test_the_job_writes_to_the_volume_that_outlives_it() -> None:
    job = load("kuberay-job.yaml")["spec"]
    shell, option, command = shlex.split(job["entrypoint"])
    assert (shell, option) == ("sh", "-c")
    pod = cluster_spec()["headGroupSpec"]["template"]["spec"]
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    claims = {volume["name"]: volume.get("persistentVolumeClaim", {}).get("claimName") for volume in pod["volumes"]}
    assert command.startswith(f"cd {mounts['results']} && aar run exit-door ")
    assert claims["results"] == load("kuberay-results.yaml")["metadata"]["name"]


def test_the_agents_of_the_job_fit_its_pods() -> None:
    entrypoint = load("kuberay-job.yaml")["spec"]["entrypoint"]
    match = re.search(r"--agents (\d+)", entrypoint)
    assert match is not None
    agents = worker_group("agents")
    gigabytes = int(container(agents)["resources"]["limits"]["memory"].removesuffix("Gi"))
    per_pod = int(match[1]) / agents["replicas"]
    assert per_pod * MEMORY_PER_AGENT_KB <= (gigabytes - 2) * 1_000_000  # 2 for Ray


def test_only_the_venues_pod_has_the_resource_and_only_agents_pods_have_cores() -> None:
    exchange = worker_group("exchange")
    (text,) = shlex.split(exchange["rayStartParams"]["resources"])  # it goes through a shell
    assert json.loads(text) == {VENUE_RESOURCE: 1}
    assert exchange["replicas"] == exchange["maxReplicas"] == 1
    with_resource = [group for group in groups() if VENUE_RESOURCE in group["rayStartParams"].get("resources", "")]
    assert with_resource == [exchange]
    without_cores = [group.get("groupName", "head") for group in groups() if "num-cpus" in group["rayStartParams"]]
    assert without_cores == ["head", "exchange"]


def test_the_head_and_the_venue_get_no_agents() -> None:
    nodes = []
    for group in groups():
        cores = float(group["rayStartParams"].get("num-cpus", container(group)["resources"]["limits"]["cpu"]))
        with_venue = VENUE_RESOURCE in group["rayStartParams"].get("resources", "")
        for number in range(group.get("replicas", 1)):
            name = f"{group.get('groupName', 'head')}-{number}"
            nodes.append(Node(node_id=name, address=name, cores=cores, has_venue_resource=with_venue))
    assert venue_node(nodes).address == "exchange-0"
    shares = dict(zip([node.address for node in nodes], divide(6000, nodes), strict=True))
    assert shares == {"head-0": 0, "exchange-0": 0, "agents-0": 2000, "agents-1": 2000, "agents-2": 2000}


def test_every_pod_may_use_real_time_priority_and_nothing_else() -> None:
    for group in groups():
        context = container(group)["securityContext"]
        assert context["capabilities"] == {"drop": ["ALL"], "add": ["SYS_NICE"]}
        assert context["runAsUser"] == 0  # see the comment there


def test_every_pod_has_whole_cores_of_its_own_and_shared_memory() -> None:
    for group in groups():
        resources = container(group)["resources"]
        assert resources["requests"] == resources["limits"]  # the guaranteed class, which the static CPU manager needs
        assert resources["limits"]["cpu"].isdecimal()
        mounts = {mount["mountPath"]: mount["name"] for mount in container(group)["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in group["template"]["spec"]["volumes"]}
        assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory"


def test_one_version_of_ray_everywhere() -> None:
    assert cluster_spec()["rayVersion"] == locked(ROOT / "requirements.lock")["ray"] == ray.__version__


def test_tokens_are_on_everywhere() -> None:
    assert cluster_spec()["authOptions"] == {"mode": "token"}
    config = load("ray-up.yaml")
    for command in config["head_start_ray_commands"] + config["worker_start_ray_commands"]:
        assert "ray stop" in command or command.count("RAY_AUTH_MODE=token") == 1
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


def test_ray_up_is_accepted_by_ray() -> None:
    config = load("ray-up.yaml")
    assert config["min_workers"] == config["max_workers"] == len(config["provider"]["worker_ips"])
    prepared = prepare_config(copy.deepcopy(config))  # what `ray up` does with it first
    validate_config(prepared)
    with pytest.raises(jsonschema.ValidationError, match="setup_command"):
        validate_config({**prepared, "setup_command": []})


def test_ray_up_puts_the_venue_on_the_head_and_no_agents() -> None:
    config = load("ray-up.yaml")
    starts = [shlex.split(command) for command in config["head_start_ray_commands"]][-1]
    assert "--num-cpus=0" in starts
    assert f"--node-ip-address={config['provider']['head_ip']}" in starts
    resources = next(word for word in starts if word.startswith("--resources="))
    assert json.loads(resources.partition("=")[2]) == {VENUE_RESOURCE: 1}


def test_descriptors_are_enough_for_the_agents_of_a_node() -> None:
    config = load("ray-up.yaml")
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        match = re.search(r"ulimit -n (\d+)", commands[-1])
        assert match is not None and int(match[1]) >= 65_535


def test_the_image_has_the_locked_versions() -> None:
    ours, image = locked(ROOT / "requirements.lock"), locked(LAUNCH / "requirements.lock")
    assert {name: image[name] for name in ours.keys() & image.keys()} == {
        name: ours[name] for name in ours.keys() & image.keys()
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    missing = set(project["dependencies"]) - image.keys()
    assert not missing, f"{missing}: run `make lock`"
    assert "aiohttp" in image  # of ray[default], without which there is no dashboard and no job


def test_the_image_gets_every_package() -> None:
    recipe = (LAUNCH / "Dockerfile").read_text()
    include = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    let_through = (LAUNCH / "Dockerfile.dockerignore").read_text().splitlines()
    for package in [name.rstrip("*") for name in include]:
        assert f"COPY {package} ./{package}\n" in recipe
        assert f"!{package}" in let_through
    for source in re.findall(r"^COPY (.+) \./\S*$", recipe, re.MULTILINE):
        for name in source.split():
            assert (ROOT / name).exists(), name
