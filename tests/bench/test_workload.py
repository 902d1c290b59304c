"""The same work for everybody."""

import json

import numpy as np
import pytest
from gpu_inference import inference_pb2 as coral_pb
from sluice.v1 import embeddings_pb2 as sluice_pb
from tokenizers import Tokenizer

from bench import workload
from bench.workload import CORAL_BUCKETS, Rows
from tests.server.conftest import minilm_folder


@pytest.fixture(scope="module")
def work() -> list[Rows]:
    vocabulary = workload.read_vocabulary(str(minilm_folder()))
    return workload.draw(vocabulary, "bimodal", 50, texts=4)


def test_texts_and_ids_are_the_same_work(work: list[Rows]) -> None:
    tokenizer = Tokenizer.from_file(str(minilm_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    for rows in work:
        assert [tokenizer.encode(text).ids for text in rows.texts] == [list(ids) for ids in rows.split()]


def test_work_is_drawn_alike_every_time(work: list[Rows]) -> None:
    again = workload.draw(workload.read_vocabulary(str(minilm_folder())), "bimodal", 50, texts=4)
    assert [rows.texts for rows in again] == [rows.texts for rows in work]


def test_a_request_to_sluice_holds_ragged_rows(work: list[Rows]) -> None:
    request = workload.as_ids(work)[0]
    parsed = sluice_pb.EmbedRequest.FromString(request.messages[0])
    assert np.array_equal(np.frombuffer(parsed.token_ids.ids, "<i4"), work[0].ids)
    assert np.array_equal(np.frombuffer(parsed.token_ids.lengths, "<i4"), work[0].lengths)
    assert (request.tokens, request.padded_tokens) == (work[0].ids.size, 0)


def test_a_request_to_coral_has_a_message_for_each_bucket_and_counts_its_padding(work: list[Rows]) -> None:
    for rows, request in zip(work, workload.as_padded_ids(work), strict=True):
        parsed = [coral_pb.InferRequest.FromString(message) for message in request.messages]
        assert sum(one.num_items for one in parsed) == len(rows.lengths)
        assert all(one.seq_len in CORAL_BUCKETS and one.seq_len == one.bucket_max_len for one in parsed)
        assert len({one.seq_len for one in parsed}) == len(parsed)
        masks = [np.frombuffer(one.attention_mask_bytes, "<i4") for one in parsed]
        assert sum(int(mask.sum()) for mask in masks) == request.tokens == rows.ids.size
        assert sum(mask.size for mask in masks) - request.tokens == request.padded_tokens


def test_a_request_in_openais_form_holds_the_texts(work: list[Rows]) -> None:
    assert json.loads(workload.as_openai(work)[0].messages[0])["input"] == list(work[0].texts)


def test_a_model_without_wordpiece_is_refused_by_name(tmp_path: object) -> None:
    with pytest.raises(SystemExit, match="no WordPiece tokenizer"):
        workload.read_vocabulary(str(tmp_path))
