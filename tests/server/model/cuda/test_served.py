"""A whole server on the GPU's path, computed on the CPU without graphs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sluice.v1 import embeddings_pb2 as pb
from sluice.v1 import embeddings_pb2_grpc
from sluice_server.backend import Batch
from sluice_server.model import LoadedModel, load_model
from sluice_server.tokenizer import Truncation

from tests.server.conftest import running_server
from tests.server.model.conftest import load
from tests.server.model.cuda.conftest import LIMITS, graph_backend


def test_every_request_gets_its_own_embeddings(family_folder: Callable[[str], Path]) -> None:
    folder = family_folder("bert")
    backend = graph_backend(folder)
    texts = [" ".join(f"w{number + place}" for place in range(1 + number % 7)) for number in range(40)]

    def on_device(config: Any, report: Any) -> LoadedModel:
        return LoadedModel(backend, load_model(config, report).tokenizer)

    with running_server(
        on_device, model_path=str(folder), dtype="float32", compile="off", backpressure_max_drain_ms=60_000,
        buckets=(16, 64, 256), max_tokens_per_batch=LIMITS.tokens, max_batch_size=LIMITS.rows,
    ) as running:  # fmt: skip
        running.wait_for_phase("serving", "failed")
        assert running.server.engine.phase.name == "serving", running.server.engine.phase
        with running.channel() as channel:
            stub = embeddings_pb2_grpc.EmbeddingsStub(channel)
            calls = [stub.Embed.future(pb.EmbedRequest(texts=pb.Texts(values=[text])), timeout=60) for text in texts]
            got = np.stack([np.frombuffer(call.result().embeddings.data, dtype=np.float32) for call in calls])
    np.testing.assert_allclose(got, unit_rows(folder, texts), atol=1e-4)


def unit_rows(folder: Path, texts: list[str]) -> np.ndarray:
    plain = load(folder, layout="padded")
    encoded = plain.tokenizer.encode(texts, prompt=None, truncate=Truncation.END)
    rows = plain.backend.embed(Batch(encoded.token_ids, encoded.lengths, 64, len(texts))).embeddings
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
