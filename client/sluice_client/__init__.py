"""Embeddings from a Sluice service, as numpy arrays.

from sluice_client import EmbeddingClient

with EmbeddingClient("dns:///minilm-headless:50051") as client:
    rows = client.embed(["a text", "another"])   # float32 (2, dimension), unit length
"""

from sluice_client.aio import AsyncEmbeddingClient
from sluice_client.channel import ChannelOptions
from sluice_client.errors import EmbeddingError
from sluice_client.requests import EmbedOptions
from sluice_client.sync import EmbeddingClient

__all__ = ["AsyncEmbeddingClient", "ChannelOptions", "EmbedOptions", "EmbeddingClient", "EmbeddingError"]
