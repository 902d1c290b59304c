"""Every setting, from the environment or a flag; checked before anything is loaded."""

import importlib.util
import os
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from sluice_server import tls_check

CONTROL_TOKENS = (
    "[product]", "[title]", "[category]", "[brand]", "[color]", "[attributes]", "[identifiers]", "[bullets]",
    "[description]", "[price]", "[attr_key]", "[attr_val]", "[id_key]", "[id_val]", "[=]", "[;]", "[|]",
    "[unknown]", "[query]",
)  # fmt: skip


_MODEL_SCHEMES = ("file", "hf", "s3")
_MOST_FRONT_ENDS = 256
# CloudWatch's own rule; besides, AWS/ is Amazon's.
_CLOUDWATCH_NAMESPACE = r"^[A-Za-z0-9._/#:-]{1,255}$"


def _split(value: object) -> object:
    """`16,32` and `["16", "32"]` and `[16, 32]` are the same list."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.startswith("[") and text.endswith("]") and "],[" not in text and '"' in text:
        text = text[1:-1].replace('"', "")
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _auto_or_number(value: object) -> object:
    """`auto`, or what pydantic makes a number of: of both it would say what it says of each."""
    text = str(value).strip().lower()
    if text == "auto":
        return text
    if not text.isascii() or not text.isdigit() or int(text) > _MOST_FRONT_ENDS:
        raise ValueError(f"expected auto, or a number from 0 to {_MOST_FRONT_ENDS}")
    return int(text)


def _aws_region() -> str | None:
    """Where the pod runs, as Amazon's own environment says it."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")


FrontEndCount = Annotated[int | Literal["auto"], BeforeValidator(_auto_or_number)]
Ascending = Annotated[tuple[int, ...], NoDecode, BeforeValidator(_split)]
Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Port = Annotated[int, Field(ge=0, le=65535)]


