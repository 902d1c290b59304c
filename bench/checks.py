"""Whether a contestant computes the model at all: its embeddings of fixed texts against sentence-transformers'."""

import base64
import json
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc
import numpy as np
from gpu_inference import inference_pb2 as coral_pb
from numpy.typing import NDArray
from sluice.v1 import embeddings_pb2 as sluice_pb

from bench.workload import Rows, as_ids, as_openai, as_padded_ids

Embed = Callable[[str, Rows], NDArray[np.float32]]
_SECONDS = 60
TEXTS = tuple((Path(__file__).parent / "checked_texts.txt").read_text().splitlines())


def lowest_cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Of rows of any length; NaN where a row is not finite."""
    scaled = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (one, other)]
    return float((scaled[0] * scaled[1]).sum(axis=1).min())


def sluice(target: str, rows: Rows) -> NDArray[np.float32]:
    """Embeddings by Sluice."""
    (message,) = as_ids([rows])[0].messages
    with grpc.insecure_channel(target) as channel:
        call = channel.unary_unary("/sluice.v1.Embeddings/Embed", None, sluice_pb.EmbedResponse.FromString)
        reply = call(message, timeout=_SECONDS).embeddings
    return np.frombuffer(reply.data, "<f4").reshape(*reply.shape)


def coral(target: str, rows: Rows) -> NDArray[np.float32]:
    """Embeddings by coral-gpu-inference, one text at a time, each padded to its bucket."""
    found = []
    with grpc.insecure_channel(target) as channel:
        call = channel.unary_unary("/gpu_inference.InferenceService/Infer", None, coral_pb.InferResponse.FromString)
        for ids, text in zip(rows.split(), rows.texts, strict=True):
            one = Rows(ids, np.array([len(ids)], dtype="<i4"), (text,))
            (message,) = as_padded_ids([one])[0].messages
            found.append(np.frombuffer(call(message, timeout=_SECONDS).embeddings_bytes, "<f4"))
    return np.stack(found)


def openai(url: str, rows: Rows) -> NDArray[np.float32]:
    """Embeddings by a server with OpenAI's API."""
    (message,) = as_openai([rows])[0].messages
    request = urllib.request.Request(url, message, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=_SECONDS) as response:
        data = json.load(response)["data"]
    return np.stack([np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in data])


def as_rows(ids: Sequence[Sequence[int]], texts: Sequence[str]) -> Rows:
    """One request of these texts."""
    lengths = np.array([len(row) for row in ids], dtype="<i4")
    return Rows(np.concatenate([np.array(row, dtype="<i4") for row in ids]), lengths, tuple(texts))
