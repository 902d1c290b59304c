"""Faults that were measured in coral-gpu-inference 0.1.0, each shown gone.

Every test speaks what both servers speak, gpu_inference gRPC and /health, so that the same function fails on that
server: SEED_FAULTS_TARGET=127.0.0.1:50051,http://127.0.0.1:8001 points it at one that runs all-MiniLM-L6-v2 (for the
failed warm-up: the folder that `write_a_model_that_cannot_compute` makes). Nothing compares times but with times of
the same server.
"""

import json
import os
import re
import statistics
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from gpu_inference import inference_pb2 as pb
from gpu_inference import inference_pb2_grpc

from tests.server.conftest import minilm_folder, running_server

BUCKETS = (16, 32, 64, 128, 256, 512)
PATIENCE_MS = 600_000


@dataclass(frozen=True, slots=True)
class Target:
    """A running server that both speak to."""

    infer: Any
    url: str

    def health(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/health", timeout=30) as response:
            return json.load(response)

    def ask(self, ids: Any, *, seconds: float = 600, **changes: Any) -> Any:
        """Sends at once; the answer is the future's."""
        fields = {
            "request_id": "seed-faults", "input_ids_bytes": ids.astype("<i4").tobytes(),
            "attention_mask_bytes": np.ones_like(ids, "<i4").tobytes(), "num_items": len(ids), "seq_len": ids.shape[1],
            "bucket_max_len": next(one for one in BUCKETS if one >= ids.shape[1]), "max_wait_ms": PATIENCE_MS,
        }  # fmt: skip
        return self.infer.future(pb.InferRequest(**{**fields, **changes}), timeout=seconds)

    def embed(self, ids: Any) -> Any:
        return rows_of(self.ask(ids).result())

    def wait_until_taken(self, within_seconds: float = 0.5) -> None:
        """Until it says that something is queued; that server says so too seldom to wait for it longer."""
        until = time.monotonic() + within_seconds
        while not self.health()["queued_tokens"] and time.monotonic() < until:
            time.sleep(0.001)


def tokens(rows: int, length: int, *, first: int = 1000) -> Any:
    """int32 (rows, length); every row another one."""
    return (first + np.arange(rows * length, dtype="<i4") % 20_000).reshape(rows, length)


def rows_of(response: pb.InferResponse) -> Any:
    return np.frombuffer(response.embeddings_bytes, "<f4").reshape(-1, response.embedding_dim)


def alike(left: Any, right: Any) -> bool:
    """The same directions, in bfloat16 as well."""
    return left.shape == right.shape and bool(((left * right).sum(axis=1) > 0.999).all())


def refused(future: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as error:
        future.result()
    return error.value.code(), error.value.details()


def opened(address: str, url: str) -> Iterator[Target]:
    with grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)]) as channel:
        yield Target(inference_pb2_grpc.InferenceServiceStub(channel).Infer, url)


def opened_here(model: Path, **settings: Any) -> Iterator[Target]:
    if "SEED_FAULTS_TARGET" in os.environ:
        yield from opened(*os.environ["SEED_FAULTS_TARGET"].split(","))
        return
    with running_server(model_path=str(model), dtype="float32", **settings) as running:
        running.wait_for_phase("serving", "failed")
        yield from opened(running.grpc_target, running.url)


@pytest.fixture(scope="module")
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    """Refuses nothing for load, where the server lets itself be told so."""
    if "SEED_FAULTS_TARGET" in os.environ:
        yield from opened_here(minilm_folder())
        return
    minilm = request.getfixturevalue("minilm")
    yield from opened(minilm.grpc_target, minilm.url)


@pytest.fixture
def strict_target() -> Iterator[Target]:
    """Refuses what makes the queue longer than 100 ms; that server's limit is 2 s."""
    yield from opened_here(minilm_folder(), backpressure_max_drain_ms=100)


# --- 1: a negative number of items --------------------------------------------------------------------------------


@pytest.mark.parametrize("num_items", [-1000, -1])
def test_a_negative_number_of_items_is_refused_and_harms_nobody(target: Target, num_items: int) -> None:
    """-1000 killed the batching while /health said healthy with -15,440 queued tokens; -1 lost its neighbours' answers."""
    good = tokens(5, 16)
    expected = target.embed(good)
    blocker = target.ask(tokens(64, 64))
    neighbours = [target.ask(good, seconds=10) for _ in range(4)]
    bad = target.ask(tokens(35, 16), seconds=10, num_items=num_items)
    neighbours += [target.ask(good, seconds=10) for _ in range(4)]
    assert all(alike(rows_of(one.result()), expected) for one in neighbours)
    code, details = refused(bad)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert f"num_items={num_items}; expected 1 to" in details
    blocker.result()
    assert target.health()["queued_tokens"] == 0
    assert alike(target.embed(good), expected)


# --- 2: rows that do not fit each other ---------------------------------------------------------------------------


