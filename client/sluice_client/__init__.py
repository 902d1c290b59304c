"""Embeddings from a Sluice service, as numpy arrays.

from sluice_client import EmbeddingClient

with EmbeddingClient("dns:///minilm-headless:50051") as client:
    rows = client.embed(["a text", "another"])   # float32 (2, dimension), unit length
"""

from sluice_client.aio import AsyncEmbeddingClient
from sluice_client.channel import ChannelOptions
from sluice_client.errors import (
    DeadlineError,
    EmbeddingError,
    InvalidRequestError,
    OverloadedError,
    UnauthenticatedError,
    UnavailableError,
    UsageError,
)
from sluice_client.requests import EmbedOptions
from sluice_client.results import Embedded
from sluice_client.retry import RetryPolicy
from sluice_client.sync import EmbeddingClient

__all__ = [
    "AsyncEmbeddingClient",
    "ChannelOptions",
    "DeadlineError",
    "EmbedOptions",
    "Embedded",
    "EmbeddingClient",
    "EmbeddingError",
    "InvalidRequestError",
    "OverloadedError",
    "RetryPolicy",
    "UnauthenticatedError",
    "UnavailableError",
    "UsageError",
]
