"""Runs inside the cluster: embeds the texts of TEXTS over gRPC and prints the embeddings as one JSON line."""

import json
import os
import sys

import grpc
import numpy as np
from sluice.v1 import embeddings_pb2, embeddings_pb2_grpc

with grpc.insecure_channel(os.environ["TARGET"]) as channel:
    stub = embeddings_pb2_grpc.EmbeddingsStub(channel)
    texts = embeddings_pb2.Texts(values=json.loads(os.environ["TEXTS"]))
    reply = stub.Embed(embeddings_pb2.EmbedRequest(texts=texts), timeout=60, wait_for_ready=True)

rows = np.frombuffer(reply.embeddings.data, dtype="<f4").reshape(tuple(reply.embeddings.shape))
json.dump(rows.tolist(), sys.stdout)
