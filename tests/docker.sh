#!/usr/bin/env bash
# Prepares Docker for tests: a daemon, and images on a base that can be had here.
#
#     eval "$(tests/docker.sh)"         # the runner's image; sets DOCKER_HOST and CODEALIGN_SANDBOX_IMAGE
#     eval "$(tests/docker.sh images)"  # the images of the cluster, by `make images`; sets DOCKER_HOST
#     tests/docker.sh stop              # ends a daemon that this script has started
#
# The Docker that is there is used as it is: nothing of a system's daemon is changed. Where none answers and this is
# root, a daemon of its own is started, with its socket and all of its data in one folder. The image's base is pulled,
# or made with debootstrap where it cannot be. To be called as often as one likes: what is there is kept.
#
#     CODEALIGN_DOCKER_DIR    that folder (default: a folder in the user's cache)
#     CODEALIGN_DOCKER_BASE   the images' base (default: the Dockerfiles' own)
#     PYTHON                  an interpreter with the project's packages (default: .venv's)
#
# Ends with 3 and a line that names the reason where Docker cannot be had here.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dir=${CODEALIGN_DOCKER_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/codealign/docker}
python=${PYTHON:-$root/.venv/bin/python}
image=codealign-sandbox-runner:test
made_base=codealign-test-base:2

say() { echo "docker.sh: $*" >&2; }
give_up() {
    say "$*"
    exit 3
}

stop() {
    local pid
    pid=$(cat "$dir/dockerd.pid" 2>/dev/null) || return 0
    # By what it runs, so that neither a reused number nor a zombie, whose command line is empty, counts as the daemon.
    runs() { grep -q dockerd "/proc/$pid/cmdline" 2>/dev/null; }
    if [ -n "$pid" ] && runs; then
        kill "$pid"
        while runs; do sleep 0.1; done
    fi
}

start_daemon() {
    [ "$(id -u)" = 0 ] || give_up "no Docker daemon answers, and only root can start one"
    for program in docker dockerd containerd; do
        command -v "$program" >/dev/null || give_up "no Docker daemon answers, and there is no $program: install docker.io"
    done
    local runsc
    runsc=$("$python" -c 'import sys; from pathlib import Path; from codealign.sandbox import gvisor
print(gvisor.locate(Path(sys.argv[1])).path)' "$(dirname "$dir")" | tail -n 1) || give_up "no runsc can be had"
    mkdir -p "$dir"
    cat >"$dir/daemon.json" <<JSON
{
  "hosts": ["unix://$dir/docker.sock"],
  "data-root": "$dir/data",
  "exec-root": "$dir/exec",
  "pidfile": "$dir/dockerd.pid",
  "iptables": false,
  "bridge": "none",
  "runtimes": {"runsc": {"path": "$runsc", "runtimeArgs": ["--platform=ptrace", "--ignore-cgroups", "--network=none"]}}
}
JSON
    say "starting a daemon in $dir"
    setsid dockerd --config-file "$dir/daemon.json" >"$dir/dockerd.log" 2>&1 </dev/null &
    for _ in $(seq 150); do
        if DOCKER_HOST=unix://$dir/docker.sock docker info >/dev/null 2>&1; then return; fi
        sleep 0.2
    done
    give_up "the daemon does not answer: $(tail -n 1 "$dir/dockerd.log")"
}

find_daemon() {
    # dockerd's own containerd has the socket's path, and with it the length of it, as a limit.
    if command -v docker >/dev/null && docker info >/dev/null 2>&1; then return; fi
    export DOCKER_HOST=unix://$dir/docker.sock
    if command -v docker >/dev/null && docker info >/dev/null 2>&1; then return; fi
    start_daemon
}

make_base() {
    [ "$(id -u)" = 0 ] && command -v debootstrap >/dev/null \
        || give_up "the base image cannot be pulled, and making one takes root and debootstrap"
    say "making a base image with debootstrap: one to three minutes"
    local folder mirror
    folder=$(mktemp -d)
    mirror=$("$python" -c 'from codealign.sandbox import debian; print(debian.machine_mirror())' 2>/dev/null || true)
    debootstrap --variant=minbase --include=python3,python3-pip,python3-venv,ca-certificates \
        bookworm "$folder" ${mirror:+"$mirror"} >/dev/null
    rm -rf "$folder"/var/cache/apt/*.bin "$folder"/var/cache/apt/archives/*.deb "$folder"/var/lib/apt/lists/*
    # Behind a proxy that signs for others, what this machine trusts is what a build on it must trust.
    cp -L /etc/ssl/certs/ca-certificates.crt "$folder/etc/ssl/certs/ca-certificates.crt" 2>/dev/null || true
    tar -C "$folder" -c . | docker import - "$made_base" >/dev/null
    rm -rf "$folder"
}

find_base() {
    base=${CODEALIGN_DOCKER_BASE:-}
    [ -z "$base" ] || return 0
    base=$(sed -n 's/^ARG BASE=//p' "$root/sandbox-runner/Dockerfile")
    if docker image inspect "$made_base" >/dev/null 2>&1; then
        base=$made_base
    elif ! docker image inspect "$base" >/dev/null 2>&1 && ! timeout 120 docker pull --quiet "$base" >&2; then
        make_base
        base=$made_base
    fi
}

# The CPU's torch, from where pip finds it on this machine: builds see no folders of it, so they are served to them.
build_images() {
    local where arguments="--network=host --build-arg BASE=$base"
    where=$("$python" "$root/tests/wheels.py" find)
    if [ -n "$where" ]; then
        local port
        # `exec`, so that what is killed in the end is the server.
        exec 3< <(exec "$python" "$root/tests/wheels.py" serve "$where")
        server=$!
        trap 'kill $server' EXIT
        read -r port <&3
        arguments+=" --build-arg PIP_FIND_LINKS=http://127.0.0.1:$port/"
    else
        arguments+=" --build-arg PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu"
    fi
    # Docker's older builder knows every Dockerfile of ours, and the newer is a plugin that is not everywhere.
    make -C "$root" --no-print-directory images IMAGE_ARGS="$arguments" >&2
}

case ${1:-} in
    stop)
        stop
        exit
        ;;
    images)
        find_daemon
        find_base
        build_images
        ;;
    *)
        find_daemon
        docker info --format '{{range $name, $_ := .Runtimes}}{{println $name}}{{end}}' | grep -qx runsc \
            || give_up "this Docker has no runtime runsc: see https://gvisor.dev/docs/user_guide/quick_start/docker/"
        find_base
        docker build --quiet --network=host --build-arg "BASE=$base" --file "$root/sandbox-runner/Dockerfile" \
            --tag "$image" "$root" >&2
        echo "export CODEALIGN_SANDBOX_IMAGE=$image"
        ;;
esac
[ -z "${DOCKER_HOST:-}" ] || echo "export DOCKER_HOST=$DOCKER_HOST"
