"""Runs inside the cluster: one small request after another until told to stop; prints how each went.

The channel is what the README tells users to make: the headless Service, round_robin, health checking,
and retries of UNAVAILABLE only (a pod that went away), so that a refusal for any other reason is seen.
"""

import json
import os
import signal
import sys
import threading
import time
from collections import Counter

import grpc
from sluice.v1 import embeddings_pb2, embeddings_pb2_grpc

SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": "sluice.v1.Embeddings"},
    "methodConfig": [
        {
            "name": [{"service": "sluice.v1.Embeddings"}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}

stopping = threading.Event()
signal.signal(signal.SIGTERM, lambda _signal, _frame: stopping.set())
outcomes: Counter[str] = Counter()
options = [
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
]
deadline = time.monotonic() + float(os.environ["MAX_SECONDS"])
with grpc.insecure_channel(os.environ["TARGET"], options=options) as channel:
    stub = embeddings_pb2_grpc.EmbeddingsStub(channel)
    request = embeddings_pb2.EmbedRequest(texts=embeddings_pb2.Texts(values=["a steady client asks", "and asks again"]))
    while not stopping.is_set() and time.monotonic() < deadline:
        try:
            stub.Embed(request, timeout=10, wait_for_ready=True)
            outcomes["OK"] += 1
        except grpc.RpcError as error:
            outcomes[error.code().name] += 1
            print(f"{error.code().name}: {error.details()}", flush=True)
        if outcomes.total() == 1:
            print("STARTED", flush=True)
        stopping.wait(0.05)
json.dump(outcomes, sys.stdout)
print(flush=True)
