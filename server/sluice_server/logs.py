"""One JSON object a line, or text; one line per change of phase, and whatever went wrong.

Quiet by default: at INFO no request leaves a line; DEBUG has one for each. A request's lines bear its id.
"""

import logging
import sys

from pythonjsonlogger.json import JsonFormatter

from sluice_server.observability import scope as scopes

_NOISY = ("transformers", "huggingface_hub", "httpx", "urllib3", "boto3", "botocore", "s3transfer")


class RequestFilter(logging.Filter):
    """Lets every record through, with the ids of the request that its task serves, where it serves one."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Adds request_id, and trace_id while tracing is on."""
        scope = scopes.current()
        if scope is not None:
            record.request_id = scope.request_id
            if scope.trace is not None:
                record.trace_id = scope.trace.trace_id
        return True


def configure(level: str, log_format: str) -> None:
    """Sends every log record to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(log_format))
    handler.addFilter(RequestFilter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)


def adopt(library: str) -> None:
    """Takes a library's own handler from it: its records look like all the others."""
    logger = logging.getLogger(library)
    logger.handlers.clear()
    logger.propagate = True


def formatter(log_format: str) -> logging.Formatter:
    """For `json` or `text`."""
    if log_format == "json":
        fields = "{asctime}{levelname}{name}{message}"
        return JsonFormatter(fields, style="{", rename_fields={"asctime": "time", "levelname": "level"})
    return logging.Formatter(
        "%(asctime)s %(levelname)s %(name)s [%(request_id)s]: %(message)s", defaults={"request_id": "-"}
    )
