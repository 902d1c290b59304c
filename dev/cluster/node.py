"""The node: kubelet, kube-proxy and CoreDNS."""

import json
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from dev.cluster.files import write
from dev.cluster.layout import CGROUP, CONTAINERD_SOCKET, DNS_SERVICE_IP, NODE_IP, NODE_NAME, POD_CIDR, Layout
from dev.cluster.processes import Daemon
from dev.console import DevError, run, succeeds

_KUBELET_HEALTH = 10248
_PROXY_HEALTH = 10256


def node_daemons(layout: Layout, binaries: Mapping[str, Path], enter: list[str]) -> list[Daemon]:
    """CoreDNS first, so that the first pod can resolve names; then the kubelet and kube-proxy."""
    corefile, kubelet, proxy = (
        layout.state / "Corefile",
        layout.state / "kubelet.json",
        layout.state / "kube-proxy.json",
    )
    write(corefile, _corefile(layout))
    write(kubelet, json.dumps(_kubelet_config(layout), indent=1))
    write(proxy, json.dumps(_proxy_config(layout), indent=1))
    _make_cgroup()
    kubectl = [str(binaries["kubectl"]), f"--kubeconfig={layout.kubeconfig}"]
    return [
        Daemon(
            "coredns",
            [*enter, str(binaries["coredns"]), f"-conf={corefile}"],
            lambda: succeeds([*enter, "bash", "-c", f"exec 3<>/dev/tcp/{NODE_IP}/53"]),
            files=[corefile],
        ),
        Daemon(
            "kubelet",
            [*enter, str(binaries["kubelet"]), f"--config={kubelet}", *_kubelet_flags(layout)],
            # The node's condition alone may still be that of a kubelet which is no more.
            lambda: answers(f"http://{NODE_IP}:{_KUBELET_HEALTH}/healthz") and is_node_ready(kubectl),
            within_seconds=120,
            files=[kubelet],
        ),
        Daemon(
            "kube-proxy",
            [*enter, str(binaries["kube-proxy"]), f"--config={proxy}", f"--hostname-override={NODE_NAME}"],
            lambda: answers(f"http://{NODE_IP}:{_PROXY_HEALTH}/healthz"),
            files=[proxy],
        ),
    ]


def answers(url: str) -> bool:
    """Whether an HTTP server says that it is well."""
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return bool(reply.status == 200)  # noqa: PLR2004
    except OSError:
        return False


def is_node_ready(kubectl: list[str]) -> bool:
    """Whether the node's own Ready condition is True."""
    path = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
    try:
        return run([*kubectl, "--request-timeout=5s", "get", "node", NODE_NAME, "-o", path]) == "True"
    except DevError:
        return False


def dns_service() -> list[Mapping[str, object]]:
    """Service kube-dns without a selector, pointing at the CoreDNS process on the node."""
    labels = {"kubernetes.io/service-name": "kube-dns"}
    ports = [
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
    ]
    service: dict[str, object] = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system"},
        "spec": {"clusterIP": DNS_SERVICE_IP, "ports": ports},
    }
    endpoints: dict[str, object] = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": labels},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [NODE_IP], "conditions": {"ready": True}}],
        "ports": ports,
    }
    return [service, endpoints]


def _make_cgroup() -> None:
    """Pods live below a cgroup of our own: taking the cluster down finds every process of theirs there."""
    top = Path("/sys/fs/cgroup")
    # Version 2 has one hierarchy for all controllers; version 1 has one folder for each.
    for hierarchy in [top] if (top / "cgroup.procs").exists() else top.iterdir():
        if (hierarchy / "cgroup.procs").exists():
            (hierarchy / CGROUP).mkdir(exist_ok=True)


def _corefile(layout: Layout) -> str:
    return f"""
.:53 {{
    bind {NODE_IP}
    errors
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {layout.pki / "coredns.kubeconfig"} sluice
        ttl 2
    }}
    loadbalance
}}
"""


def _kubelet_flags(layout: Layout) -> list[str]:
    return [
        f"--kubeconfig={layout.pki / 'kubelet.kubeconfig'}",
        f"--root-dir={layout.kubelet}",
        f"--hostname-override={NODE_NAME}",
        f"--node-ip={NODE_IP}",
        f"--cert-dir={layout.pki / 'kubelet'}",
    ]


def _kubelet_config(layout: Layout) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(layout.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{CGROUP}",
        "clusterDNS": [DNS_SERVICE_IP],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "enforceNodeAllocatable": [],
        # A full disk of the developer's is no reason to evict; the images must stay.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "failCgroupV1": False,
        "failSwapOn": False,
        "healthzBindAddress": NODE_IP,
        "healthzPort": _KUBELET_HEALTH,
        "imageGCHighThresholdPercent": 100,
        "maxPods": 60,
        "podCIDR": POD_CIDR,
        "podLogsDir": str(layout.pod_logs),
        "serializeImagePulls": False,
        "volumePluginDir": str(layout.kubelet / "volume-plugins"),
    }


def _proxy_config(layout: Layout) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "healthzBindAddress": f"{NODE_IP}:{_PROXY_HEALTH}",
        # A pod that is Ready answers on its Service's address soon after; the default waits a second.
        "iptables": {"minSyncPeriod": "100ms"},
        "clusterCIDR": "10.244.0.0/16",
        "clientConnection": {"kubeconfig": str(layout.pki / "kube-proxy.kubeconfig")},
        # Without CAP_SYS_RESOURCE the machine-wide limits stay as they are.
        "conntrack": {"maxPerCore": 0, "min": 0},
    }
