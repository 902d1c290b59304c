"""What the cluster is made of, pinned. A changed version is built anew beside the old one in the cache."""

import hashlib
import platform
from dataclasses import dataclass

from dev.paths import ROOT

KUBERNETES = "v1.34.4"
ETCD = "v3.6.4"
COREDNS = "v1.12.4"
HELM = "v3.18.6"
PAUSE = "v1"
VERSITYGW = "v1.8.0"
KWOK = "v0.7.0"

# Without these the API server calls itself v0.0.0-master, and Helm's kubeVersion checks fail.
_MAJOR, _MINOR = KUBERNETES.removeprefix("v").split(".")[:2]
_VERSION_PACKAGES = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
_KUBERNETES_LDFLAGS = "-s -w " + " ".join(
    f"-X {package}.gitVersion={KUBERNETES} -X {package}.gitMajor={_MAJOR} -X {package}.gitMinor={_MINOR}"
    for package in _VERSION_PACKAGES
)

# Helm renders charts offline for the Kubernetes that it is told about here.
_HELM_LDFLAGS = f"-s -w -X helm.sh/helm/v3/internal/version.version={HELM} " + " ".join(
    f"-X {package}.k8sVersionMajor={_MAJOR} -X {package}.k8sVersionMinor={_MINOR}"
    for package in ("helm.sh/helm/v3/pkg/chartutil", "helm.sh/helm/v3/pkg/lint/rules")
)


@dataclass(frozen=True, slots=True)
class Program:
    """One program of the cluster, built from a Go module.

    Attributes:
        name: Of the executable.
        version: Part of the key in the cache.
        package: Import path of its main package.
        module: Folder under dev/go whose go.mod and go.sum pin all that it is built from.
        ldflags: For the linker.
    """

    name: str
    version: str
    package: str
    module: str
    ldflags: str = "-s -w"

    @property
    def key(self) -> str:
        """The version for people, and a digest of all that the build depends on for the cache."""
        digest = hashlib.sha256(f"{platform.machine()} {self.package} {self.ldflags}".encode())
        for source in sorted((ROOT / "dev" / "go" / self.module).iterdir()):
            digest.update(f"\0{source.name}\0".encode() + source.read_bytes())
        return f"{self.version}-{digest.hexdigest()[:12]}"


def _kubernetes(name: str) -> Program:
    return Program(name, KUBERNETES, f"k8s.io/kubernetes/cmd/{name}", "kubernetes", _KUBERNETES_LDFLAGS)


CONTROL_PLANE = (
    Program("etcd", ETCD, "go.etcd.io/etcd/server/v3", "etcd"),
    *(_kubernetes(name) for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")),
)
NODE = (
    *(_kubernetes(name) for name in ("kubelet", "kube-proxy")),
    Program("coredns", COREDNS, "github.com/coredns/coredns", "coredns"),
    Program("helm", HELM, "helm.sh/helm/v3/cmd/helm", "helm", _HELM_LDFLAGS),
    Program("pause", PAUSE, ".", "pause"),
)
# Of no cluster: the S3 server that the tests load models from.
OBJECT_STORE = Program("versitygw", VERSITYGW, "github.com/versity/versitygw/cmd/versitygw", "versitygw")
# Of no cluster either: plays the nodes and pods of a crowd that no machine could run.
FAKE_NODES = Program(
    "kwok", KWOK, "sigs.k8s.io/kwok/cmd/kwok", "kwok", f"-s -w -X sigs.k8s.io/kwok/pkg/consts.Version={KWOK}"
)
