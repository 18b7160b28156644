#!/usr/bin/env bash
# The cluster's test: prepares a cluster and its images, runs the tests of this folder, and takes the cluster down.
#
#     make test-cluster [ARGS="--report=docs/cluster-test.md"]
#
# The cluster is, in this order:
#   - the one of KUBECONFIG. It needs a RuntimeClass `gvisor`, NetworkPolicies, a default StorageClass, and images that
#     it can pull: CODEALIGN_TEST_REGISTRY, as in `make images REGISTRY=...` and pushed. With KEDA, scaling is tested.
#   - a Kubernetes for one machine, from the folder CODEALIGN_CLUSTER_KIT (default ../shared/k8s). Images are built here
#     by Docker, which is installed where it is missing and this is root on Debian.
#
#     KEEP=1      leaves that Kubernetes up, with its images, for the next time
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-.venv/bin/python}
kit=${CODEALIGN_CLUSTER_KIT:-../shared/k8s}

say() { echo "[$SECONDS s] $*" >&2; }

own_cluster() {
    kit=$(cd "$kit" && pwd)
    if ! command -v docker >/dev/null || ! command -v debootstrap >/dev/null; then
        [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || { echo "images are built by Docker: install it" >&2; exit 2; }
        say "installing Docker"
        apt-get update -qq >/dev/null
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends docker.io debootstrap >/dev/null
    fi
    # What makes Kubernetes' programs and Docker's start is installed by the kit, where it is missing.
    say "bringing up Kubernetes, and building images beside it"
    logs=$(mktemp -d)
    K8S_ADDONS="dns metrics netpol keda" "$kit/up.sh" --install >"$logs/up" 2>&1 &
    up=$!
    docker_env=$(PYTHON=$python tests/docker.sh images 2>"$logs/images") || { tail -n 30 "$logs/images" >&2; exit 1; }
    eval "$docker_env"
    wait "$up" || { tail -n 30 "$logs/up" >&2; exit 1; }
    [ -n "${KEEP:-}" ] || trap take_down EXIT
    . "${K8S_RUN:-${TMPDIR:-/tmp}/codealign-k8s}/env"
    say "bringing the images into the cluster"
    # Together, so that what they share is carried once.
    docker save $(make --no-print-directory image-names) | "$kit/load-image.sh" - >"$logs/load" \
        || { tail -n 30 "$logs/load" >&2; exit 1; }
}

take_down() {
    "$kit/down.sh" >&2
    PYTHON=$python tests/docker.sh stop
}

if [ -n "${KUBECONFIG:-}" ]; then
    say "using the cluster of KUBECONFIG"
elif [ -x "$kit/up.sh" ]; then
    own_cluster
else
    echo "no cluster: set KUBECONFIG, or CODEALIGN_CLUSTER_KIT to a folder that brings one up" >&2
    exit 2
fi
for program in kubectl helm grpcurl; do
    command -v "$program" >/dev/null || { echo "the cluster's test needs $program on PATH" >&2; exit 2; }
done
# kubectl and helm keep caches in their user's home.
HOME=$(mktemp -d)
export HOME CODEALIGN_TEST_CLUSTER=1
say "testing"
"$python" -m pytest tests/cluster -x -v --timeout 600 "$@"
