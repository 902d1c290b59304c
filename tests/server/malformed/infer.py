"""gpu_inference Infer: requests that are wrong in every field, and what each deserves."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from gpu_inference import inference_pb2 as pb
from hypothesis import strategies as st

from tests.server.malformed.verdicts import MAX_INPUTS, MAX_TOKENS, POSITIONS, VOCABULARY, Verdict, fine, refused

INT32 = st.integers(-(2**31), 2**31 - 1)
WRONG_NUMBERS = st.sampled_from([0, -1, -1000, -(2**31), 2**31 - 1, MAX_INPUTS + 1, 10_000, 3]) | INT32
WRONG_IDS = st.sampled_from([-1, VOCABULARY, 2**31 - 1, -(2**31)]) | st.integers(VOCABULARY, 2**31 - 1)
WRONG_MARKS = st.sampled_from([-1, 2, 7, 2**31 - 1, -(2**31)])


def judge(data: bytes) -> Verdict:
    """Reads the request as the contract says: the bytes where there are any, else the rows."""
    try:
        request = pb.InferRequest.FromString(data)
    except Exception:  # noqa: BLE001 - whatever the library says, it is no request
        return refused("cannot be read")
    faults, rows = _bytes(request) if request.input_ids_bytes or not request.input_ids else _rows(request)
    if not faults:
        faults = _faults_of_rows(rows) | _faults_of_bucket(request.bucket_max_len, max(len(ids) for ids, _ in rows))
    if faults:
        return refused(*faults)
    verdict = fine(len(rows))
    if 0 < request.max_wait_ms < 60_000:
        return Verdict(verdict.codes | {"DEADLINE_EXCEEDED"}, frozenset({"deadline"}), verdict.shape)
    return verdict


Rows = list[tuple[list[int], list[int]]]


def _bytes(request: pb.InferRequest) -> tuple[set[str], Rows]:
    items, length = request.num_items, request.seq_len
    faults = {"num_items"} if not 1 <= items <= MAX_INPUTS else set()
    faults |= {"seq_len"} if length < 1 else set()
    names = ("input_ids_bytes", "attention_mask_bytes")
    faults |= {name for name in names if len(getattr(request, name)) != 4 * items * length}
    if faults:
        return faults, []
    ids, mask = (np.frombuffer(getattr(request, name), "<i4").reshape(items, length).tolist() for name in names)
    return faults, list(zip(ids, mask, strict=True))


def _rows(request: pb.InferRequest) -> tuple[set[str], Rows]:
    ids, mask = ([list(row.values) for row in rows] for rows in (request.input_ids, request.attention_mask))
    faults = {"rows of"} if len(ids) != len(mask) or len(ids) > MAX_INPUTS else set()
    rows = list(zip(ids, mask, strict=False))
    faults |= {"row "} if any(len(row) != len(marks) or not row for row, marks in rows) or [] in ids else set()
    faults |= {"num_items"} if request.num_items not in {0, len(ids)} else set()
    faults |= {"seq_len"} if request.seq_len not in {0, max(map(len, ids))} else set()
    return faults, rows


def _faults_of_rows(rows: Rows) -> set[str]:
    kept = [[one for one, mark in zip(ids, mask, strict=True) if mark == 1] for ids, mask in rows]
    lengths = [len(row) for row in kept]
    faults = {"attention_mask"} if any(mark not in {0, 1} for _, mask in rows for mark in mask) else set()
    faults |= {"tokens"} if min(lengths) < 1 or max(lengths) > POSITIONS or sum(lengths) > MAX_TOKENS else set()
    faults |= {"vocabulary"} if any(not 0 <= one < VOCABULARY for row in kept for one in row) else set()
    return faults


def _faults_of_bucket(bucket: int, length: int) -> set[str]:
    return {"bucket_max_len"} if bucket and bucket < length else set()


@st.composite
def good_fields(draw: st.DrawFn) -> dict[str, Any]:
    """A few short rows in the form of bytes; masks of ones, then zeros."""
    items, length = draw(st.integers(1, 3)), draw(st.integers(2, 9))
    ids = np.arange(items * length, dtype="<i4").reshape(items, length) + draw(st.integers(1000, 20_000))
    mask = (np.arange(length) < draw(st.integers(1, length))) * np.ones_like(ids)
    return {"ids": ids, "mask": mask, "num_items": items, "seq_len": length, "bucket_max_len": 16}


@st.composite
def wrong_bytes(draw: st.DrawFn) -> pb.InferRequest:
    """The form of bytes, wrong in one field or two."""
    fields = draw(good_fields())
    ids, mask = fields.pop("ids"), fields.pop("mask").astype("<i4")
    faults = draw(
        st.lists(st.sampled_from(["num", "id", "mark", "empty", "cut", "bucket", "hole"]), min_size=1, max_size=2)
    )
    if "num" in faults:
        fields[draw(st.sampled_from(["num_items", "seq_len"]))] = draw(WRONG_NUMBERS)
    if "id" in faults:
        ids.flat[0] = draw(WRONG_IDS)
    if "mark" in faults:
        mask.flat[draw(st.integers(0, mask.size - 1))] = draw(WRONG_MARKS)
    if "empty" in faults:
        mask[draw(st.integers(0, len(mask) - 1))] = 0
    if "hole" in faults:
        mask[0, 0] = 0
    if "bucket" in faults:
        fields["bucket_max_len"] = draw(st.sampled_from([-1, 1, -(2**31)]) | st.integers(-20, 20))
    parts = {"input_ids_bytes": ids.tobytes(), "attention_mask_bytes": mask.tobytes()}
    if "cut" in faults:
        name = draw(st.sampled_from(sorted(parts)))
        parts[name] = parts[name][: draw(st.integers(0, len(parts[name]) - 1))] + draw(st.binary(max_size=3))
    return pb.InferRequest(**parts, **fields)


VALUES = st.lists(st.integers(0, VOCABULARY) | WRONG_IDS, max_size=5)
MARKS = st.lists(st.integers(0, 1) | WRONG_MARKS, max_size=5)
ROWS = st.builds(
    pb.InferRequest,
    input_ids=st.lists(st.builds(pb.TensorRow, values=VALUES), min_size=1, max_size=3),
    attention_mask=st.lists(st.builds(pb.TensorRow, values=MARKS), max_size=3),
    num_items=st.sampled_from([0, 0, -1000, 2]),
    seq_len=st.sampled_from([0, 0, -1, 3]),
    bucket_max_len=st.sampled_from([0, 0, -1, 1, 17]),
)
ANYTHING = st.builds(
    pb.InferRequest,
    request_id=st.text(max_size=5) | st.just("é\n" * 50),
    input_ids=st.lists(st.builds(pb.TensorRow, values=VALUES), max_size=2),
    attention_mask=st.lists(st.builds(pb.TensorRow, values=MARKS), max_size=2),
    bucket_max_len=INT32,
    max_wait_ms=st.integers(-(2**31), 2**31 - 1),
    input_ids_bytes=st.binary(max_size=24),
    attention_mask_bytes=st.binary(max_size=24),
    num_items=WRONG_NUMBERS,
    seq_len=WRONG_NUMBERS,
)


def one_long_row(length: int, others: int) -> pb.InferRequest:
    """Padded to a rectangle, it would fill the memory of any machine."""
    rows = [pb.TensorRow(values=[7] * length), *[pb.TensorRow(values=[7])] * others]
    marks = [pb.TensorRow(values=[1] * length), *[pb.TensorRow(values=[1])] * others]
    return pb.InferRequest(input_ids=rows, attention_mask=marks)


def long_bytes(items: int, length: int) -> pb.InferRequest:
    size = 4 * items * length
    return pb.InferRequest(
        input_ids_bytes=bytes(size),
        attention_mask_bytes=b"\1\0\0\0" * (items * length),
        num_items=items,
        seq_len=length,
    )


def serialized(request: pb.InferRequest) -> bytes:
    return request.SerializeToString()


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good message whose bytes were cut, or one of them changed, or junk alone."""
    fields = draw(good_fields())
    data = pb.InferRequest(
        input_ids_bytes=fields["ids"].tobytes(), attention_mask_bytes=fields["mask"].astype("<i4").tobytes(),
        num_items=fields["num_items"], seq_len=fields["seq_len"],
    ).SerializeToString()  # fmt: skip
    place = draw(st.integers(0, len(data) - 1))
    return draw(
        st.sampled_from([data[:place], data[:place] + b"\xff" + data[place + 1 :], data + b"\x0a"])
        | st.binary(min_size=1, max_size=20)
    )


REQUESTS = st.one_of(
    wrong_bytes().map(serialized),
    wrong_bytes().map(serialized),
    wrong_bytes().map(serialized),
    ROWS.map(serialized),
    ROWS.map(serialized),
    ANYTHING.map(serialized),
    ANYTHING.map(serialized),
    damaged(),
)
# Costly to send: one of them is in each volley.
BIG: dict[str, Callable[[], bytes]] = {
    **{
        f"a row of {length} among {others}": partial(
            lambda *sizes: one_long_row(*sizes).SerializeToString(), length, others
        )
        for length in (513, 4097, 100_000)
        for others in (0, MAX_INPUTS - 1, MAX_INPUTS)
    },
    **{
        f"{items} rows of {length}": partial(lambda *sizes: long_bytes(*sizes).SerializeToString(), items, length)
        for items in (1, 9, MAX_INPUTS, MAX_INPUTS + 1)
        for length in (512, 513)
    },
}