class Settings(BaseSettings):
    """The server's settings. Names are the environment's; each is a --flag, too."""

    model_config = SettingsConfigDict(
        case_sensitive=False, extra="ignore", frozen=True, cli_kebab_case=True, cli_prog_name="python -m sluice_server",
        env_ignore_empty=True, cli_hide_none_type=True, protected_namespaces=(),
    )  # fmt: skip

    model_path: str = Field(
        "answerdotai/ModernBERT-base",
        description="Hub id (org/name or hf://org/name[@revision]), local folder, file:///folder, or "
        "s3://bucket/folder (credentials, region and endpoint: AWS_* as for any AWS client).",
    )
    model_revision: str | None = Field(
        None, description="Branch, tag or commit on the hub; of s3://, the revision to insist on, as /info shows it."
    )
    model_cache_dir: str = Field("/tmp/model_cache", description="Where downloaded models are kept.")  # noqa: S108
    trust_remote_code: bool = Field(False, description="Run code that comes with the model.")
    allow_pickle: bool = Field(
        False, description="Load weights that are only there as *.bin; unpickling them can run code."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where to compute.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Of the computation; auto takes bfloat16 where the device computes it natively."
    )
    compile: Literal["auto", "off", "reduce-overhead"] = Field(
        "auto",
        description="auto compiles a packed model for this CPU in the background and then serves that; kept in "
        "MODEL_CACHE_DIR, so the next start has it at once. Needs g++ and 1.5 GiB of memory while it lasts. "
        "On a GPU it compiles the model's layers before it serves, with gcc. "
        "reduce-overhead compiles the padded layout with torch.compile, with torch's own CUDA graphs on a GPU; "
        "the start takes minutes longer.",
    )
    quantization: Literal["none", "int8", "fp8"] = Field(
        "none",
        description="int8 multiplies bytes where Sluice's own CPU engine computes the model (AVX-512 VNNI), "
        "fp8 multiplies 8-bit floats on GPUs that can (compute capability 8.9; DTYPE bfloat16, LAYOUT packed), "
        "if the embeddings of fixed texts come near to float32's (cosine 0.99); else the log says why not.",
    )
    layout: Literal["auto", "packed", "padded"] = Field(
        "auto",
        description="packed computes no padding; auto takes it where the model's embeddings stay the same. On a GPU "
        "packed is for bfloat16 and float16 only, as its attention takes no float32.",
    )
    pooling: Literal["auto", "mean", "cls", "last"] = Field("auto", description="auto reads the model's own.")
    exclude_tokens: Words = Field(CONTROL_TOKENS, description="Tokens left out of mean pooling, comma-separated.")
    pooling_exclude_special_tokens: bool = Field(False, description="Leave out CLS and SEP of mean pooling, too.")
    max_input_tokens: Annotated[int, Field(ge=2)] | None = Field(
        None, description="Where texts are truncated, in tokens; default: the model's own."
    )

    buckets: Ascending = Field((16, 32, 64, 128, 256, 512), description="Length buckets, in tokens, ascending.")
    batch_sizes: Ascending = Field(
        (1, 2, 4, 8, 16, 32, 64, 128, 256, 512), description="Fixed batch sizes of the padded layout."
    )
    max_batch_size: int = Field(512, ge=1, description="Inputs per batch.")
    max_tokens_per_batch: int = Field(32768, ge=16, description="Tokens per batch, padding included.")
    target_batch_ms: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Time that one batch should take, in ms; default: 25 on cpu, 5 on cuda."
    )
    deadline_wait_ms: int = Field(
        50, ge=1, description="After so long in the queue an input of the padded layout goes first, in ms."
    )
    gpu_queue_maxsize: int = Field(4, ge=1, description="Batches at the device at once; more than 2 count as 2.")
    max_inputs_per_request: int = Field(2048, ge=1, description="Inputs in one request.")
    max_tokens_per_request: int = Field(131072, ge=16, description="Tokens in one request.")
    max_message_bytes: int = Field(64 << 20, ge=1 << 16, description="Size of one gRPC message or HTTP body, in bytes.")
    tokenizer_threads: int = Field(2, ge=1, description="Threads that turn texts into tokens.")

    backpressure_throughput_enabled: bool = Field(True, description="Refuse when the queue would drain too slowly.")
    backpressure_max_drain_ms: float = Field(2000, gt=0, description="Longest time that the queue may need, in ms.")
    backpressure_max_queued_tokens: int = Field(131072, ge=16, description="Most tokens that the queue may hold.")
    backpressure_latency_enabled: bool = Field(False, description="Refuse when the P95 latency is too high.")
    backpressure_soft_p95_ms: float = Field(
        100, gt=0, description="Above it batch work and a quarter of the rest is refused, in ms."
    )
    backpressure_hard_p95_ms: float = Field(200, gt=0, description="Above it all is refused, in ms.")
    backpressure_window_seconds: float = Field(1, gt=0, description="Over which the P95 is taken, in seconds.")

    grpc_host: str = Field("0.0.0.0", description="Address to listen on.")  # noqa: S104
    grpc_port: Port = Field(50051, description="gRPC; 0 takes a free one.")
    front_ends: FrontEndCount = Field(
        "auto",
        description="Processes that speak gRPC for the one that computes, all on GRPC_PORT; 0: it does so itself. "
        "auto: none on a CPU; beside a GPU one for every three CPUs, at most 4. Each takes about 95 MiB and up to a "
        "core.",
    )
    http_health_port: Port = Field(
        8001, description="HTTP: probes, /health, /metrics, /v1/embeddings; 0 takes a free one."
    )
    tls_cert_file: str | None = Field(None, description="PEM of the server's certificate chain; gRPC then speaks TLS.")
    tls_key_file: str | None = Field(None, description="PEM of the server's private key.")
    tls_client_ca_file: str | None = Field(None, description="PEM of who signs clients' certificates; asks for one.")
    api_token: SecretStr | None = Field(None, description="Bearer token that both ports ask for, but for the probes.")
    max_connection_age_seconds: int = Field(300, ge=1, description="After it a client is asked to connect anew, in s.")
    shutdown_propagation_seconds: float = Field(5, ge=0, description="From SIGTERM until new work is refused, in s.")
    shutdown_drain_seconds: float = Field(10, ge=0, description="Longest time to finish admitted work, in s.")

    metrics_enabled: bool = Field(False, description="Publish to CloudWatch, too; /metrics is always there.")
    metrics_namespace: Annotated[str, Field(pattern=_CLOUDWATCH_NAMESPACE)] = Field(
        "GPUInference", description="CloudWatch's, for every metric."
    )
    metrics_region: str | None = Field(
        default_factory=_aws_region, description="CloudWatch's; default: AWS_REGION or AWS_DEFAULT_REGION."
    )
    metrics_interval_seconds: float = Field(60, ge=1, description="From one publication to the next, in seconds.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least severity logged.")
    log_format: Literal["json", "text"] = Field("json", description="One JSON object a line, or text.")

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        for name in ("buckets", "batch_sizes"):
            values = getattr(self, name)
            if not values or values[0] < 1 or list(values) != sorted(set(values)):
                raise ValueError(f"{name.upper()}={_shown(values)}: expected positive numbers in ascending order")
        if self.backpressure_soft_p95_ms >= self.backpressure_hard_p95_ms:
            raise ValueError(
                f"BACKPRESSURE_SOFT_P95_MS={self.backpressure_soft_p95_ms:g}: expected less than "
                f"BACKPRESSURE_HARD_P95_MS={self.backpressure_hard_p95_ms:g}"
            )
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("TLS_CERT_FILE and TLS_KEY_FILE: expected both or neither")
        if self.tls_client_ca_file and not self.tls_cert_file:
            raise ValueError("TLS_CLIENT_CA_FILE: expected TLS_CERT_FILE and TLS_KEY_FILE, too")
        tls_check.check(self.tls_cert_file, self.tls_key_file, self.tls_client_ca_file)
        self._check_model_path()
        self._check_cloudwatch()
        if self.buckets[-1] > self.max_tokens_per_batch:
            raise ValueError(
                f"MAX_TOKENS_PER_BATCH={self.max_tokens_per_batch}: expected at least "
                f"the largest bucket, {self.buckets[-1]}"
            )
        return self

    def _check_model_path(self) -> None:
        scheme, separator, _ = self.model_path.partition("://")
        if separator and scheme not in _MODEL_SCHEMES:
            allowed = ", ".join(f"{one}://" for one in _MODEL_SCHEMES)
            raise ValueError(f"MODEL_PATH={self.model_path}: expected a folder, a hub id, or one of {allowed}")
        if scheme == "s3" and separator and importlib.util.find_spec("boto3") is None:
            raise ValueError(
                f"MODEL_PATH={self.model_path}: s3:// needs the extra `s3`; expected pip install 'sluice-server[s3]'"
            )

    def _check_cloudwatch(self) -> None:
        if not self.metrics_enabled:
            return
        if importlib.util.find_spec("boto3") is None:
            raise ValueError(
                "METRICS_ENABLED=true: CloudWatch needs the extra `cloudwatch`; "
                "expected pip install 'sluice-server[cloudwatch]', or METRICS_ENABLED=false"
            )
        if self.metrics_namespace.startswith("AWS/"):
            raise ValueError(f"METRICS_NAMESPACE={self.metrics_namespace}: expected one that does not begin with AWS/")
        if not self.metrics_region:
            raise ValueError("METRICS_ENABLED=true: no region is known; expected METRICS_REGION or AWS_REGION")


def describe(error: ValidationError) -> str:
    """One line for each bad setting: the variable, the value, and what is allowed."""
    return "\n".join(_line(one) for one in error.errors())


def _line(one: Any) -> str:
    if not one["loc"]:
        return str(one["msg"]).removeprefix("Value error, ")
    name = str(one["loc"][0]).upper()
    return f"{name}={_shown(one['input'])}: {str(one['msg']).removeprefix('Value error, ')}"


def _shown(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
