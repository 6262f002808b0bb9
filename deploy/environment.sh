# Sourced by every shell of a cluster's node: the environment that install.sh built, and how Ray behaves there.
export PATH="${IQL_RAY_VENV:-$HOME/.iql_ray_venv}/bin:$PATH"
# Whoever has no token is refused, by every port that Ray opens.
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH="$HOME/.ray/auth_token"
# `ray job stop` gives a command this long to write its checkpoint and end its record; Ray's default is 3 s.
export RAY_JOB_STOP_WAIT_TIME_S=120
export RAY_USAGE_STATS_ENABLED=0
export MLFLOW_DISABLE_TELEMETRY=true
# Ray keeps a file open for every worker and every connection.
ulimit -n "$(ulimit -Hn)"
