"""Runs inside the cluster: asks for more than can be computed until told to stop; prints how each request went.

THREADS clients ask again at once, refused ones after a pause; without THREADS there are as many as are not refused.
What was accepted has to be answered: anything but OK and a refusal is a loss.
"""

import json
import os
import signal
import sys
import threading
import time
from collections import Counter

import grpc
import numpy as np
from sluice.v1 import embeddings_pb2, embeddings_pb2_grpc

SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": "sluice.v1.Embeddings"},
    # A pod that goes away ends connections on which nothing was accepted yet.
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
ROWS, TOKENS = 16, 32
CALM_SECONDS = 1
# None fills a queue up to its limit and keeps it there.
MOST_THREADS = int(os.environ["THREADS"]) if "THREADS" in os.environ else None
# Of a refused client; shorter, and refusals would be most of what is asked. Where one pod is to be overloaded, asking
# again must not look as if the others could not carry it: its own speed changes with what else the machine does.
PAUSE_SECONDS = 15 if MOST_THREADS is None else 5

stopping = threading.Event()
signal.signal(signal.SIGTERM, lambda _signal, _frame: stopping.set())
outcomes: Counter[str] = Counter()
refused_at = [float("-inf")]
lock = threading.Lock()


def note(code: str, details: str | None = None) -> None:
    with lock:
        outcomes[code] += 1
        if outcomes[code] == 1:
            print(f"FIRST {code} {time.time():.3f}", flush=True)
        if details is not None and code != "RESOURCE_EXHAUSTED":
            print(f"{code}: {details}", flush=True)


def request() -> embeddings_pb2.EmbedRequest:
    ids = embeddings_pb2.TokenIds(
        ids=np.full(ROWS * TOKENS, 2000, dtype="<i4").tobytes(), lengths=np.full(ROWS, TOKENS, dtype="<i4").tobytes()
    )
    return embeddings_pb2.EmbedRequest(token_ids=ids)


def ask(stub: embeddings_pb2_grpc.EmbeddingsStub, deadline: float) -> None:
    while not stopping.is_set() and time.monotonic() < deadline:
        try:
            stub.Embed(request(), timeout=60, wait_for_ready=True)
            note("OK")
        except grpc.RpcError as error:
            note(error.code().name, error.details())
            refused_at.append(time.monotonic())
            stopping.wait(PAUSE_SECONDS)


def start(stub: embeddings_pb2_grpc.EmbeddingsStub, deadline: float) -> list[threading.Thread]:
    """All clients at once; or one more whenever none was refused lately, which keeps a queue at its limit."""
    threads: list[threading.Thread] = []
    while not stopping.is_set() and len(threads) < (MOST_THREADS or 200):
        if MOST_THREADS is None and time.monotonic() - refused_at[-1] < CALM_SECONDS:
            stopping.wait(0.1)
            continue
        threads.append(threading.Thread(target=ask, args=(stub, deadline)))
        threads[-1].start()
        if MOST_THREADS is None:
            stopping.wait(0.2)
    return threads


options = [
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
]
end = time.monotonic() + float(os.environ["MAX_SECONDS"])
with grpc.insecure_channel(os.environ["TARGET"], options=options) as channel:
    for one in start(embeddings_pb2_grpc.EmbeddingsStub(channel), end):
        one.join()
json.dump(outcomes, sys.stdout)
print(flush=True)
