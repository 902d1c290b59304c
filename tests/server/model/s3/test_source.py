"""What is fetched from a store, and what it becomes: a model equal to the folder that was uploaded."""

import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sluice.v1 import embeddings_pb2 as pb
from sluice.v1 import embeddings_pb2_grpc
from sluice_server.backend import Batch
from sluice_server.errors import ModelLoadError
from sluice_server.model import ModelConfig, load_model, sources
from sluice_server.tokenizer import Truncation
from transformers import dynamic_module_utils

from tests.server.conftest import running_server
from tests.server.model.conftest import load, random_batch
from tests.server.model.s3.bucket import Bucket, content, refusal
from tests.server.test_apis import get

pytestmark = pytest.mark.timeout(900)  # the first build of the store's server takes minutes


def test_a_server_embeds_as_it_does_with_the_folder(bucket: Bucket, tiny: Path) -> None:
    bucket.upload(tiny)
    with running_server(
        model_path=bucket.uri, model_cache_dir=str(bucket.cache), dtype="float32", buckets=(16, 32), batch_sizes=(8,)
    ) as running:
        running.wait_for_phase("serving", "failed")
        document = json.loads(get(f"{running.url}/health"))
        assert document["phase"]["name"] == "serving", document["phase"]
        with running.channel() as channel:
            reply = embeddings_pb2_grpc.EmbeddingsStub(channel).Embed(
                pb.EmbedRequest(texts=pb.Texts(values=["w1 w2 w3"])), timeout=20
            )
    from_folder = load(tiny)
    assert document["model"]["revision"] == bucket.published()[0].name
    assert document["model"]["fingerprint"] == from_folder.backend.fingerprint()
    ours = np.frombuffer(reply.embeddings.data, np.float32)
    encoded = from_folder.tokenizer.encode(["w1 w2 w3"], prompt=None, truncate=Truncation.END)
    theirs = from_folder.backend.embed(_batch(encoded)).embeddings[0]
    np.testing.assert_allclose(ours, theirs / np.linalg.norm(theirs), atol=1e-6)


def _batch(encoded: Any) -> Any:
    return Batch(encoded.token_ids, encoded.lengths, bucket=16, rows=8)


def test_only_what_a_model_needs_is_fetched(bucket: Bucket, tiny: Path) -> None:
    bucket.upload(tiny)
    for name in ("model.onnx", "pytorch_model.bin", "checkpoint-5/model.safetensors", "README.md"):
        bucket.put(name, b"not needed")
    bucket.put("1_Pooling/config.json", b"{}")
    bucket.client.put_object(Bucket=bucket.name, Key="models/tiny-other/config.json", Body=b"{}")
    bucket.client.put_object(Bucket=bucket.name, Key="models/tiny/empty-folder/")
    folder, _ = bucket.fetch()
    assert content(folder) == {**content(tiny), "1_Pooling/config.json": b"{}"}


def test_pickles_come_only_when_they_are_asked_for(bucket: Bucket) -> None:
    bucket.put("config.json", b"{}")
    bucket.put("pytorch_model.bin", b"weights")
    fetch = lambda pickles: sources.fetch(bucket.uri, None, str(bucket.cache), lambda *_: None, allow_pickle=pickles)  # noqa: E731
    with pytest.raises(ModelLoadError, match=r"no weights; expected \*\.safetensors; it holds config\.json, pytorch_"):
        fetch(False)
    assert content(fetch(True).folder)["pytorch_model.bin"] == b"weights"


OWN_CODE = """
from transformers import BertConfig, BertModel

class OwnConfig(BertConfig):
    model_type = "own"

class OwnModel(BertModel):
    config_class = OwnConfig
"""


def test_a_model_of_its_own_code_is_served_where_the_code_is_trusted(
    bucket: Bucket, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.upload(tiny)
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}}
    bucket.put("config.json", json.dumps({**json.loads((tiny / "config.json").read_text()), **own}).encode())
    bucket.put("own.py", OWN_CODE.encode())
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(bucket.cache / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    config = ModelConfig(bucket.uri, cache_dir=str(bucket.cache), dtype="float32")
    with pytest.raises(ModelLoadError, match="trust_remote_code=True"):
        load_model(config, lambda *_: None)
    assert not list(bucket.cache.rglob("own.py")), "nor does it come"
    loaded = load_model(dataclasses.replace(config, trust_remote_code=True), lambda *_: None)
    batch = random_batch()
    np.testing.assert_allclose(
        loaded.backend.embed(batch).embeddings, load(tiny).backend.embed(batch).embeddings, atol=1e-5
    )


def test_a_second_start_downloads_nothing(bucket: Bucket, tiny: Path) -> None:
    bucket.upload(tiny)
    first = bucket.fetch()
    sent = bucket.proxy.bytes_sent
    assert bucket.fetch() == first
    assert bucket.proxy.bytes_sent == sent


def test_new_content_is_a_new_revision_beside_the_old_one(bucket: Bucket, tiny: Path) -> None:
    bucket.upload(tiny)
    old, old_revision = bucket.fetch()
    bucket.put("tokenizer_config.json", b"{}")
    new, new_revision = bucket.fetch()
    assert (old.name, new.name) == (old_revision, new_revision)
    assert sorted(bucket.published()) == sorted([old, new])
    assert content(new) == {**content(old), "tokenizer_config.json": b"{}"}


def test_a_revision_that_is_insisted_on_comes_from_the_cache_without_the_store(
    bucket: Bucket, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.upload(tiny)
    folder, revision = bucket.fetch()
    bucket.put("tokenizer_config.json", b"{}")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    assert bucket.fetch(revision=revision) == (folder, revision)


def test_a_revision_that_the_store_has_no_more_is_refused(bucket: Bucket, tiny: Path) -> None:
    bucket.upload(tiny)
    assert re.search(r"MODEL_REVISION=0123: s3://.* holds [0-9a-f]{16} now; expected", refusal(bucket, revision="0123"))


def test_a_listing_of_more_than_one_page(bucket: Bucket, tiny: Path) -> None:
    folder = bucket.store.folder / bucket.name / "models" / "tiny"
    folder.mkdir(parents=True)
    for number in range(1001):
        (folder / f"{number:04}.md").touch()
    bucket.upload(tiny)
    assert content(bucket.fetch()[0]) == content(tiny)
