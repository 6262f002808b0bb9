"""The files for Kubernetes, by its published schemas, and by KubeRay's fields, of which no package has a schema."""

from __future__ import annotations

import copy
import json
import tomllib
from importlib.resources import files
from typing import Any

import jsonschema
import pytest
import yaml
from ray.scripts.scripts import start
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from tests.deploy.files import CLOUD_FILES, KUBERAY_FILES, ROOT, calls_of_ray, launcher, manifests, ray_cluster

SCHEMAS = files("kubernetes_validate") / "kubernetes-json-schema/v1.31.0-local-strict"
DEFINITIONS = json.loads((SCHEMAS / "_definitions.json").read_text())
REGISTRY = Registry().with_resource("/api/_definitions.json", Resource.from_contents(DEFINITIONS, DRAFT202012))
PLAIN_FILES = (*KUBERAY_FILES, "deploy/mlflow/kubernetes.yaml")

# KubeRay's API reference, ray.io/v1, as of version 1.6. None: by Kubernetes' own schema.
TEMPLATE = None
AUTOSCALER_OPTIONS = {
    **{"version": str, "upscalingMode": str, "idleTimeoutSeconds": int, "resources": dict, "image": str},
    **{"imagePullPolicy": str, "env": list, "envFrom": list, "volumeMounts": list, "securityContext": dict},
}
GROUP = {"rayStartParams": dict, "template": TEMPLATE}
CLUSTER_SPEC = {
    "rayVersion": str,
    "authOptions": {"mode": str, "secretName": str, "enableK8sTokenAuth": bool},
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": AUTOSCALER_OPTIONS,
    "headServiceAnnotations": dict,
    "gcsFaultToleranceOptions": dict,
    "headGroupSpec": {**GROUP, "serviceType": str, "headService": dict, "enableIngress": bool},
    "workerGroupSpecs": [
        {
            **{**GROUP, "groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int},
            **{"numOfHosts": int, "scaleStrategy": dict, "idleTimeoutSeconds": int, "suspend": bool},
        }
    ],
    "suspend": bool,
    "managedBy": str,
}
JOB_SPEC = {
    **{"entrypoint": str, "runtimeEnvYAML": str, "jobId": str, "metadata": dict, "submissionMode": str},
    **{"shutdownAfterJobFinishes": bool, "ttlSecondsAfterFinished": int, "activeDeadlineSeconds": int},
    **{"backoffLimit": int, "submitterConfig": {"backoffLimit": int}, "submitterPodTemplate": TEMPLATE},
    **{"clusterSelector": dict, "managedBy": str, "deletionStrategy": dict, "suspend": bool},
    **{"entrypointNumCpus": float, "entrypointNumGpus": float, "entrypointResources": str},
    "rayClusterSpec": CLUSTER_SPEC,
}
KUBERAY = {"RayCluster": CLUSTER_SPEC, "RayJob": JOB_SPEC}


def schema_errors(value: Any, kind: str, path: str = "") -> list[str]:
    """What Kubernetes would refuse, unknown fields included; `kind` as kind-group-version."""
    schema = json.loads((SCHEMAS / f"{kind.lower()}.json").read_text())
    errors = jsonschema.Draft202012Validator(schema, registry=REGISTRY).iter_errors(value)
    return [f"{path}.{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in errors]


def field_errors(value: Any, expected: Any, path: str = "spec") -> list[str]:
    """Fields that KubeRay does not know, or of another type, and pod templates that Kubernetes would refuse."""
    if expected is TEMPLATE:
        return schema_errors(value, "podtemplatespec-v1", path)
    if isinstance(expected, list):
        return [line for i, each in enumerate(value) for line in field_errors(each, expected[0], f"{path}[{i}]")]
    if isinstance(expected, dict):
        unknown = [f"{path}.{name}: unknown" for name in value if name not in expected]
        known = (name for name in value if name in expected)
        return [
            *unknown,
            *(line for name in known for line in field_errors(value[name], expected[name], f"{path}.{name}")),
        ]
    return [] if type(value) is expected else [f"{path}: {value!r} is no {expected.__name__}"]


def groups() -> dict[str, dict[str, Any]]:
    spec = ray_cluster()
    return {"head": spec["headGroupSpec"], **{each["groupName"]: each for each in spec["workerGroupSpecs"]}}


def container(group: dict[str, Any]) -> dict[str, Any]:
    (only,) = group["template"]["spec"]["containers"]
    return only


@pytest.mark.parametrize("name", PLAIN_FILES)
def test_kubernetes_schemas_and_kuberays_fields_take_every_manifest(name):
    for manifest in manifests(name):
        if manifest["apiVersion"] == "ray.io/v1":
            assert set(manifest) == {"apiVersion", "kind", "metadata", "spec"}
            assert field_errors(manifest["spec"], KUBERAY[manifest["kind"]]) == []
        else:
            group = "" if manifest["apiVersion"] == "v1" else f"-{manifest['apiVersion'].split('.')[0].split('/')[0]}"
            assert schema_errors(manifest, f"{manifest['kind']}{group}-v1") == []
        assert manifest["metadata"]["namespace"] == "iql-ray"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda spec: spec.update(autoscaling=True), "spec.autoscaling: unknown"),
        (lambda spec: spec["workerGroupSpecs"][0].update(maxReplicas="20"), "is no int"),
        (lambda spec: container(spec["headGroupSpec"]).update(livenessprobe={}), "livenessprobe"),
        (lambda spec: container(spec["headGroupSpec"])["ports"][0].update(containerPort="6379"), "6379"),
    ],
)
def test_what_would_be_refused_is_found(change, message):
    spec = copy.deepcopy(ray_cluster())
    change(spec)
    assert message in "\n".join(field_errors(spec, CLUSTER_SPEC))


