"""Whether TLS files can be used, before anything is loaded."""

import ssl
from pathlib import Path


def check(certificate: str | None, key: str | None, client_authority: str | None) -> None:
    """Reads the files as a server would.

    Raises:
        ValueError: A file cannot be read, or is not what it should be; names the setting and the file.
    """
    given = (("TLS_CERT_FILE", certificate), ("TLS_KEY_FILE", key), ("TLS_CLIENT_CA_FILE", client_authority))
    for name, path in given:
        if path is not None:
            _read(name, path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if certificate is not None and key is not None:
        try:
            # Never asks for a password on a terminal.
            context.load_cert_chain(certificate, key, password=lambda: "")
        except ssl.SSLError as error:
            raise ValueError(
                f"TLS_CERT_FILE={certificate}, TLS_KEY_FILE={key}: {error.reason or error}; expected a certificate "
                "chain and its private key in PEM, without a password"
            ) from None
    if client_authority is not None:
        try:
            context.load_verify_locations(client_authority)
        except ssl.SSLError as error:
            raise ValueError(
                f"TLS_CLIENT_CA_FILE={client_authority}: {error.reason or error}; expected certificates in PEM"
            ) from None


def _read(name: str, path: str) -> None:
    try:
        Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{name}={path}: {error.strerror}; expected a PEM file that can be read") from None
