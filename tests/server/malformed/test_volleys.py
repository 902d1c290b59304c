"""Volleys of malformed requests: each gets its proper code, its neighbours the right answers, and the server lives on."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.server.malformed import embed, http, infer, wire
from tests.server.malformed.attack import EMBED, INFER, NEIGHBOURS, Attacker
from tests.server.malformed.verdicts import Verdict, check
from tests.server.malformed.victim import Victim, running_victim

# Bad requests, by the judges' count, that each test must have sent.
REQUIRED = {"infer": 3400, "embed": 3000, "stream": 800, "http": 2450, "wire": 400}
VOLLEY = 25
# Of resident memory from the first fifth of the volleys to the last, and of the peak over it.
GROWTH_MEBIBYTES = 96
PEAK_MEBIBYTES = 320


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    with running_victim(tmp_path_factory.mktemp("victim") / "log") as running:
        yield running


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as running:
        yield running


@pytest.fixture(scope="module")
def attacker(victim: Victim, runner: asyncio.Runner, reference: Any) -> Iterator[Attacker]:
    expected = reference.encode(list(NEIGHBOURS), normalize_embeddings=True)
    client = Attacker(victim, expected, [reference.tokenizer(text)["input_ids"] for text in NEIGHBOURS])
    runner.run(client.__aenter__())
    yield client
    runner.run(client.__aexit__(None, None, None))


class Tally:
    """How many requests were sent, by what they deserve."""

    def __init__(self) -> None:
        self.codes: Counter[str] = Counter()
        self.bad = 0

    def add(self, verdict: Verdict) -> None:
        self.codes["|".join(sorted(verdict.codes))] += 1
        self.bad += verdict.is_bad


Volley = Callable[[Any, Tally], Coroutine[Any, Any, None]]


def send_volleys(
    name: str, examples: int, requests: st.SearchStrategy[Any], send: Volley, victim: Victim, runner: asyncio.Runner
) -> Tally:
    """Every example is one volley; all of it is under way at once."""
    tally, resident = Tally(), []

    # Nothing is shrunk: a failure names its one small request.
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(volley=requests)
    def attack(volley: Any) -> None:
        runner.run(send(volley, tally))
        resident.append(victim.memory_mebibytes("VmRSS"))

    attack()
    victim.check_unharmed()
    print(f"{name}: {tally.bad} bad of {tally.codes.total()}: {dict(tally.codes)}")
    assert tally.bad >= REQUIRED[name], tally.codes
    # The first volleys fill the allocator's pools. Peaks against peaks: what a volley leaves to the garbage collector is
    # still there or gone, by when that looked last.
    assert max(resident[-5:]) - max(resident[: len(resident) // 5 + 1]) < GROWTH_MEBIBYTES, resident
    peak = victim.memory_mebibytes("VmHWM") - min(resident)
    assert peak < PEAK_MEBIBYTES, f"{peak:.0f} MiB above {min(resident):.0f}"
    print(f"{name}: resident {resident[0]:.0f} to {resident[-1]:.0f} MiB, peak {peak:.0f} above")
    return tally


def volley_of(cases: Any) -> st.SearchStrategy[list[Any]]:
    """Many small requests, and the name of one that is costly to send."""
    small = st.lists(cases.REQUESTS, min_size=VOLLEY - 1, max_size=VOLLEY - 1)
    return st.builds(lambda many, big: [*many, big], small, st.sampled_from(sorted(cases.BIG)))


def ready(cases: Any, volley: list[Any]) -> list[Any]:
    return [cases.BIG[one]() if isinstance(one, str) else one for one in volley]


def test_the_volleys_are_ten_thousand() -> None:
    assert sum(REQUIRED.values()) >= 10_000


@pytest.mark.parametrize(
    ("name", "method", "cases", "examples"),
    [("infer", INFER, infer, 150), ("embed", EMBED, embed, 130)],
    ids=["infer", "embed"],
)
def test_each_malformed_call_gets_invalid_argument_and_its_neighbours_the_right_answer(
    name: str, method: str, cases: Any, examples: int,
    victim: Victim, attacker: Attacker, runner: asyncio.Runner, record_property: Callable[[str, object], None],
) -> None:  # fmt: skip
    async def send(volley: list[Any], tally: Tally) -> None:
        async def one(data: bytes) -> None:
            verdict = cases.judge(data)
            tally.add(verdict)
            check(verdict, await attacker.unary(method, data), of=data)

        await asyncio.gather(attacker.neighbours(), *map(one, ready(cases, volley)))

    tally = send_volleys(name, examples, volley_of(cases), send, victim, runner)
    record_property(name, dict(tally.codes))


def test_a_malformed_message_of_a_stream_fails_alone_and_junk_ends_the_stream_after_its_answers(
    victim: Victim, attacker: Attacker, runner: asyncio.Runner, record_property: Callable[[str, object], None]
) -> None:
    async def send(messages: list[bytes], tally: Tally) -> None:
        (answers, end), _ = await asyncio.gather(attacker.stream(messages), attacker.neighbours())
        junk = [message for message in messages if embed.is_unreadable(message)]
        verdicts = [(embed.request_id(m), embed.judge(m)) for m in messages if m not in junk]
        for _, verdict in verdicts:
            tally.add(verdict)
        assert Counter(one for one, _ in answers) == Counter(one for one, _ in verdicts)
        ids = Counter(one for one, _ in verdicts)
        for request_id, outcome in answers:
            if request_id and ids[request_id] == 1:
                check(dict(verdicts)[request_id], outcome, of=messages)
            else:
                embed.check_twins(request_id, [v for one, v in verdicts if one == request_id], outcome)
        if junk:
            tally.add(embed.judge(junk[0]))
            check(embed.judge(junk[0]), end, of=junk[0])
        else:
            assert end.code == "OK"

    tally = send_volleys("stream", 50, embed.stream(), send, victim, runner)
    record_property("stream", dict(tally.codes))


def test_each_malformed_http_request_gets_its_proper_status(
    victim: Victim, attacker: Attacker, runner: asyncio.Runner, record_property: Callable[[str, object], None]
) -> None:
    async def send(volley: list[Any], tally: Tally) -> None:
        async def one(request: http.HttpRequest) -> None:
            tally.add(request.verdict)
            check(request.verdict, await attacker.http(request), of=request)

        await asyncio.gather(attacker.neighbours(), *map(one, ready(http, volley)))

    tally = send_volleys("http", 115, volley_of(http), send, victim, runner)
    record_property("http", dict(tally.codes))


def test_connections_that_speak_nonsense_are_refused_or_closed(
    victim: Victim, attacker: Attacker, runner: asyncio.Runner, record_property: Callable[[str, object], None]
) -> None:
    async def send(volley: list[wire.Wire], tally: Tally) -> None:
        async def one(connection: wire.Wire) -> None:
            tally.add(Verdict(frozenset(map(str, connection.codes))))
            assert await attacker.wire(connection) in connection.codes, connection

        await asyncio.gather(attacker.neighbours(), *map(one, volley))

    connections = st.lists(wire.CONNECTIONS, min_size=VOLLEY, max_size=VOLLEY)
    tally = send_volleys("wire", 17, connections, send, victim, runner)
    record_property("wire", dict(tally.codes))
