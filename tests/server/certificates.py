"""A certificate authority of the tests' own."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from sluice_client import ChannelOptions


@dataclass(frozen=True, slots=True)
class Certificates:
    """A server's certificate for 127.0.0.1 and a client's, with who signed them, as PEM files."""

    folder: Path

    @property
    def server_settings(self) -> dict[str, str]:
        """Mutual TLS."""
        return {
            "tls_cert_file": str(self.folder / "server.pem"),
            "tls_key_file": str(self.folder / "server.key"),
            "tls_client_ca_file": str(self.folder / "ca.pem"),
        }

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def client(self, *, token: str | None, with_certificate: bool = True) -> ChannelOptions:
        pair = (self.read("client.key"), self.read("client.pem")) if with_certificate else (None, None)
        return ChannelOptions(self.read("ca.pem"), *pair, bearer_token=token)


def make_certificates(folder: Path) -> Certificates:
    """Valid for two days."""
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    _openssl("req", "-x509", *key, "-subj", "/CN=ca", "-keyout", folder / "ca.key", "-out", folder / "ca.pem")
    for name in ("server", "client"):
        _openssl(
            "req", "-x509", *key, "-subj", f"/CN={name}", "-CA", folder / "ca.pem", "-CAkey", folder / "ca.key",
            "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem",
        )  # fmt: skip
    return Certificates(folder)


def _openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
