"""Runs inside the cluster: asks for more than can be computed until told to stop; prints how each request went.

THREADS clients ask again at once, refused ones when the server asks them to.
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
# Of a client that is refused without a word.
PAUSE_SECONDS = 1

stopping = threading.Event()
signal.signal(signal.SIGTERM, lambda _signal, _frame: stopping.set())
outcomes: Counter[str] = Counter()
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
    refusals = 0
    while not stopping.is_set() and time.monotonic() < deadline:
        try:
            metadata = (("sluice-refusals", str(refusals)),)
            stub.Embed(request(), timeout=60, wait_for_ready=True, metadata=metadata)
            note("OK")
            refusals = 0
        except grpc.RpcError as error:
            note(error.code().name, error.details())
            refusals += 1
            trailers = dict(error.trailing_metadata() or ())
            stopping.wait(int(trailers.get("grpc-retry-pushback-ms", 1000 * PAUSE_SECONDS)) / 1000)


options = [
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
]
end = time.monotonic() + float(os.environ["MAX_SECONDS"])
with grpc.insecure_channel(os.environ["TARGET"], options=options) as channel:
    stub = embeddings_pb2_grpc.EmbeddingsStub(channel)
    threads = [threading.Thread(target=ask, args=(stub, end)) for _ in range(int(os.environ["THREADS"]))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
json.dump(outcomes, sys.stdout)
print(flush=True)
