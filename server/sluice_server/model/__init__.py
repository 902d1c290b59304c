"""The model: where it comes from, how it is loaded, and how batches of it are computed. The only room with torch."""

from sluice_server.model.config import LoadedModel, ModelConfig
from sluice_server.model.loading import load_model

__all__ = ["LoadedModel", "ModelConfig", "load_model"]
