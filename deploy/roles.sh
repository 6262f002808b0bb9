#!/usr/bin/env bash
# What `ray start` is told of a machine of one's own, as options; ~/.iql_ray_roles says it in JSON, for example
# {"iql_learner": 1}. Without that file a worker takes both roles, and the head no work at all.
set -euo pipefail
roles="$(cat ~/.iql_ray_roles 2>/dev/null | tr -d '[:space:]' || true)"
if [ -n "$roles" ]; then
    echo "--resources=$roles"
elif [ "${1:-}" = head ]; then
    echo "--num-cpus=0 --num-gpus=0"
else
    echo '--resources={"iql_learner":1,"iql_rollout":1}'
fi
