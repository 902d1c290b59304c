"""The Lease: who may act, and that two never do, as timelines in virtual time."""

import asyncio
import copy
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sluice_operator.kube import KubeError
from sluice_operator.leader import Elector, Fence, Seen, Terms, claim, seconds_until_free, seen

from tests.virtual_time import run_in_virtual_time

TERMS = Terms(lease_seconds=10, deadline_seconds=7.0, interval_seconds=2.0)
NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
Json = dict[str, Any]


def lease(holder: str | None = "a", *, renewed: str = "t1", version: str = "1", duration: int = 10) -> Json:
    spec = {"holderIdentity": holder, "leaseDurationSeconds": duration, "renewTime": renewed, "acquireTime": "t0"}
    return {"metadata": {"name": "l", "resourceVersion": version}, "spec": spec}


def test_another_ones_lease_is_free_once_it_was_watched_for_as_long_as_it_asked() -> None:
    first = seen(lease("a", duration=15), None, now=100.0)
    assert seconds_until_free(first, "b", now=100.0) == 15.0
    assert seconds_until_free(first, "b", now=114.0) == 1.0
    assert seconds_until_free(first, "b", now=115.0) == 0.0


def test_a_renewal_begins_the_wait_anew_and_another_version_of_the_same_record_does_not() -> None:
    first = seen(lease(renewed="t1", version="1"), None, now=100.0)
    touched = seen(lease(renewed="t1", version="2"), first, now=105.0)
    assert touched.since == 100.0
    assert touched.lease is not None
    assert touched.lease["metadata"]["resourceVersion"] == "2"
    assert seen(lease(renewed="t2", version="3"), touched, now=106.0).since == 106.0


def test_a_lease_that_was_given_back_or_never_was_is_free_at_once() -> None:
    assert seconds_until_free(seen(lease("", duration=1), None, now=5.0), "b", now=5.0) == 0.0
    assert seconds_until_free(seen(None, None, now=5.0), "b", now=5.0) == 0.0


def test_a_lease_that_somebody_deleted_is_not_free_before_its_holder_must_have_noticed() -> None:
    gone = seen(None, seen(lease("a"), None, now=100.0), now=101.0)
    assert seconds_until_free(gone, "b", now=101.0) == 10.0
    assert seconds_until_free(gone, "b", now=111.0) == 0.0


def test_ones_own_lease_is_always_free() -> None:
    assert seconds_until_free(seen(lease("a"), None, now=100.0), "a", now=100.0) == 0.0


def test_a_claim_names_the_version_that_it_was_made_from() -> None:
    taken = claim(seen(lease("a", version="7"), None, now=0.0), "b", TERMS, NOON)
    assert taken["metadata"]["resourceVersion"] == "7"
    assert taken["spec"] == {
        "holderIdentity": "b", "leaseDurationSeconds": 10, "leaseTransitions": 1,
        "acquireTime": "2026-03-01T12:00:00.000000Z", "renewTime": "2026-03-01T12:00:00.000000Z",
    }  # fmt: skip


def test_a_renewal_keeps_when_it_was_acquired_and_how_often_it_changed_hands() -> None:
    renewed = claim(seen(lease("a"), None, now=0.0), "a", TERMS, NOON)["spec"]
    assert (renewed["acquireTime"], renewed["leaseTransitions"]) == ("t0", 0)


def test_the_first_claim_is_no_transition() -> None:
    assert claim(Seen(None, 0.0, 0.0), "a", TERMS, NOON)["spec"]["leaseTransitions"] == 0


def test_a_fence_lets_nothing_through_before_it_is_opened_after_its_moment_and_once_closed() -> None:
    now = 50.0
    fence = Fence(lambda: now)
    assert fence.seconds_left < 0
    fence.open_until(57.0)
    assert fence.seconds_left == 7.0
    now = 57.0
    assert fence.seconds_left == 0.0
    fence.open_until(90.0)
    fence.close()
    assert fence.seconds_left < 0