def test_a_jobs_own_cluster_is_the_cluster():
    (job,) = manifests(KUBERAY_FILES[1])
    assert job["spec"]["rayClusterSpec"] == ray_cluster()


@pytest.mark.parametrize("group", ["head", "rollout", "learner"])
def test_ray_takes_the_start_parameters(group):
    words = [f"--{name}={json.loads(value) if name == 'resources' else value}"
             for name, value in groups()[group]["rayStartParams"].items()]  # fmt: skip
    options = start.make_context("start", words).params
    assert (options["object_manager_port"], options["metrics_export_port"]) == (8076, 8080)
    if group == "head":
        assert (options["num_cpus"], options["num_gpus"]) == (0, 0)
        assert (options["ray_client_server_port"], options["dashboard_port"]) == (10001, 8265)
    else:
        assert json.loads(options["resources"]) == {f"iql_{group}": 1}


def test_every_port_asks_for_the_token_of_a_secret():
    assert ray_cluster()["authOptions"] == {"mode": "token", "secretName": "iql-ray-auth"}


def test_nothing_but_ray_itself_its_operator_and_the_metrics_collector_reaches_ray():
    (policy,) = (each for each in manifests(KUBERAY_FILES[0]) if each["kind"] == "NetworkPolicy")
    inside, collector = policy["spec"]["ingress"]
    assert all("podSelector" in each for each in inside["from"])
    assert [each["port"] for each in collector["ports"]] == [8080]
    assert ray_cluster()["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert "enableIngress" not in ray_cluster()["headGroupSpec"]


@pytest.mark.parametrize("group", ["head", "rollout", "learner"])
def test_pods_run_unprivileged_with_bounds_and_share_one_folder(group):
    pod, of_group = groups()[group]["template"]["spec"], container(groups()[group])
    assert pod["securityContext"]["runAsNonRoot"]
    assert of_group["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert of_group["resources"]["requests"] == of_group["resources"]["limits"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"]: mount["mountPath"] for mount in of_group["volumeMounts"]} == {
        "shared": "/mnt/iql_ray",
        "ray-files": "/tmp/ray",
        "object-store": "/dev/shm",
    }
    assert volumes == {"shared", "ray-files", "object-store"}


def test_a_head_that_is_ended_has_time_for_the_checkpoints_of_its_jobs():
    head = groups()["head"]["template"]["spec"]
    environment = {each["name"]: each.get("value") for each in container(groups()["head"])["env"]}
    assert head["terminationGracePeriodSeconds"] > int(environment["RAY_JOB_STOP_WAIT_TIME_S"] or 0) >= 60
    (command,) = (container(groups()["head"])["lifecycle"]["preStop"]["exec"]["command"][2:],)
    script = command[0].removeprefix("python /opt/iql_ray/source/")
    assert (ROOT / script).exists()
    assert script in (ROOT / "deploy/Dockerfile").read_text()


@pytest.mark.parametrize("name", CLOUD_FILES)
def test_roles_and_bounds_are_those_of_the_launcher_files(name):
    types = launcher(name)["available_node_types"]
    for role in ("rollout", "learner"):
        assert groups()[role]["maxReplicas"] == types[role]["max_workers"]
        assert groups()[role]["minReplicas"] == types[role]["min_workers"]
        assert f"iql_{role}" in types[role]["resources"]
    assert container(groups()["learner"])["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert ray_cluster()["autoscalerOptions"]["idleTimeoutSeconds"] == 60 * launcher(name)["idle_timeout_minutes"]


def test_pods_nodes_and_jobs_give_a_stopped_job_the_same_time(tmp_path):
    (_, of_node), *_ = calls_of_ray(launcher("cluster.yaml")["head_start_ray_commands"], tmp_path)
    environment = {each["name"]: each.get("value") for each in container(groups()["head"])["env"]}
    of_jobs = yaml.safe_load((ROOT / "runtime_env.yaml").read_text())["env_vars"]
    for name in ("RAY_JOB_STOP_WAIT_TIME_S", "RAY_USAGE_STATS_ENABLED", "MLFLOW_DISABLE_TELEMETRY"):
        assert environment[name] == of_node[name] == of_jobs[name]


def test_versions_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert ray_cluster()["rayVersion"] == pins["ray"]
    images = {group: container(each)["image"] for group, each in groups().items()}
    name = f"registry.example.com/iql-ray:{project['version']}"
    assert images == {"head": f"{name}-cpu", "rollout": f"{name}-cpu", "learner": f"{name}-cuda"}
    assert f"{name}-cpu" in (ROOT / "deploy/Dockerfile").read_text()