def test_rows_of_two_lengths_in_one_bucket_are_all_answered(target: Target) -> None:
    """They were joined into one tensor; the joining failed, and everybody in the batch waited for ever."""
    long, short = tokens(3, 16), tokens(3, 9)
    expected = [target.embed(long), target.embed(short)]
    blocker = target.ask(tokens(64, 64))
    asked = [[target.ask(ids, seconds=15) for ids in (long, short)] for _ in range(4)]
    for pair in asked:
        assert [alike(rows_of(one.result()), right) for one, right in zip(pair, expected, strict=True)] == [True, True]
    blocker.result()


def test_an_id_outside_the_vocabulary_fails_its_own_request_only(target: Target) -> None:
    good = tokens(3, 16)
    expected = target.embed(good)
    blocker = target.ask(tokens(64, 64))
    before, bad, behind = target.ask(good), target.ask(tokens(1, 16) + 39_000), target.ask(good)
    assert [alike(rows_of(one.result()), expected) for one in (before, behind)] == [True, True]
    code, details = refused(bad)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "token id 40015 is not in the vocabulary; expected 0 to" in details
    blocker.result()


# --- 3: fields that contradict each other -------------------------------------------------------------------------

CONTRADICTIONS = {
    "ids-cut": ({"input_ids_bytes": bytes(60)}, "input_ids_bytes holds 60 bytes; expected 64"),
    "ids-odd": ({"input_ids_bytes": bytes(63)}, "input_ids_bytes holds 63 bytes; expected 64"),
    "mask-cut": ({"attention_mask_bytes": b"\1"}, "attention_mask_bytes holds 1 bytes; expected 64"),
    "mask-of-zeros": ({"attention_mask_bytes": bytes(64)}, "input 0 has 0 tokens; expected at least 1"),
    "mask-of-7": ({"attention_mask_bytes": b"\7\0\0\0" * 16}, "attention_mask holds 7; expected 0 or 1"),
    "bucket-too-small": ({"bucket_max_len": 8}, "bucket_max_len=8; expected 0, or at least the row length 16"),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_contradiction_is_named_in_a_sentence_of_its_own(target: Target, name: str) -> None:
    """Wrong sizes and unknown buckets ended as UNKNOWN with Python's words; masks of 0 and of 7 were taken."""
    changes, sentence = CONTRADICTIONS[name]
    code, details = refused(target.ask(tokens(1, 16), **changes))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert sentence in details
    assert not re.search(r"Traceback|<class|Error\b", details)


def test_a_bucket_that_only_the_caller_knows_is_served(target: Target) -> None:
    ids = tokens(2, 16)
    assert alike(rows_of(target.ask(ids, bucket_max_len=17).result()), target.embed(ids))


# --- 4: requests past every limit ---------------------------------------------------------------------------------


def test_ten_thousand_items_are_refused(target: Target) -> None:
    """They ran as one batch of 11 s."""
    code, details = refused(target.ask(tokens(10_000, 4)))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "num_items=10000; expected 1 to 2048" in details


def test_small_requests_of_another_bucket_overtake_a_large_one(target: Target) -> None:
    """2,000 rows of 64 tokens stopped every other bucket for 8 s."""
    large = target.ask(tokens(400, 64))
    target.wait_until_taken()
    for _ in range(3):
        target.embed(tokens(1, 100))
        assert not large.done(), "the small request waited for the end of the large one"
    large.cancel()


# --- 5: callers that have left ------------------------------------------------------------------------------------


def test_what_nobody_waits_for_any_more_is_not_computed(target: Target) -> None:
    """A caller that gave up after 10 ms had its 100 rows of 512 tokens computed all the same."""
    begun = time.monotonic()
    target.embed(tokens(10, 512))
    seconds_of_a_tenth = time.monotonic() - begun
    before = target.health()
    left = target.ask(tokens(100, 512))
    target.wait_until_taken()
    left.cancel()
    begun = time.monotonic()
    target.embed(tokens(1, 16))
    assert time.monotonic() - begun < 3 * seconds_of_a_tenth
    after = target.health()
    assert after["offered_tokens_total"] - before["offered_tokens_total"] == 100 * 512 + 16
    assert after["computed_tokens_total"] - before["computed_tokens_total"] < 0.3 * 100 * 512


# --- 6: what the server knows of itself ---------------------------------------------------------------------------


def test_the_service_rate_is_what_callers_see_and_outlasts_idle_time(target: Target) -> None:
    """It was the time between two batches: idle time made it fall, and a burst rise, a hundredfold."""
    begun = time.monotonic()
    for one in [target.ask(tokens(64, 32)) for _ in range(8)]:
        one.result()
    seen = 8 * 64 * 32 / (time.monotonic() - begun)
    in_the_burst = target.health()["service_rate_tokens_per_sec"]
    assert seen / 4 < in_the_burst < seen * 4
    for _ in range(8):
        time.sleep(0.2)  # the idle time itself is what is tested
        target.embed(tokens(1, 32))
    assert in_the_burst / 3 < target.health()["service_rate_tokens_per_sec"] < in_the_burst * 3


def test_what_is_on_the_device_counts_as_queued(target: Target) -> None:
    polls: list[tuple[float, int]] = []
    begun = time.monotonic()
    running = target.ask(tokens(300, 64))
    while not running.done():
        polls.append((time.monotonic() - begun, target.health()["queued_tokens"]))
        time.sleep(0.005)
    whole = time.monotonic() - begun
    in_the_middle = [queued for at, queued in polls if 0.2 * whole < at < 0.7 * whole]
    assert len(in_the_middle) >= 5
    assert min(in_the_middle) > 0


def test_a_request_that_alone_is_past_the_limit_is_refused_by_a_busy_server(strict_target: Target) -> None:
    """Only what stood in the queue before it was looked at."""
    busy = strict_target.ask(tokens(200, 64))
    strict_target.wait_until_taken()
    too_large = strict_target.ask(tokens(2000, 64))
    code, details = refused(too_large)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert re.search(r"the queue needs \d+ ms to drain and this request counts as \d+ ms, \d+ ms are allowed", details)
    assert not busy.done()
    busy.cancel()


def test_latency_is_told_whatever_the_backpressure(target: Target) -> None:
    """By default there was none."""
    for one in [target.ask(tokens(1, 16)) for _ in range(40)]:
        one.result()
    assert target.health()["p95_server_side_latency_ms"]


def test_load_is_told_whatever_the_backpressure(target: Target) -> None:
    """In the latency mode all of it was zero."""
    running = target.ask(tokens(300, 64))
    target.wait_until_taken()
    document = target.health()
    assert not running.done()
    running.cancel()
    names = ("queued_tokens", "service_rate_tokens_per_sec", "estimated_drain_time_ms")
    assert {name: document[name] for name in names if not document[name]} == {}


def test_one_caller_alone_waits_for_its_own_computing(target: Target) -> None:
    """The loop looked for work by the clock, and told the wait and the computing as one."""
    timings = [target.ask(tokens(1, 64)).result().timings for _ in range(40)]
    waited = statistics.median(one.queue_wait_ms for one in timings)
    assert waited < statistics.median(one.encoding_ms for one in timings)


def test_requests_of_one_bucket_end_in_the_order_they_came(target: Target) -> None:
    """What did not fit a batch went to the end of the line."""
    ended: list[int] = []

    def note(place: int) -> Callable[[Any], None]:
        return lambda _: ended.append(place)

    blocker = target.ask(tokens(128, 64))
    target.wait_until_taken(0.05)
    asked = [target.ask(tokens(40, 16)) for _ in range(16)]
    for place, one in enumerate(asked):
        one.add_done_callback(note(place))
    for one in (blocker, *asked):
        one.result()
    until = time.monotonic() + 10
    while len(ended) < len(asked) and time.monotonic() < until:
        time.sleep(0.001)
    assert ended == sorted(ended)


def write_a_model_that_cannot_compute(folder: Path) -> Path:
    """It loads, but its first forward fails: a token of type 0 is not in its table."""
    import shutil

    from transformers import BertConfig, BertModel

    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    model = BertModel(BertConfig(vocab_size=30_522, **size))
    model.embeddings.token_type_embeddings.weight.data = model.embeddings.token_type_embeddings.weight.data[:0]
    model.config.type_vocab_size = 0
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        if (minilm_folder() / name).exists():
            shutil.copy(minilm_folder() / name, folder)
    return folder


def test_a_server_that_cannot_compute_does_not_say_that_it_can(tmp_path: Path) -> None:
    """A failed warm-up counted as ready; see test_life_cycle.py for the probes."""
    for target in opened_here(write_a_model_that_cannot_compute(tmp_path)):
        assert target.health()["accepting_requests"] is False
        assert refused(target.ask(tokens(1, 16)))[0] is grpc.StatusCode.UNAVAILABLE


# --- 7: the weights of a plain BERT -------------------------------------------------------------------------------


def test_a_plain_bert_is_served_with_its_own_weights(target: Target) -> None:
    """Its keys begin with `encoder.`, too; stripped of it, they matched nothing, and the weights were random ones."""
    import torch
    from transformers import AutoModel

    ids = tokens(4, 16)
    ids[:, 0], ids[:, -1] = 101, 102
    with torch.inference_mode():
        states = AutoModel.from_pretrained(minilm_folder()).eval()(torch.tensor(ids)).last_hidden_state
    # That server leaves CLS and SEP out of the mean: either is the model's own.
    means = [torch.nn.functional.normalize(part.mean(1), dim=1).numpy() for part in (states, states[:, 1:-1])]
    served = target.embed(ids)
    assert max((served * mean).sum(axis=1).min() for mean in means) > 0.999
