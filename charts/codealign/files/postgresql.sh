# Creates the database at the first start, then runs the server. Works in any image with PostgreSQL's programs on PATH.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    umask 077
    # Remains of an interrupted first start contain no data.
    rm -rf "${PGDATA:?}.new"
    printf '%s' "$PASSWORD" >/tmp/password
    initdb --pgdata="$PGDATA.new" --username=codealign --pwfile=/tmp/password --auth=scram-sha-256 \
        --encoding=UTF8 --locale=C.UTF-8
    rm /tmp/password
    echo "CREATE DATABASE codealign OWNER codealign" \
        | postgres --single -D "$PGDATA.new" postgres >/dev/null
    echo "host all all all scram-sha-256" >>"$PGDATA.new/pg_hba.conf"
    mv "$PGDATA.new" "$PGDATA"
fi
# SIGINT is PostgreSQL's fast shutdown: it closes open sessions and needs no recovery. Kubernetes sends SIGTERM, which
# would wait for the dataset service's connections until the pod is killed.
trap 'kill -INT "$server"' TERM INT
postgres -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories=/tmp -c max_connections="$MAX_CONNECTIONS" &
server=$!
# The trap interrupts the first wait.
wait "$server" || wait "$server"
