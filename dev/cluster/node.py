"""The node: kubelet, kube-proxy and CoreDNS."""

import json
from collections.abc import Mapping
from pathlib import Path

from dev.cluster.containers import CGROUP, SOCKET
from dev.cluster.layout import DNS_SERVICE_IP, NODE_IP, NODE_NAME, POD_CIDR, Layout
from dev.cluster.processes import Daemon
from dev.console import DevError, run, succeeds


def node_daemons(layout: Layout, binaries: Mapping[str, Path], enter: list[str]) -> list[Daemon]:
    """CoreDNS first, so that the first pod can resolve names; then the kubelet and kube-proxy."""
    corefile, kubelet, proxy = (
        layout.state / "Corefile",
        layout.state / "kubelet.json",
        layout.state / "kube-proxy.json",
    )
    corefile.write_text(_corefile(layout))
    kubelet.write_text(json.dumps(_kubelet_config(layout), indent=1))
    proxy.write_text(json.dumps(_proxy_config(layout), indent=1))
    _make_cgroup()
    kubectl = [str(binaries["kubectl"]), f"--kubeconfig={layout.kubeconfig}"]
    return [
        Daemon(
            "coredns",
            [*enter, str(binaries["coredns"]), f"-conf={corefile}"],
            lambda: succeeds([*enter, "bash", "-c", f"exec 3<>/dev/tcp/{NODE_IP}/53"]),
        ),
        Daemon(
            "kubelet",
            [
                *enter, str(binaries["kubelet"]), f"--config={kubelet}",
                f"--kubeconfig={layout.pki / 'kubelet.kubeconfig'}", f"--root-dir={kubelet_folder(layout)}",
                f"--hostname-override={NODE_NAME}", f"--node-ip={NODE_IP}", f"--cert-dir={layout.pki / 'kubelet'}",
            ],
            lambda: is_node_ready(kubectl),
            within_seconds=120,
        ),
        Daemon(
            "kube-proxy",
            [*enter, str(binaries["kube-proxy"]), f"--config={proxy}", f"--hostname-override={NODE_NAME}"],
            lambda: "KUBE-SERVICES" in run([*enter, "iptables", "-t", "nat", "-S"]),
        ),
    ]  # fmt: skip


def kubelet_folder(layout: Layout) -> Path:
    """The kubelet's root; it mounts the volumes of pods below."""
    return layout.state / "kubelet"


def is_node_ready(kubectl: list[str]) -> bool:
    """Whether the node's own Ready condition is True."""
    path = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
    try:
        return run([*kubectl, "--request-timeout=5s", "get", "node", NODE_NAME, "-o", path]) == "True"
    except DevError:
        return False


def dns_service() -> list[dict[str, object]]:
    """Service kube-dns without a selector, pointing at the CoreDNS process on the node."""
    labels = {"kubernetes.io/service-name": "kube-dns"}
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
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
    for controller in Path("/sys/fs/cgroup").iterdir():
        if (controller / "cgroup.procs").exists():
            (controller / CGROUP).mkdir(exist_ok=True)


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
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "enforceNodeAllocatable": [],
        # A full disk of the developer's is no reason to evict; the images must stay.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "failCgroupV1": False,
        "failSwapOn": False,
        "imageGCHighThresholdPercent": 100,
        "maxPods": 60,
        "podCIDR": POD_CIDR,
        "serializeImagePulls": False,
    }


def _proxy_config(layout: Layout) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clusterCIDR": "10.244.0.0/16",
        "clientConnection": {"kubeconfig": str(layout.pki / "kube-proxy.kubeconfig")},
        # Without CAP_SYS_RESOURCE the machine-wide limits stay as they are.
        "conntrack": {"maxPerCore": 0, "min": 0},
    }
