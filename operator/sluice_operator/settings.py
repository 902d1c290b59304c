"""What the operator is told by its environment or command line; nothing else reads either."""

from __future__ import annotations

import socket
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, CliSettingsSource, NoDecode, SettingsConfigDict


class Settings(BaseSettings):
    """Environment first; each also as a flag (--watch-namespaces=a,b)."""

    model_config = SettingsConfigDict(
        frozen=True,
        cli_prog_name="python -m sluice_operator",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        env_ignore_empty=True,
    )

    watch_namespaces: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Namespaces to look after, comma-separated; all when empty."
    )
    server_image: str | None = Field(
        None, description="Image of the inference server for services whose spec names none."
    )
    poll_interval_seconds: float = Field(2.0, ge=0.1, le=60, description="How often pods are asked for /health.")
    poll_timeout_seconds: float = Field(1.0, gt=0, le=30, description="How long one pod may take to answer /health.")
    poll_concurrency: int = Field(64, ge=1, le=1024, description="How many pods are asked at the same time.")
    stale_after_seconds: float = Field(
        6.0,
        gt=0,
        description="How long an answer of a pod is believed; afterwards what the pod does is unknown.",
    )
    gate_writes_per_second: float = Field(
        10.0,
        ge=2,
        le=1000,
        description="How many gates overload and relief may move in any second, over all services; others wait.",
    )
    kube_timeout_seconds: float = Field(10.0, gt=0, description="How long one request to the API server may take.")
    resync_seconds: float = Field(
        60.0,
        gt=0,
        description="How often all objects are listed, to mend and to notice what the watches missed.",
    )
    leader_election: bool = Field(
        True,
        description="Act only while holding the lease; --no-leader-election where no other instance can be running.",
    )
    lease_name: str = Field("sluice-operator", min_length=1, description="Name of the lease.")
    lease_namespace: str = Field("default", min_length=1, description="Namespace of the lease.")
    lease_duration_seconds: int = Field(
        10, ge=2, le=300, description="How long a standby waits for a sign of life before it takes the lease."
    )
    lease_renew_deadline_seconds: float = Field(
        7.0, gt=0, description="How long the leader acts without a renewal that succeeded; below the duration."
    )
    lease_renew_interval_seconds: float = Field(
        2.0, gt=0, description="How often the leader renews; at most half the deadline. A standby looks twice as often."
    )
    http_port: int = Field(8080, ge=0, le=65535, description="Port of /healthz, /readyz and /metrics.")
    http_host: str = Field("0.0.0.0", description="Address that it listens on.")  # noqa: S104
    identity: str = Field(default_factory=socket.gethostname, description="Who this is, in Events.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least severe log line.")
    log_format: Literal["json", "text"] = Field("json", description="Format of the log.")

    @field_validator("watch_namespaces", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(name for name in (part.strip() for part in value.split(",")) if name)
        return value

    @model_validator(mode="after")
    def _check_lease(self) -> Self:
        if self.lease_renew_deadline_seconds >= self.lease_duration_seconds:
            raise ValueError(
                f"LEASE_RENEW_DEADLINE_SECONDS={self.lease_renew_deadline_seconds:g} must be below "
                f"LEASE_DURATION_SECONDS={self.lease_duration_seconds}: another may take the lease after that long"
            )
        if 2 * self.lease_renew_interval_seconds > self.lease_renew_deadline_seconds:
            raise ValueError(
                f"LEASE_RENEW_INTERVAL_SECONDS={self.lease_renew_interval_seconds:g} must be at most half of "
                f"LEASE_RENEW_DEADLINE_SECONDS={self.lease_renew_deadline_seconds:g}: "
                "one attempt that fails must not cost the lease"
            )
        return self


def from_command_line(arguments: list[str] | None = None) -> Settings:
    """Settings from environment and command line; `--help` lists them.

    Raises:
        pydantic.ValidationError: naming the setting, its value and what is allowed.
    """
    source: CliSettingsSource[Settings] = CliSettingsSource(Settings, cli_parse_args=arguments or [])
    return Settings(_cli_settings_source=source)
