"""Which of several instances acts: the one that holds the Lease. The others stand by, with everything they need known.

Two promises keep it to one writer at a time. Whoever waits takes a Lease only after having watched it, by its own
clock, go without a renewal for as long as the holder had asked for. The holder counts from *before* it asked for its
last renewal that succeeded, and stops writing a good while earlier than that, whether or not it can reach anyone:
`Fence` is asked before every write. Only clocks that nobody can set are compared, each with itself.

`kubernetes.aio.leaderelection` is not used: its deadline begins anew with every attempt and ignores how long a request
hangs, a refused connection ends it, it goes by the wall clock, and it never gives a Lease back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from sluice_operator import metrics
from sluice_operator.kube import KINDS, KubeError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from sluice_operator.kube import Kube

log = logging.getLogger(__name__)

Json = dict[str, Any]

_MICRO_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
_RELEASE_SECONDS = 2.0
"""How long giving the Lease back may take; a process that ends has better things to do than to wait."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How long things may take: the interval is shorter than the deadline, the deadline shorter than the lease.

    Attributes:
        lease_seconds: For so long without a renewal the others leave the Lease alone.
        deadline_seconds: For so long after it asked for a renewal the holder writes.
        interval_seconds: How often the holder renews; the others look twice as often.
    """

    lease_seconds: int
    deadline_seconds: float
    interval_seconds: float


@dataclass(frozen=True, slots=True)
class Seen:
    """The Lease as this instance last saw it.

    Attributes:
        lease: The object; None where there is none.
        since: When this record was first seen.
        promised_seconds: For so long after `since` whoever wrote it may act.
    """

    lease: Json | None
    since: float
    promised_seconds: float

    @property
    def holder(self) -> str | None:
        """Who holds it; None where nobody does."""
        return None if self.lease is None else self.lease["spec"].get("holderIdentity") or None


def seen(lease: Json | None, before: Seen | None, now: float) -> Seen:
    """What a look at the Lease adds: only another record counts as a sign of life, not another version of it."""
    if before is not None and _record(before.lease) == _record(lease):
        return replace(before, lease=lease)
    if lease is None:
        # Someone deleted it: whoever held it does not know that yet.
        return Seen(None, now, 0.0 if before is None else before.promised_seconds)
    is_held = bool(lease["spec"].get("holderIdentity"))
    return Seen(lease, now, lease["spec"].get("leaseDurationSeconds", 0) if is_held else 0.0)


def seconds_until_free(last: Seen, identity: str, now: float) -> float:
    """How long the Lease is still another's; 0 where this instance may take or renew it."""
    return 0.0 if last.holder == identity else max(0.0, last.since + last.promised_seconds - now)


def claim(last: Seen, identity: str, terms: Terms, wall_time: datetime) -> Json:
    """The Lease as it is to be, made from the version that was seen: any other version of it refuses this one."""
    before: Json = {} if last.lease is None else last.lease["spec"]
    is_renewal = last.holder == identity
    stamp = wall_time.strftime(_MICRO_TIME)
    return {
        **(last.lease or {}),
        "spec": {
            "holderIdentity": identity,
            "leaseDurationSeconds": terms.lease_seconds,
            "acquireTime": before["acquireTime"] if is_renewal and "acquireTime" in before else stamp,
            "renewTime": stamp,
            "leaseTransitions": before.get("leaseTransitions", 0) + (not is_renewal and last.lease is not None),
        },
    }


