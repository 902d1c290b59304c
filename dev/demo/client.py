"""Runs inside the cluster: embeds a few sentences over gRPC and prints how alike they are."""

import os

import numpy as np
from sluice_client import EmbeddingClient

SENTENCES = [
    "How do I send back shoes that do not fit?",
    "Returns are free within thirty days.",
    "The cat sleeps on the warm windowsill.",
    "A kitten naps in the sun.",
    "Interest rates rose by a quarter of a point.",
]

with EmbeddingClient(os.environ["TARGET"]) as client:
    info = client.info()
    rows = client.embed(SENTENCES)

print(f"model {info.model_uri}, {info.embedding_dimension} dimensions, {info.dtype} on {info.device}\n")
similarities = np.asarray(rows, dtype=np.float32) @ np.asarray(rows, dtype=np.float32).T
print(" " * 48 + "".join(f"{column:>7}" for column in range(1, len(SENTENCES) + 1)))
for place, (sentence, line) in enumerate(zip(SENTENCES, similarities, strict=True), start=1):
    print(f"{place}  {sentence:45}" + "".join(f"{value:7.2f}" for value in line))
