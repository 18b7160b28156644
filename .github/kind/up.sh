#!/usr/bin/env bash
# Start a kind cluster with gVisor and KEDA, with this checkout's images loaded, for `make test-cluster`.
#
#     .github/kind/up.sh
#     KUBECONFIG=${RUNNER_TEMP:-/tmp}/kubeconfig make test-cluster
#     kind delete cluster --name codealign
#
# Needs docker, kubectl, helm, curl and sudo. kind, grpcurl and gVisor are downloaded: each release is pinned here, and
# what its publisher gives a checksum for is verified.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
kind_release=v0.31.0
grpcurl_release=1.9.3
keda_release=2.18.1
name=codealign
export KUBECONFIG=${RUNNER_TEMP:-/tmp}/kubeconfig

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
get() { curl --fail --silent --show-error --location --retry 3 --output "$work/$1" "$2"; }

get kind-linux-amd64 "https://kind.sigs.k8s.io/dl/$kind_release/kind-linux-amd64"
get kind-linux-amd64.sha256sum "https://kind.sigs.k8s.io/dl/$kind_release/kind-linux-amd64.sha256sum"
(cd "$work" && sha256sum --check --quiet kind-linux-amd64.sha256sum)
sudo install -m 755 "$work/kind-linux-amd64" /usr/local/bin/kind

get grpcurl.tar.gz \
    "https://github.com/fullstorydev/grpcurl/releases/download/v$grpcurl_release/grpcurl_${grpcurl_release}_linux_x86_64.tar.gz"
tar -C "$work" -xzf "$work/grpcurl.tar.gz" grpcurl
sudo install -m 755 "$work/grpcurl" /usr/local/bin/grpcurl

.github/gvisor.sh "$work"

kind create cluster --name "$name" --config .github/kind/kind.yaml --wait 180s
node=$name-control-plane
for file in runsc containerd-shim-runsc-v1; do
    docker cp "$work/$file" "$node:/usr/local/bin/$file"
done
kubectl apply --filename - <<'YAML'
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: gvisor}
handler: runsc
YAML

helm install keda keda --repo https://kedacore.github.io/charts --version "$keda_release" \
    --namespace keda --create-namespace --wait --timeout 5m

make images IMAGE_ARGS="--build-arg PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu"
for image in $(make --no-print-directory image-names); do
    kind load docker-image --name "$name" "$image"
done
