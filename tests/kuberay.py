"""A JSON schema of KubeRay's RayCluster and RayJob, as far as we know their fields.

KubeRay's own custom resource definitions are not in any package that we install, and a megabyte each. This schema is
written from its API reference (group ray.io/v1, KubeRay 1.3; `authOptions` from that of 1.6.2; SidecarMode from the
notes on 1.5). Fields that it does not name are refused, like a strict API server would;
a field that is newer than that reference has to be added here first. What is Kubernetes' own (pod templates, services,
claims) is checked against Kubernetes' own schema, tests/data/kubernetes-1.34.json.
"""

import json
from pathlib import Path
from typing import Any

import jsonschema

KUBERNETES: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "kubernetes-1.34.json").read_text())

_STRING, _BOOLEAN, _NUMBER = {"type": "string"}, {"type": "boolean"}, {"type": "number"}
_COUNT = {"type": "integer", "minimum": 0, "maximum": (1 << 31) - 1}
_STRINGS = {"type": "object", "additionalProperties": _STRING}


def _object(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _core(kind: str) -> dict[str, str]:
    return {"$ref": f"#/$defs/io.k8s.api.core.v1.{kind}"}


_META = {"$ref": "#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}
_CREDENTIAL = _object(value=_STRING, valueFrom=_core("EnvVarSource"))

_AUTOSCALER_OPTIONS = _object(
    resources=_core("ResourceRequirements"),
    image=_STRING,
    imagePullPolicy={"enum": ["Always", "IfNotPresent", "Never"]},
    securityContext=_core("SecurityContext"),
    idleTimeoutSeconds=_COUNT,
    upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
    version={"enum": ["v1", "v2"]},
    env={"type": "array", "items": _core("EnvVar")},
    envFrom={"type": "array", "items": _core("EnvFromSource")},
    volumeMounts={"type": "array", "items": _core("VolumeMount")},
)

_HEAD_GROUP = _object(
    ("template",),
    template=_core("PodTemplateSpec"),
    headService=_core("Service"),
    enableIngress=_BOOLEAN,
    rayStartParams=_STRINGS,
    serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
)

_WORKER_GROUP = _object(
    ("groupName", "template", "minReplicas", "maxReplicas"),
    suspend=_BOOLEAN,
    groupName=_STRING,
    replicas=_COUNT,
    minReplicas=_COUNT,
    maxReplicas=_COUNT,
    idleTimeoutSeconds=_COUNT,
    rayStartParams=_STRINGS,
    template=_core("PodTemplateSpec"),
    scaleStrategy=_object(workersToDelete={"type": "array", "items": _STRING}),
    numOfHosts=_COUNT,
)

_CLUSTER_SPEC = _object(
    ("headGroupSpec",),
    suspend=_BOOLEAN,
    managedBy={"enum": ["ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"]},
    autoscalerOptions=_AUTOSCALER_OPTIONS,
    authOptions=_object(mode={"enum": ["disabled", "token"]}, secretName=_STRING, enableK8sTokenAuth=_BOOLEAN),
    headServiceAnnotations=_STRINGS,
    enableInTreeAutoscaling=_BOOLEAN,
    gcsFaultToleranceOptions=_object(
        redisUsername=_CREDENTIAL, redisPassword=_CREDENTIAL, externalStorageNamespace=_STRING, redisAddress=_STRING
    ),
    headGroupSpec=_HEAD_GROUP,
    rayVersion=_STRING,
    workerGroupSpecs={"type": "array", "items": _WORKER_GROUP},
)

_DELETION = _object(("policy",), policy={"enum": ["DeleteCluster", "DeleteWorkers", "DeleteSelf", "DeleteNone"]})

_JOB_SPEC = _object(
    activeDeadlineSeconds={**_COUNT, "minimum": 1},
    backoffLimit=_COUNT,
    rayClusterSpec=_CLUSTER_SPEC,
    submitterPodTemplate=_core("PodTemplateSpec"),
    metadata=_STRINGS,
    clusterSelector=_STRINGS,
    submitterConfig=_object(backoffLimit=_COUNT),
    managedBy={"enum": ["ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"]},
    deletionStrategy=_object(("onSuccess", "onFailure"), onSuccess=_DELETION, onFailure=_DELETION),
    entrypoint=_STRING,
    runtimeEnvYAML=_STRING,
    jobId=_STRING,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
    entrypointResources=_STRING,
    entrypointNumCpus=_NUMBER,
    entrypointNumGpus=_NUMBER,
    ttlSecondsAfterFinished=_COUNT,
    shutdownAfterJobFinishes=_BOOLEAN,
    suspend=_BOOLEAN,
)


def _kind(group_version: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    names = {"apiVersion": {"const": group_version}, "kind": {"const": kind}, "metadata": _META, "spec": spec}
    return _object(("apiVersion", "kind", "metadata", "spec"), **names)


SCHEMAS = {
    "RayCluster": _kind("ray.io/v1", "RayCluster", _CLUSTER_SPEC),
    "RayJob": _kind("ray.io/v1", "RayJob", _JOB_SPEC),
    "PersistentVolumeClaim": _core("PersistentVolumeClaim"),
}


def problems(manifest: dict[str, Any]) -> list[str]:
    """What is wrong with one Kubernetes object, each as "path: what"; empty if nothing is."""
    schema = {**SCHEMAS[manifest["kind"]], "$defs": KUBERNETES["$defs"]}
    errors = jsonschema.Draft202012Validator(schema).iter_errors(manifest)
    return [f"{error.json_path}: {error.message}" for error in errors]
