"""Keys, certificates and kubeconfigs, made once per state folder with openssl."""

import base64
import json
from pathlib import Path

from dev.cluster.files import write
from dev.cluster.layout import API_SERVICE_IP, NODE_NAME, Layout
from dev.console import run

_DAYS = "3650"
# Client identities: file name to (common name, organisation). Kubernetes' own roles are bound to these names.
CLIENTS = {
    "admin": ("sluice-admin", "system:masters"),
    "apiserver-kubelet-client": ("kube-apiserver-kubelet-client", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", "system:kube-controller-manager"),
    "scheduler": ("system:kube-scheduler", "system:kube-scheduler"),
    "kube-proxy": ("system:kube-proxy", "system:node-proxier"),
    "kubelet": (f"system:node:{NODE_NAME}", "system:nodes"),
    "coredns": ("sluice-coredns", "system:masters"),
}
WITH_KUBECONFIG = ("controller-manager", "scheduler", "kube-proxy", "kubelet", "coredns")


def subject_alternative_names(ip: str) -> str:
    """Every name under which a client may know the API server."""
    addresses = sorted({ip, "127.0.0.1", API_SERVICE_IP})
    names = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ]
    return ",".join([*(f"IP:{a}" for a in addresses), *(f"DNS:{n}" for n in names)])


def ensure_certificates(layout: Layout) -> None:
    """Makes what is missing; the mark is written last, so that a crash in between is made good."""
    mark = layout.pki / ".complete"
    if mark.exists():
        return
    layout.pki.mkdir(parents=True, exist_ok=True)
    layout.pki.chmod(0o700)
    _make_authority(layout.pki)
    _make_key(layout.pki / "service-account.key")
    run(
        [
            "openssl",
            "pkey",
            "-in",
            layout.pki / "service-account.key",
            "-pubout",
            "-out",
            layout.pki / "service-account.pub",
        ]
    )
    _sign(
        layout.pki,
        "apiserver",
        "/CN=kube-apiserver",
        f"subjectAltName={subject_alternative_names(layout.ip)}",
    )
    for name, (common_name, organisation) in CLIENTS.items():
        _sign(layout.pki, name, f"/O={organisation}/CN={common_name}", "extendedKeyUsage=clientAuth")
    for name in WITH_KUBECONFIG:
        _write_kubeconfig(layout, name, layout.pki / f"{name}.kubeconfig")
    _write_kubeconfig(layout, "admin", layout.kubeconfig)
    mark.touch()


def _make_authority(pki: Path) -> None:
    _make_key(pki / "ca.key")
    authority: list[str | Path] = [
        "-key",
        pki / "ca.key",
        "-subj",
        "/CN=sluice-local-ca",
        "-days",
        _DAYS,
        "-out",
        pki / "ca.crt",
    ]
    run(["openssl", "req", "-x509", "-new", *authority])


def _make_key(path: Path) -> None:
    run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", path])
    path.chmod(0o600)


def _sign(pki: Path, name: str, subject: str, extension: str) -> None:
    _make_key(pki / f"{name}.key")
    request = run(["openssl", "req", "-new", "-key", pki / f"{name}.key", "-subj", subject])
    extensions = pki / f"{name}.ext"
    extensions.write_text(extension + "\n")
    run(
        [
            "openssl", "x509", "-req", "-CA", pki / "ca.crt", "-CAkey", pki / "ca.key", "-CAcreateserial",
            "-days", _DAYS, "-extfile", extensions, "-out", pki / f"{name}.crt",
        ],
        stdin=request,
    )  # fmt: skip


def _write_kubeconfig(layout: Layout, name: str, path: Path) -> None:
    """JSON is YAML: no serializer is needed."""
    cluster = {"server": layout.api_url, "certificate-authority-data": _data(layout.pki / "ca.crt")}
    user = {
        "client-certificate-data": _data(layout.pki / f"{name}.crt"),
        "client-key-data": _data(layout.pki / f"{name}.key"),
    }
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "sluice",
        "clusters": [{"name": "sluice", "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": "sluice", "context": {"cluster": "sluice", "user": name}}],
    }
    write(path, json.dumps(config, indent=1), mode=0o600)


def _data(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
