"""What the main process tells a front end: once at its start, then what changes. As JSON, so that a log shows it."""

import json
from dataclasses import asdict, dataclass

from sluice_server.backend import ModelInfo
from sluice_server.security import TlsFiles
from sluice_server.validation import RequestLimits


@dataclass(frozen=True, slots=True)
class FrontEndConfig:
    """All that a front end needs of the settings; secrets go through the socket only.

    Attributes:
        address: host:port, the same for all of them.
        limits: Of one request.
        tls: None listens in plain text.
        token: None asks for none.
    """

    address: str
    limits: RequestLimits
    tokenizer_threads: int
    max_message_bytes: int
    max_connection_age_seconds: int
    tls: TlsFiles | None
    token: str | None
    log_level: str
    log_format: str

    def encoded(self) -> bytes:
        """For read_config()."""
        values = asdict(self)
        if values["tls"] is not None:
            # PEM is ASCII, but what a person put around it may be anything.
            values["tls"] = {k: None if v is None else v.decode("latin-1") for k, v in values["tls"].items()}
        return json.dumps(values).encode()


def read_config(encoded: bytes) -> FrontEndConfig:
    """The same config."""
    values = json.loads(encoded)
    limits, tls = RequestLimits(**values.pop("limits")), values.pop("tls")
    if tls is not None:
        tls = TlsFiles(**{name: text and text.encode("latin-1") for name, text in tls.items()})
    return FrontEndConfig(**values, limits=limits, tls=tls)


@dataclass(frozen=True, slots=True)
class State:
    """What changes in a server's life.

    Attributes:
        is_serving: What gRPC health says.
        info: None until the model is warm.
        fingerprint: None until the model is warm.
    """

    is_serving: bool = False
    info: ModelInfo | None = None
    fingerprint: str | None = None

    def encoded(self) -> bytes:
        """For read_state()."""
        return json.dumps(asdict(self)).encode()


def read_state(encoded: bytes) -> State:
    """The same state."""
    values = json.loads(encoded)
    info = values.pop("info")
    return State(**values, info=None if info is None else ModelInfo(**info))
