# Makes the database at the first start, and starts it. For any image with PostgreSQL's programs on PATH.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    umask 077
    # What a start that was cut short has left never held anything.
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
# SIGINT is PostgreSQL's fast stop: open sessions are ended, and nothing has to be replayed. Kubernetes sends SIGTERM,
# which would wait for the dataset service's connections until the pod is killed.
trap 'kill -INT "$server"' TERM INT
postgres -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories=/tmp -c max_connections="$MAX_CONNECTIONS" &
server=$!
# The trap ends the first wait.
wait "$server" || wait "$server"
