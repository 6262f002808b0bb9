"""The files for Ray's cluster launcher: what Ray's own schema, validator and command line say of them."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start

from tests.deploy.files import CLOUD_FILES, LAUNCHER_FILES, ROOT, calls_of_ray, launcher

SCHEMA = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
PORTS = {"object_manager_port": 8076, "metrics_export_port": 8080}
HEAD_PORTS = {"port": 6379, "ray_client_server_port": 10001, "dashboard_port": 8265, **PORTS}


def start_options(commands: Sequence[str], home: Path) -> dict[str, Any]:
    """What `ray start` is told by a node's start commands, read by Ray's own command."""
    (stop, _), (started, _) = calls_of_ray(list(commands), home)
    assert stop == ["stop"]
    assert started[0] == "start"
    return dict(start.make_context("start", started[1:]).params)


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_rays_schema_and_validator_take_the_file(name):
    config = launcher(name)
    jsonschema.validate(config, SCHEMA)
    validate_config(prepare_config(copy.deepcopy(config)))


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_a_misspelled_field_would_be_found(name):
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout"):
        jsonschema.validate({**launcher(name), "idle_timeout": 10}, SCHEMA)


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_the_head_opens_the_ports_that_the_documents_name_and_its_dashboard_to_itself(name, tmp_path):
    options = start_options(launcher(name)["head_start_ray_commands"], tmp_path)
    assert options["head"]
    assert {name: options[name] for name in HEAD_PORTS} == HEAD_PORTS
    assert options["dashboard_host"] == "127.0.0.1"
    assert options["autoscaling_config"] == "~/ray_bootstrap_config.yaml"  # written there by the launcher


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_the_head_runs_no_work(name, tmp_path):
    options = start_options(launcher(name)["head_start_ray_commands"], tmp_path)
    assert (options["num_cpus"], options["num_gpus"]) == (0, 0)


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_workers_join_the_head_that_the_launcher_names(name, tmp_path):
    options = start_options(launcher(name)["worker_start_ray_commands"], tmp_path)
    assert options["address"] == "10.0.0.1:6379"
    assert {name: options[name] for name in PORTS} == PORTS


@pytest.mark.parametrize("name", LAUNCHER_FILES)
@pytest.mark.parametrize("node", ["head", "worker"])
def test_every_node_asks_for_the_token_and_gives_a_stopped_job_time(name, node, tmp_path):
    for _, environment in calls_of_ray(launcher(name)[f"{node}_start_ray_commands"], tmp_path):
        assert environment["RAY_AUTH_MODE"] == "token"
        assert environment["RAY_AUTH_TOKEN_PATH"] == f"{tmp_path}/.ray/auth_token"
        assert int(environment["RAY_JOB_STOP_WAIT_TIME_S"]) >= 60
        assert environment["RAY_USAGE_STATS_ENABLED"] == "0"


@pytest.mark.parametrize(
    ("roles", "node", "resources"),
    [
        (None, "worker", {"iql_learner": 1, "iql_rollout": 1}),
        ('{"iql_learner": 1}\n', "worker", {"iql_learner": 1}),
        ('{"iql_learner": 1, "iql_rollout": 1}', "head", {"iql_learner": 1, "iql_rollout": 1}),
    ],
)
def test_a_machine_of_ones_own_says_which_roles_it_takes(roles, node, resources, tmp_path):
    if roles is not None:
        (tmp_path / ".iql_ray_roles").write_text(roles)
    options = start_options(launcher("deploy/on_premises.yaml")[f"{node}_start_ray_commands"], tmp_path)
    assert json.loads(options["resources"]) == resources
    assert options["num_cpus"] is None  # what Ray finds


@pytest.mark.parametrize("name", CLOUD_FILES)
def test_roles_are_node_types(name):
    types = launcher(name)["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0, "GPU": 0}
    assert types["rollout"]["resources"]["iql_rollout"] == 1
    assert types["rollout"]["resources"]["GPU"] == 0
    assert types["learner"]["resources"]["iql_learner"] == 1
    assert types["learner"]["resources"]["GPU"] == 1
    assert launcher(name)["head_node_type"] == "head"


@pytest.mark.parametrize("name", CLOUD_FILES)
def test_node_types_are_bounded_and_nothing_stays_when_nothing_runs(name):
    config = launcher(name)
    types = [each for each in config["available_node_types"].values() if "max_workers" in each]
    assert config["max_workers"] == sum(each["max_workers"] for each in types)
    assert [each["min_workers"] for each in types] == [0, 0]
    assert config["idle_timeout_minutes"] <= 10


def test_on_aws_rollout_is_on_spot_and_learners_are_not():
    types = {name: each["node_config"] for name, each in launcher("cluster.yaml")["available_node_types"].items()}
    assert types["rollout"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in types["learner"]


def test_on_aws_every_node_has_the_closed_security_group_an_encrypted_disk_and_a_role_of_its_own():
    types = {name: each["node_config"] for name, each in launcher("cluster.yaml")["available_node_types"].items()}
    for node in types.values():
        # Without one Ray makes a group of its own, which lets in SSH from everywhere.
        assert node["SecurityGroupIds"] == types["head"]["SecurityGroupIds"]
        (disk,) = node["BlockDeviceMappings"]
        assert disk["Ebs"]["Encrypted"]
        assert disk["Ebs"]["DeleteOnTermination"]
        assert node["MetadataOptions"]["HttpTokens"] == "required"
    assert types["head"]["IamInstanceProfile"]["Arn"].endswith("/iql-ray-head")
    assert {types[name]["IamInstanceProfile"]["Arn"].split("/")[1] for name in ("rollout", "learner")} == {
        "iql-ray-worker"
    }


def test_on_gcp_rollout_is_on_spot_and_learners_are_not():
    types = {name: each["node_config"] for name, each in launcher("deploy/gcp.yaml")["available_node_types"].items()}
    assert {"provisioningModel": "SPOT"} in types["rollout"]["scheduling"]
    assert not any("provisioningModel" in each for each in types["learner"]["scheduling"])


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_what_is_mounted_is_there_and_is_what_the_installation_needs(name):
    mounts = launcher(name)["file_mounts"]
    assert mounts.pop("~/.ray/auth_token") == "~/.ray/auth_token"
    for remote, local in mounts.items():
        assert remote == f"~/iql_ray/{local}"
        assert (ROOT / local).exists()
    assert set(mounts.values()) == {
        *("deploy", "iql_ray", "pipelines"),
        *("pyproject.toml", "constraints.txt", "README.md", "LICENSE"),
    }


def test_the_three_files_set_up_and_start_nodes_alike():
    aws, gcp, own = (launcher(name) for name in LAUNCHER_FILES)
    for field in ("file_mounts", "setup_commands", "worker_setup_commands", "rsync_exclude", "idle_timeout_minutes"):
        assert aws[field] == gcp[field] == own[field], field
    for field in ("head_start_ray_commands", "worker_start_ray_commands", "max_workers"):
        assert aws[field] == gcp[field], field
