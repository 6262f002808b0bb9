#!/usr/bin/env bash
# Starts MLflow's server on PostgreSQL, with artifacts in an object store and a password asked of everyone.
# compose.yaml and kubernetes.yaml run it; what it takes from the environment stands in example.env.
set -euo pipefail

for name in MLFLOW_ARTIFACTS MLFLOW_AUTH_ADMIN_PASSWORD MLFLOW_FLASK_SERVER_SECRET_KEY; do
    if [ -z "${!name:-}" ]; then
        echo "server.sh: $name is not set; copy deploy/mlflow/example.env to deploy/mlflow/.env and fill it in" >&2
        exit 1
    fi
done
database="${MLFLOW_DATABASE:-postgresql+psycopg://mlflow:${POSTGRES_PASSWORD:?is not set}@${POSTGRES_HOST:-postgresql}:5432/mlflow}"

# MLflow reads where its users are from a file only; the password in it stays within this container.
umask 077
folder="$(mktemp -d)"
cat > "$folder/auth.ini" <<END
[mlflow]
default_permission = ${MLFLOW_DEFAULT_PERMISSION:-READ}
database_uri = $database
admin_username = admin
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
END
export MLFLOW_AUTH_CONFIG_PATH="$folder/auth.ini"
export MLFLOW_DISABLE_TELEMETRY=true
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false # ten processes and 1.6 GB less to keep

# Clients send and fetch artifacts through the server, so that only the server holds rights to the store.
exec mlflow server --app-name basic-auth --backend-store-uri "$database" \
    --artifacts-destination "$MLFLOW_ARTIFACTS" --default-artifact-root mlflow-artifacts:/ \
    --host "${MLFLOW_BIND:-127.0.0.1}" --port "${MLFLOW_PORT:-5000}" --workers "${MLFLOW_WORKERS:-2}" \
    --allowed-hosts "${MLFLOW_ALLOWED_HOSTS:-localhost:*,127.0.0.1:*}"
