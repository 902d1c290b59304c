"""What the cluster is made of, pinned. A changed version is built anew beside the old one in the cache."""

from dataclasses import dataclass

KUBERNETES = "v1.34.4"
ETCD = "v3.6.4"
COREDNS = "v1.12.4"
HELM = "v3.18.6"
PAUSE = "1"

# Without these the API server calls itself v0.0.0-master, and Helm's kubeVersion checks fail.
_MAJOR, _MINOR = KUBERNETES.removeprefix("v").split(".")[:2]
_VERSION_PACKAGES = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
_KUBERNETES_LDFLAGS = "-s -w " + " ".join(
    f"-X {package}.gitVersion={KUBERNETES} -X {package}.gitMajor={_MAJOR} -X {package}.gitMinor={_MINOR}"
    for package in _VERSION_PACKAGES
)


@dataclass(frozen=True, slots=True)
class Program:
    """One program of the cluster, built from a Go module.

    Attributes:
        name: Of the executable.
        version: Part of the key in the cache.
        package: Import path of its main package.
        module: Folder under dev/go whose go.mod and go.sum pin it; None installs package@version.
        ldflags: For the linker.
    """

    name: str
    version: str
    package: str
    module: str | None = None
    ldflags: str = "-s -w"


def _kubernetes(name: str) -> Program:
    return Program(name, KUBERNETES, f"k8s.io/kubernetes/cmd/{name}", "kubernetes", _KUBERNETES_LDFLAGS)


CONTROL_PLANE = (
    Program("etcd", ETCD, "go.etcd.io/etcd/server/v3", "etcd"),
    *(_kubernetes(name) for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")),
)
NODE = (
    *(_kubernetes(name) for name in ("kubelet", "kube-proxy")),
    Program("coredns", COREDNS, "github.com/coredns/coredns"),
    Program("helm", HELM, "helm.sh/helm/v3/cmd/helm"),
    Program("pause", PAUSE, ".", "pause"),
)