class Server:
    """Keeps one Lease as an API server does, and treats each instance as the test says."""

    def __init__(self) -> None:
        self.lease: Json | None = None
        self.version = 0
        self.treatment: dict[str, str] = {}

    def take(self, wanted: Json) -> Json:
        version = wanted["metadata"].get("resourceVersion")
        if (None if self.lease is None else self.lease["metadata"]["resourceVersion"]) != version:
            raise KubeError(409, "the object has been modified")
        self.version += 1
        self.lease = copy.deepcopy(wanted)
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        return copy.deepcopy(self.lease)


class Kube:
    """One instance's way to the server."""

    def __init__(self, server: Server, me: str) -> None:
        self.server = server
        self.me = me

    async def get(self, *_: str) -> Json | None:
        await self._travel("ok")
        answer = copy.deepcopy(self.server.lease)
        await self._travel("unanswered")
        return answer

    async def write_lease(self, wanted: Json) -> Json:
        await self._travel("ok")
        answer = self.server.take(wanted)
        await self._travel("unanswered")
        return answer

    async def _travel(self, step: str) -> None:
        treatment = self.server.treatment.get(self.me, "ok")
        await asyncio.sleep(0.4 if treatment == "slow" else 0.005)
        if treatment == "refused":
            raise KubeError(None, "connection refused")
        if treatment == "hangs" or treatment == step == "unanswered":
            await asyncio.Event().wait()


class Instance:
    """An operator, of which only the leading is of interest."""

    def __init__(self, server: Server, me: str) -> None:
        loop = asyncio.get_running_loop()
        self.me = me
        self.fence = Fence(loop.time)
        self.leads = False
        self.took_over, self.stepped_down = asyncio.Event(), asyncio.Event()
        self.terms = 0
        self.elector = Elector(
            Kube(server, me), self.fence, namespace="n", name="l", identity=me, terms=TERMS, lead=self._lead,  # type: ignore[arg-type]
            clock=loop.time,
        )  # fmt: skip
        self.task = asyncio.create_task(self.elector.run())

    async def _lead(self) -> None:
        self.leads = True
        self.terms += 1
        self.took_over.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.leads = False
            self.stepped_down.set()

    @property
    def may_write(self) -> bool:
        return self.fence.seconds_left > 0

    def kill(self) -> None:
        """No process any more: nothing is given back."""
        self.elector._kube.server.treatment[self.me] = "hangs"  # type: ignore[attr-defined]
        self.task.cancel()

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})


async def a_pair() -> tuple[Server, Instance, Instance]:
    """The first leads, the second stands by."""
    server = Server()
    first = Instance(server, "a")
    await asyncio.sleep(1)
    second = Instance(server, "b")
    await asyncio.sleep(5)
    assert (first.leads, second.leads) == (True, False)
    return server, first, second


async def until_leads(instance: Instance) -> float:
    began = asyncio.get_running_loop().time()
    await instance.took_over.wait()
    return asyncio.get_running_loop().time() - began


def test_one_leads_for_as_long_as_it_renews() -> None:
    async def timeline() -> None:
        server, first, second = await a_pair()
        await asyncio.sleep(3600)
        assert (first.leads, second.leads, first.terms) == (True, False, 1)
        assert server.lease is not None
        assert server.lease["spec"]["leaseTransitions"] == 0
        await first.stop()
        await second.stop()

    run_in_virtual_time(timeline())


def test_a_leader_that_ends_gives_the_lease_back_and_the_standby_takes_it_at_its_next_look() -> None:
    async def timeline() -> None:
        _, first, second = await a_pair()
        await first.stop()
        assert not first.may_write
        assert await until_leads(second) < 1.1
        await second.stop()

    run_in_virtual_time(timeline())


def test_a_leader_that_dies_is_replaced_when_its_lease_has_run_out() -> None:
    async def timeline() -> None:
        _, first, second = await a_pair()
        first.kill()
        assert 8.0 <= await until_leads(second) < 12.0
        await second.stop()

    run_in_virtual_time(timeline())


