"""The model: where it comes from, how it is loaded, and how batches of it are computed. The only room with torch."""

from collections.abc import Callable

from sluice_server.model.config import LoadedModel, ModelConfig

__all__ = ["LoadedModel", "ModelConfig", "load_model"]


def load_model(config: ModelConfig, report: Callable[[str, str], None]) -> LoadedModel:
    """See loading.py; torch is imported here and not before, so that settings stay cheap to import."""
    from sluice_server.model import loading  # noqa: PLC0415

    return loading.load_model(config, report)
