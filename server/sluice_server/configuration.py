"""What each part is told, from the settings."""

from sluice_server.admission import AdmissionLimits
from sluice_server.backend import Backend, LaunchingBackend
from sluice_server.backpressure import LatencyGate
from sluice_server.batcher import BatchLimits
from sluice_server.engine import EngineConfig
from sluice_server.frontends.setup import FrontEndConfig
from sluice_server.intake import IntakeConfig
from sluice_server.model.config import ModelConfig
from sluice_server.security import TlsFiles, read_tls_files
from sluice_server.settings import Settings
from sluice_server.validation import RequestLimits

_TARGET_BATCH_MS = {"cpu": 25.0, "cuda": 5.0}


def engine_config(settings: Settings) -> EngineConfig:
    """What the engine is told, from the settings."""
    throughput = settings.backpressure_throughput_enabled
    gate = LatencyGate(settings.backpressure_soft_p95_ms, settings.backpressure_hard_p95_ms)
    return EngineConfig(
        model_uri=settings.model_path,
        boundaries=settings.buckets,
        batch_sizes=settings.batch_sizes,
        max_batches_at_device=settings.gpu_queue_maxsize,
        intake=IntakeConfig(
            AdmissionLimits(
                max_drain_ms=settings.backpressure_max_drain_ms if throughput else None,
                max_queued_tokens=settings.backpressure_max_queued_tokens if throughput else None,
            ),
            latency_gate=gate if settings.backpressure_latency_enabled else None,
            latency_window_seconds=settings.backpressure_window_seconds,
        ),
    )


def batch_limits(settings: Settings, backend: Backend) -> BatchLimits:
    """What one batch may be, on this device and in this layout."""
    target_ms = settings.target_batch_ms or _TARGET_BATCH_MS[backend.info.device]
    is_packed = backend.info.layout == "packed"
    return BatchLimits(
        # More rows than the largest size would be a shape of its own each time.
        max_rows=settings.max_batch_size if is_packed else min(settings.max_batch_size, settings.batch_sizes[-1]),
        max_tokens=settings.max_tokens_per_batch,
        target_seconds=target_ms / 1000,
        stale_after_seconds=settings.deadline_wait_ms / 1000,
        patience_seconds=settings.backpressure_max_drain_ms / 1000,
        mixes_buckets=is_packed,
        token_steps=backend.token_steps if isinstance(backend, LaunchingBackend) else (),
    )


def model_config(settings: Settings) -> ModelConfig:
    """What the model is told, from the settings."""
    return ModelConfig(
        uri=settings.model_path,
        revision=settings.model_revision,
        cache_dir=settings.model_cache_dir,
        device=settings.device,
        dtype=settings.dtype,
        layout=settings.layout,
        pooling=settings.pooling,
        exclude_tokens=settings.exclude_tokens,
        exclude_special_tokens=settings.pooling_exclude_special_tokens,
        max_input_tokens=settings.max_input_tokens,
        trust_remote_code=settings.trust_remote_code,
        allow_pickle=settings.allow_pickle,
        compile=settings.compile == "auto",
        compile_padded=settings.compile == "reduce-overhead",
        quantization=settings.quantization,
        max_batch_rows=settings.max_batch_size,
        max_batch_tokens=settings.max_tokens_per_batch,
    )


def request_limits(settings: Settings) -> RequestLimits:
    """What one request may hold."""
    return RequestLimits(settings.max_inputs_per_request, settings.max_tokens_per_request)


def front_end_config(settings: Settings) -> FrontEndConfig:
    """What each front end is told; raises OSError where a TLS file cannot be read."""
    return FrontEndConfig(
        address="",
        limits=request_limits(settings),
        tokenizer_threads=settings.tokenizer_threads,
        max_message_bytes=settings.max_message_bytes,
        max_connection_age_seconds=settings.max_connection_age_seconds,
        tls=tls_files(settings),
        token=secret(settings),
        log_level=settings.log_level,
        log_format=settings.log_format,
    )


def tls_files(settings: Settings) -> TlsFiles | None:
    """The contents of the files; raises OSError where one cannot be read."""
    return read_tls_files(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)


def secret(settings: Settings) -> str | None:
    """The bearer token; None asks for none."""
    return settings.api_token.get_secret_value() if settings.api_token else None
