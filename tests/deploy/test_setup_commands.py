"""The set-up of a node: its commands as bash reads them, and, slowly, run on a bare environment."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.deploy.files import DEPLOY, LAUNCHER_FILES, ROOT, launcher

INSTALL = DEPLOY / "install.sh"
COMMANDS = (
    *("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands"),
    *("head_start_ray_commands", "worker_start_ray_commands"),
)


def bash(command: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], **environment}
    return subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_bash_can_read_every_command(name):
    config = launcher(name)
    for command in (each for field in COMMANDS for each in config.get(field, [])):
        subprocess.run(["bash", "-n", "-c", command], check=True)


@pytest.mark.parametrize("script", sorted(DEPLOY.rglob("*.sh")), ids=lambda script: script.name)
def test_bash_can_read_every_script(script):
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_installing_needs_to_be_told_for_which_device(tmp_path):
    done = bash(f"bash {INSTALL}", tmp_path)
    assert done.returncode == 1
    assert "the first word is ''; expected cpu, cuda or auto" in done.stderr


def test_installing_says_what_it_needs_where_there_is_no_python(tmp_path):
    done = bash(f"bash {INSTALL} cpu", tmp_path, PYTHON="python2.7")
    assert done.returncode == 1
    assert "no Python 3.11 to 3.13 with venv was found" in done.stderr


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_the_token_is_for_its_owner_only_and_every_shell_has_the_environment_once(name, tmp_path):
    (tmp_path / ".ray").mkdir(mode=0o755)
    token = tmp_path / ".ray/auth_token"
    token.write_text("not a real one")
    for _ in range(2):
        for command in launcher(name)["setup_commands"]:
            assert bash(command, tmp_path).returncode == 0
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert (tmp_path / ".bashrc").read_text() == ". ~/iql_ray/deploy/environment.sh\n"


def test_every_file_installs_by_the_one_script():
    for name in LAUNCHER_FILES:
        config = launcher(name)
        for command in (*config["head_setup_commands"], *config["worker_setup_commands"]):
            assert command.startswith("bash ~/iql_ray/deploy/install.sh auto ")
    assert 'deploy/install.sh "$TORCH"' in (DEPLOY / "Dockerfile").read_text()


@pytest.mark.slow
def test_a_bare_machine_is_set_up_by_the_commands_of_the_file_and_has_a_working_cluster_node(tmp_path):
    """Minutes of downloads: a new environment, the mounted files and nothing else, the commands as they stand."""
    config = launcher("deploy/on_premises.yaml")
    for remote, local in config["file_mounts"].items():
        target = tmp_path / remote.removeprefix("~/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if local == "~/.ray/auth_token":
            target.write_text("not a real one")
        else:
            subprocess.run(["cp", "-r", str(ROOT / local), str(target)], check=True)
    # As the node's own shells have it, and nothing of this process's environment but where packages come from.
    packages = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    commands = [*config["setup_commands"], *config["head_setup_commands"]]
    for command in commands:
        done = bash(command, tmp_path, **packages)
        assert done.returncode == 0, done.stderr
    done = bash(". ~/iql_ray/deploy/environment.sh; ray --version && iql-ray --help && pip check", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"ray, version {_pinned('ray')}" in done.stdout
    again = bash(commands[-1], tmp_path, **packages)
    assert again.stdout == f"iql-ray is installed in {tmp_path}/.iql_ray_venv\n"


def _pinned(package: str) -> str:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    (version,) = (line.removeprefix(f"{package}==") for line in lines if line.startswith(f"{package}=="))
    return version
