"""One JSON object a line, or text; one line per change of phase, and whatever went wrong."""

import logging
import sys

from pythonjsonlogger.json import JsonFormatter


def configure(level: str, log_format: str) -> None:
    """Sends every log record to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    if log_format == "json":
        fields = "{asctime}{levelname}{name}{message}"
        handler.setFormatter(JsonFormatter(fields, style="{", rename_fields={"asctime": "time", "levelname": "level"}))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("transformers", "huggingface_hub", "httpx", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