@pytest.mark.parametrize("treatment", ["refused", "hangs"])
def test_a_leader_that_reaches_nobody_stops_before_another_may_start_and_stands_by_afterwards(treatment: str) -> None:
    async def timeline() -> None:
        server, first, second = await a_pair()
        server.treatment["a"] = treatment
        await first.stepped_down.wait()
        stopped_at = asyncio.get_running_loop().time()
        assert not first.may_write
        assert not second.leads
        await until_leads(second)
        assert asyncio.get_running_loop().time() - stopped_at > 1.0
        server.treatment.clear()
        await asyncio.sleep(60)
        assert (first.leads, second.leads, first.elector.holder) == (False, True, "b")
        await first.stop()
        await second.stop()

    run_in_virtual_time(timeline())


def test_one_failed_renewal_costs_nothing() -> None:
    async def timeline() -> None:
        server, first, second = await a_pair()
        server.treatment["a"] = "refused"
        await asyncio.sleep(3)
        server.treatment.clear()
        await asyncio.sleep(20)
        assert (first.terms, second.terms) == (1, 0)
        await first.stop()
        await second.stop()

    run_in_virtual_time(timeline())


def test_a_renewal_that_took_effect_but_was_not_answered_is_found_to_be_ones_own() -> None:
    async def timeline() -> None:
        server, first, second = await a_pair()
        server.treatment["a"] = "unanswered"
        await asyncio.sleep(3)
        server.treatment.clear()
        await asyncio.sleep(20)
        assert (first.terms, second.terms) == (1, 0)
        await first.stop()
        await second.stop()

    run_in_virtual_time(timeline())


def test_a_leader_whose_lease_somebody_deleted_makes_it_anew() -> None:
    async def timeline() -> None:
        server, first, second = await a_pair()
        server.lease = None
        await asyncio.sleep(20)
        assert (first.leads, first.terms, second.terms) == (True, 1, 0)
        assert server.lease is not None
        await first.stop()
        await second.stop()

    run_in_virtual_time(timeline())


def test_what_ends_while_it_should_lead_ends_the_campaign_and_the_lease_is_free() -> None:
    async def fails() -> None:
        raise RuntimeError("boom")

    async def timeline() -> None:
        server = Server()
        instance = Instance(server, "a")
        instance.elector._lead = fails
        with pytest.raises(RuntimeError, match="boom"):
            await instance.task
        assert server.lease is not None
        assert server.lease["spec"]["holderIdentity"] == ""

    run_in_virtual_time(timeline())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.sampled_from(["ok", "refused", "hangs", "unanswered", "slow", "restart", "delete the lease"]),
            st.floats(0.05, 20.0),
        ),
        max_size=25,
    )
)
def test_whatever_happens_two_never_write_and_in_the_end_one_does(story: list[tuple[str, str, float]]) -> None:
    async def timeline() -> None:
        server = Server()
        instances = {me: Instance(server, me) for me in "abc"}

        async def pass_time(seconds: float) -> None:
            end = asyncio.get_running_loop().time() + seconds
            while asyncio.get_running_loop().time() < end:
                writers = [i.me for i in instances.values() if i.may_write]
                assert len(writers) <= 1, f"{writers} write at {asyncio.get_running_loop().time()}"
                await asyncio.sleep(0.05)

        for me, what, seconds in story:
            if what == "restart":
                await instances[me].stop()
                instances[me] = Instance(server, me)
            elif what == "delete the lease":
                # Whoever never saw it cannot know that anyone holds it.
                if all(i.elector.holder for i in instances.values()):
                    server.lease = None
                    await pass_time(TERMS.deadline_seconds)
            else:
                server.treatment[me] = what
            await pass_time(seconds)
        server.treatment.clear()
        await pass_time(30.0)
        assert [i.leads for i in instances.values()].count(True) == 1
        for instance in instances.values():
            await instance.stop()

    run_in_virtual_time(timeline())