class Fence:
    """Until when this instance may write to Kubernetes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until = float("-inf")

    @property
    def seconds_left(self) -> float:
        """How long writing is still allowed: a write has to be over by then. At most 0 where it is not."""
        return self._until - self._clock()

    def open_until(self, moment: float) -> None:
        """Allows writes up to a moment of the clock."""
        self._until = moment

    def close(self) -> None:
        """Allows no write from now on."""
        self._until = float("-inf")


class Elector:
    """Runs for office for ever: stands by, leads while it holds the Lease, and stands by again when it lost it."""

    def __init__(
        self,
        kube: Kube,
        fence: Fence,
        *,
        namespace: str,
        name: str,
        identity: str,
        terms: Terms,
        lead: Callable[[], Coroutine[Any, Any, None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kube = kube
        self._fence = fence
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._terms = terms
        self._lead = lead
        self._clock = clock
        self._last: Seen | None = None

    @property
    def holder(self) -> str | None:
        """Who held the Lease when it was last seen."""
        return None if self._last is None else self._last.holder

    async def run(self) -> None:
        """Until cancelled; then the Lease is given back, so that another takes over at once.

        Raises:
            Exception: whatever `lead` ends with; it should only end when it is cancelled.
        """
        while True:
            await self._stand_by()
            try:
                await self._hold()
            finally:
                await self._give_back()

    async def _stand_by(self) -> None:
        """Returns once the Lease is this instance's."""
        metrics.LEADS.set(0)
        while True:
            pause = self._terms.interval_seconds / 2
            try:
                async with asyncio.timeout(self._terms.deadline_seconds):
                    await self._look()
                    wait = seconds_until_free(self._seen(), self._identity, self._clock())
                    if wait == 0:
                        await self._claim()
                        return
            except (KubeError, TimeoutError) as error:
                if _is_conflict(error):
                    pause = 0.0  # another was faster: it must be known who, and until when
                else:
                    self._complain("cannot stand for the lease", error)
            else:
                pause = min(pause, wait)
            await asyncio.sleep(pause)

    async def _hold(self) -> None:
        """Leads until the Lease is lost; everything that leading began has ended when this returns."""
        log.info("this instance leads now: %s holds the lease %s/%s", self._identity, self._namespace, self._name)
        metrics.LEADS.set(1)
        leading = asyncio.create_task(self._lead(), name="lead")
        try:
            while (left := self._fence.seconds_left) > 0:
                # After an attempt that failed there is no time to lose.
                is_late = left < self._terms.deadline_seconds - self._terms.interval_seconds
                pause = self._terms.interval_seconds / (4 if is_late else 1)
                await asyncio.wait({leading}, timeout=min(pause, left))
                if leading.done():
                    leading.result()
                    raise RuntimeError("leading ended by itself")
                if not await self._renew():
                    break
        finally:
            self._fence.close()
            metrics.LEADS.set(0)
            leading.cancel()
            await asyncio.wait({leading})
        log.warning("this instance no longer leads: it could not renew the lease in time, or %s took it", self.holder)

    async def _renew(self) -> bool:
        """False where the Lease is another's; a failure to reach anyone is no answer yet."""
        left = self._fence.seconds_left
        try:
            # A connection that hangs must leave time for another one.
            async with asyncio.timeout(min(left, max(left / 2, self._terms.interval_seconds))):
                try:
                    await self._claim()
                except KubeError as error:
                    if not _is_conflict(error):
                        raise
                    # A renewal that went unanswered may have been the other one.
                    await self._look()
                    if self._is_mine:
                        await self._claim()
        except (KubeError, TimeoutError) as error:
            self._complain("cannot renew the lease", error)
        return self._is_mine

    @property
    def _is_mine(self) -> bool:
        return self.holder in {None, self._identity}

    async def _look(self) -> None:
        lease = await self._kube.get("Lease", self._namespace, self._name)
        self._last = seen(lease, self._last, self._clock())

    async def _claim(self) -> None:
        """Writes the Lease and with it the right to write for a while, or raises."""
        asked_at = self._clock()
        await self._write(claim(self._seen(), self._identity, self._terms, datetime.now(UTC)))
        self._fence.open_until(asked_at + self._terms.deadline_seconds)
        metrics.LEASE_RENEWALS.labels(outcome="ok").inc()

    async def _give_back(self) -> None:
        """Leaves the Lease to whoever looks next."""
        try:
            async with asyncio.timeout(_RELEASE_SECONDS):
                while (last := self._seen()).lease is not None and last.holder == self._identity:
                    spec = {**last.lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
                    try:
                        await self._write({**last.lease, "spec": spec})
                    except KubeError as error:
                        if not _is_conflict(error):
                            raise
                        await self._look()  # it was cancelled in the middle of a renewal
        except (KubeError, TimeoutError) as error:
            self._complain("cannot give the lease back, the others wait until it has run out", error)

    async def _write(self, lease: Json) -> None:
        named = {"apiVersion": KINDS["Lease"].api_version, "kind": "Lease"}
        metadata = {**lease.get("metadata", {}), "namespace": self._namespace, "name": self._name}
        answer = await self._kube.write_lease({**named, **lease, "metadata": metadata})
        self._last = seen(answer, self._last, self._clock())

    def _seen(self) -> Seen:
        return self._last or Seen(None, self._clock(), 0.0)

    def _complain(self, what: str, error: Exception) -> None:
        metrics.LEASE_RENEWALS.labels(outcome="failed").inc()
        log.warning("%s: %s", what, str(error) or type(error).__name__)


def _is_conflict(error: Exception) -> bool:
    """Whether another one wrote the Lease in between, or deleted it."""
    return isinstance(error, KubeError) and error.code in {HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND}


def _record(lease: Json | None) -> Json | None:
    return None if lease is None else lease["spec"]
