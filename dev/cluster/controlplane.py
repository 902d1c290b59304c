"""etcd, the API server, the controllers and the scheduler."""

from collections.abc import Callable, Mapping
from pathlib import Path

from dev.cluster.layout import SERVICE_CIDR, Layout, Mode
from dev.cluster.processes import Daemon
from dev.console import succeeds


def control_plane(layout: Layout, binaries: Mapping[str, Path], enter: list[str]) -> list[Daemon]:
    """The daemons of the control plane in their order.

    Args:
        layout: Where they live.
        binaries: Programs by name.
        enter: Command prefix that runs a program in the cluster's network namespace; empty for the host's.
    """

    def get(path: str) -> Callable[[], bool]:
        command = [
            str(binaries["kubectl"]),
            f"--kubeconfig={layout.kubeconfig}",
            "--request-timeout=2s",
            "get",
            "--raw",
            path,
        ]
        return lambda: succeeds(command)

    def listens(port: int) -> Callable[[], bool]:
        return lambda: succeeds([*enter, "bash", "-c", f"exec 3<>/dev/tcp/{layout.ip}/{port}"])

    return [
        Daemon("etcd", [*enter, str(binaries["etcd"]), *_etcd(layout)], listens(layout.ports.etcd)),
        Daemon("kube-apiserver", [*enter, str(binaries["kube-apiserver"]), *_api_server(layout)], get("/readyz")),
        Daemon(
            "kube-controller-manager",
            [*enter, str(binaries["kube-controller-manager"]), *_controller_manager(layout)],
            listens(layout.ports.controller_manager),
        ),
        Daemon(
            "kube-scheduler",
            [*enter, str(binaries["kube-scheduler"]), *_scheduler(layout)],
            listens(layout.ports.scheduler),
        ),
    ]


def _etcd(layout: Layout) -> list[str]:
    client = f"http://{layout.ip}:{layout.ports.etcd}"
    peer = f"http://{layout.ip}:{layout.ports.etcd_peer}"
    return [
        f"--data-dir={layout.state / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        # A cluster for development: speed counts, a power cut does not.
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def _api_server(layout: Layout) -> list[str]:
    pki = layout.pki
    kubelet = [
        "--kubelet-preferred-address-types=InternalIP",
        f"--kubelet-client-certificate={pki / 'apiserver-kubelet-client.crt'}",
        f"--kubelet-client-key={pki / 'apiserver-kubelet-client.key'}",
    ]
    return [
        f"--etcd-servers=http://{layout.ip}:{layout.ports.etcd}",
        f"--bind-address={layout.ip}",
        f"--advertise-address={layout.ip}",
        f"--secure-port={layout.ports.api}",
        f"--service-cluster-ip-range={SERVICE_CIDR}",
        "--authorization-mode=Node,RBAC",
        "--allow-privileged=true",
        f"--client-ca-file={pki / 'ca.crt'}",
        f"--tls-cert-file={pki / 'apiserver.crt'}",
        f"--tls-private-key-file={pki / 'apiserver.key'}",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={pki / 'service-account.pub'}",
        f"--service-account-signing-key-file={pki / 'service-account.key'}",
        # A control plane on loopback has no address that pods could use for the API.
        *(kubelet if layout.mode is Mode.FULL else ["--endpoint-reconciler-type=none"]),
    ]


def _controller_manager(layout: Layout) -> list[str]:
    kubeconfig = layout.pki / "controller-manager.kubeconfig"
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        f"--bind-address={layout.ip}",
        f"--secure-port={layout.ports.controller_manager}",
        f"--service-account-private-key-file={layout.pki / 'service-account.key'}",
        f"--root-ca-file={layout.pki / 'ca.crt'}",
        f"--cert-dir={layout.pki}",
        "--use-service-account-credentials=true",
        "--leader-elect=false",
        # A control plane alone has no kubelet of its own: who plays one need not be back first after an outage.
        *([] if layout.mode is Mode.FULL else ["--node-monitor-grace-period=300s"]),
    ]


def _scheduler(layout: Layout) -> list[str]:
    kubeconfig = layout.pki / "scheduler.kubeconfig"
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        f"--bind-address={layout.ip}",
        f"--secure-port={layout.ports.scheduler}",
        f"--cert-dir={layout.pki}",
        "--leader-elect=false",
    ]
