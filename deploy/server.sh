#!/usr/bin/env bash
# An MLflow server on a PostgreSQL of its own, without containers: deploy/server.sh FOLDER [PORT]
#
# FOLDER/postgres holds runs and registry, FOLDER/artifacts the models. The database has no network
# port: only this account reaches it, over a socket in the folder. SIGTERM and Ctrl-C end both.
# Needs Debian's `postgresql` and `pip install 'decodiff-pipeline[team]'`. HOST=0.0.0.0 lets other
# machines in; docs/team.md says what to put in front of it then.
set -euo pipefail

folder=$(mkdir -p "${1:?usage: deploy/server.sh FOLDER [PORT]}" && cd "$1" && pwd)
port=${2:-5000}
python=$(command -v "${PYTHON:-python}")
for bin in /usr/lib/postgresql/*/bin; do # Debian keeps them off the path
    PATH=$bin:$PATH
done
command -v initdb >/dev/null || { echo "There is no initdb: apt-get install postgresql" >&2; exit 1; }
"$python" -c 'import mlflow, psycopg' ||
    { echo "$python has no mlflow or psycopg: pip install 'decodiff-pipeline[team]'" >&2; exit 1; }

account=() owner=()
if [[ $EUID -eq 0 ]]; then # PostgreSQL refuses to run as root
    account=(setpriv --reuid=postgres --regid=postgres --init-groups)
    owner=(--owner=postgres)
fi
install --directory --mode=700 "${owner[@]}" "$folder/postgres" "$folder/socket"
[[ -s "$folder/postgres/PG_VERSION" ]] ||
    "${account[@]}" initdb --pgdata="$folder/postgres" --username="$(id -un)" --auth=peer \
        --encoding=UTF8 --locale=C.UTF-8 >/dev/null

cd /
"${account[@]}" postgres -D "$folder/postgres" -k "$folder/socket" -c listen_addresses= &
database=$!
end() {
    [[ -z "${server:-}" ]] || { kill -TERM "$server" && wait "$server"; } || true
    kill -INT "$database" && wait "$database" || true
} 2>/dev/null
trap end EXIT
trap 'exit 143' TERM
trap 'exit 130' INT
until pg_isready --quiet --host="$folder/socket"; do
    kill -0 "$database" # ends the script where PostgreSQL has ended
    sleep 0.2
done
createdb --host="$folder/socket" mlflow 2>/dev/null ||
    psql --host="$folder/socket" --command='' mlflow

"$python" -m mlflow server --host "${HOST:-127.0.0.1}" --port "$port" --workers "${WORKERS:-2}" \
    --backend-store-uri "postgresql+psycopg:///mlflow?host=$folder/socket" \
    --artifacts-destination "$folder/artifacts" &
server=$!
wait -n
