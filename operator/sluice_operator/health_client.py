"""Asks pods for /health: concurrently within a bound, each within a time-out, believing nothing.

A pod that is silent, slow or speaks garbage yields None, never an exception: it is one stale pod.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import aiohttp
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sluice_operator import metrics
from sluice_operator.values import Health

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sluice_operator.values import Pod

log = logging.getLogger(__name__)

_MAX_DOCUMENT_BYTES = 65_536

Count = Annotated[int, Field(ge=0)]
Measure = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Phase = Literal["starting", "downloading", "loading", "warming", "serving", "draining", "failed"]


class _PhaseDocument(BaseModel):
    name: Phase
    reason: str | None
    step: Count | None
    steps: Count | None


class _ModelDocument(BaseModel):
    revision: str | None
    fingerprint: str | None


class _Document(BaseModel):
    """The part of proto/health.schema.json that the operator uses; further keys are a newer server's."""

    model_config = ConfigDict(strict=True, extra="ignore")

    status: Literal["healthy", "degraded", "overloaded"]
    accepting_requests: bool
    queued_tokens: Count
    service_rate_tokens_per_sec: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None
    estimated_drain_time_ms: Measure | None
    busy_fraction: Annotated[float, Field(ge=0, le=1)] | None
    offered_tokens_total: Count
    embedding_dimension: Annotated[int, Field(ge=1)] | None
    boot_id: Annotated[str, Field(min_length=1)]
    phase: _PhaseDocument
    model: _ModelDocument


def parse(document: Any) -> Health:
    """The /health document as a value.

    Raises:
        ValueError: naming what is missing or out of range.
    """
    read = _Document.model_validate(document)
    return Health(
        boot_id=read.boot_id,
        phase=read.phase.name,
        phase_reason=read.phase.reason,
        phase_step=read.phase.step,
        phase_steps=read.phase.steps,
        is_accepting=read.accepting_requests,
        status=read.status,
        queued_tokens=read.queued_tokens,
        service_rate=read.service_rate_tokens_per_sec,
        drain_milliseconds=read.estimated_drain_time_ms,
        busy_fraction=read.busy_fraction,
        offered_tokens_total=read.offered_tokens_total,
        dimension=read.embedding_dimension,
        model_revision=read.model.revision,
        model_fingerprint=read.model.fingerprint,
    )


class HealthClient:
    """One connection pool for all pods of all services."""

    def __init__(self, *, timeout_seconds: float, concurrency: int) -> None:
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._slots = asyncio.Semaphore(concurrency)
        # Pods come and go and are asked every few seconds: a kept connection each, closed when long idle.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=15), trust_env=False
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def poll(self, pods: Iterable[Pod]) -> dict[str, Health]:
        """What each pod that can be asked answers, by pod uid; pods without a usable answer are left out."""
        asked = [pod for pod in pods if pod.ip is not None and pod.is_running]
        answers = await asyncio.gather(*(self._ask(pod) for pod in asked))
        heard = sum(health is not None for health in answers)
        metrics.POLLS.labels(outcome="ok").inc(heard)
        metrics.POLLS.labels(outcome="failed").inc(len(answers) - heard)
        return {pod.uid: health for pod, health in zip(asked, answers, strict=True) if health is not None}

    async def _ask(self, pod: Pod) -> Health | None:
        host = f"[{pod.ip}]" if pod.ip is not None and ":" in pod.ip else pod.ip
        url = f"http://{host}:{pod.http_port}/health"
        async with self._slots:
            try:
                async with self._session.get(url, timeout=self._timeout, allow_redirects=False) as response:
                    return parse(json.loads(await _bounded_body(response), parse_constant=_no_constant))
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                log.debug("pod %s did not answer %s: %s", pod.name, url, str(error) or type(error).__name__)
            except (ValidationError, ValueError, RecursionError) as error:
                log.warning("pod %s answered %s with something that is not /health: %s", pod.name, url, error)
        return None


async def _bounded_body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _MAX_DOCUMENT_BYTES:
            raise ValueError(f"more than {_MAX_DOCUMENT_BYTES} bytes")
    return bytes(body)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
