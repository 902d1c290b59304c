"""`python -m sluice_operator`: settings from the environment and from flags; see --help."""

from __future__ import annotations

import asyncio
import signal
import sys

from pydantic import ValidationError

from sluice_operator import logs, settings
from sluice_operator.runtime import Operator


def main() -> int:
    """Runs until SIGTERM; 2 where a setting is wrong, 1 where the operator cannot go on."""
    try:
        configured = settings.from_command_line(sys.argv[1:])
    except ValidationError as error:
        for fault in error.errors():
            name = "_".join(map(str, fault["loc"])).upper() or "SETTINGS"
            sys.stderr.write(f"{name}={fault['input']!r}: {fault['msg']}\n")
        return 2
    logs.configure(configured)
    return asyncio.run(run(configured))


async def run(configured: settings.Settings) -> int:
    """The operator with these settings, until it is told to stop or fails; its exit status."""
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    operator = Operator(configured)
    stopping = asyncio.create_task(told.wait(), name="wait for a signal")
    running = asyncio.create_task(_run(operator), name="run")
    try:
        await asyncio.wait({stopping, running}, return_when=asyncio.FIRST_COMPLETED)
        return running.result() if running.done() else 0
    finally:
        stopping.cancel()
        running.cancel()
        await asyncio.wait({running})
        await operator.stop()


async def _run(operator: Operator) -> int:
    await operator.start()
    await operator.failed()
    return 1


if __name__ == "__main__":
    sys.exit(main())
