#!/usr/bin/env bash
# Installs iql-ray and what it stands on into a virtual environment of its own; every file in deploy/ calls this one.
#
#   bash deploy/install.sh cpu                  rollout nodes, the head, on-premises machines without a GPU
#   bash deploy/install.sh cuda                 nodes with a GPU
#   bash deploy/install.sh auto mujoco aws      cuda where nvidia-smi finds a GPU, else cpu; with extras of pyproject.toml
#
# IQL_RAY_VENV     where to (default ~/.iql_ray_venv)
# PYTHON           which Python, 3.11 to 3.13 (default: the first that is found and can make environments)
# TORCH_INDEX_URL  an index that offers the wanted build of torch (default: what pip is configured with)
#
# A second call with the same files and words does nothing; a changed constraints.txt or source installs again.
set -euo pipefail

source_folder="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="${IQL_RAY_VENV:-$HOME/.iql_ray_venv}"
stamp="$venv/.iql_ray_installed"

refuse() {
    echo "install.sh: $1" >&2
    exit 1
}

device="${1:-}"
if [ "$device" = auto ]; then
    device=cpu
    if nvidia-smi -L >/dev/null 2>&1; then device=cuda; fi
fi
[ "$device" = cpu ] || [ "$device" = cuda ] ||
    refuse "the first word is '$device'; expected cpu, cuda or auto: bash deploy/install.sh cpu"
shift
extras="cluster$(printf ',%s' "$@")"
extras="${extras%,}"

usable() {
    "$1" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

python="${PYTHON:-}"
if [ -z "$python" ]; then
    for candidate in python3.11 python3.12 python3.13 python3; do
        if usable "$candidate"; then
            python="$candidate"
            break
        fi
    done
fi
[ -n "$python" ] && usable "$python" ||
    refuse "no Python 3.11 to 3.13 with venv was found; install one (Ubuntu 24.04: apt-get install python3-venv), or name it as PYTHON=..."

# The sources themselves are part of it: what is mounted anew must be installed anew.
digest="$(cd "$source_folder" && {
    echo "$device $extras ${TORCH_INDEX_URL:-} $("$python" --version)"
    find pyproject.toml constraints.txt iql_ray pipelines -type f ! -path '*/__pycache__/*' -print0 |
        LC_ALL=C sort -z | xargs -0 sha256sum
} | sha256sum | cut -d' ' -f1)"
if [ "$(cat "$stamp" 2>/dev/null)" = "$digest" ]; then
    echo "iql-ray is installed in $venv"
    exit 0
fi
rm -f "$stamp"

"$python" -m venv "$venv"
pip() { "$venv/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }
pip install --upgrade "pip>=25.1"
# torch first, so that nothing that depends on it chooses another build.
pip install -c "$source_folder/constraints.txt" ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} torch
pip install -c "$source_folder/constraints.txt" "$source_folder[$extras]"
# The same version with other sources is another package: pip alone would leave the old one.
pip install --force-reinstall --no-deps "$source_folder"

build="$("$venv/bin/python" -c 'import torch; print(torch.version.cuda or "none")')"
[ "$device" = cpu ] || [ "$build" != none ] ||
    refuse "torch came without CUDA for a GPU node; set TORCH_INDEX_URL to an index that offers a CUDA build, delete $venv and start again"
[ "$device" = cuda ] || [ "$build" = none ] ||
    echo "install.sh: torch came with CUDA $build, gigabytes that this node has no use for; an index with a CPU build can be named as TORCH_INDEX_URL" >&2

echo "$digest" > "$stamp"
echo "iql-ray $("$venv/bin/python" -c 'import importlib.metadata as m; print(m.version("iql-ray"), "on Ray", m.version("ray"))') is installed in $venv"
