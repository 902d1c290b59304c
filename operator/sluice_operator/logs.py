"""One log line per thing that happened: JSON for machines, plain text for a terminal."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from pythonjsonlogger.json import JsonFormatter

if TYPE_CHECKING:
    from sluice_operator.settings import Settings


def configure(settings: Settings) -> None:
    """Sends every log line of the process to stderr in the format that was asked for."""
    handler = logging.StreamHandler(sys.stderr)
    if settings.log_format == "json":
        handler.setFormatter(
            JsonFormatter(
                "{asctime}{levelname}{name}{message}",
                style="{",
                rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
            )
        )
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    # kopf tells of every watch and every event that it handles; only its troubles matter here.
    logging.getLogger("kopf").setLevel(max(logging.WARNING, logging.getLevelName(settings.log_level)))
    # It runs in a thread on purpose, and need not warn that signals do not reach it there.
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
