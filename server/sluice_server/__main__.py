"""`python -m sluice_server`: settings from the environment or flags; `--help` lists them all."""

import atexit
import os
import sys
from typing import NoReturn

import uvloop
from pydantic import ValidationError

from sluice_server import logs, threads
from sluice_server.rpc import polling
from sluice_server.settings import Settings, describe


def main() -> int:
    """0 after an orderly end, 1 when a port cannot be listened on, 2 for a bad setting."""
    try:
        settings = Settings(_cli_parse_args=True)
    except ValidationError as error:
        print(describe(error), file=sys.stderr)  # noqa: T201
        return 2
    logs.configure(settings.log_level, settings.log_format)
    threads.set_thread_count()
    polling.wait_in_one_thread()
    from sluice_server.model import load_model
    from sluice_server.server import serve

    # It brings a handler of its own when it is imported.
    logs.adopt("transformers")

    try:
        uvloop.run(serve(settings, load_model))
    except OSError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


def end_at_once(code: int) -> NoReturn:
    """Does what is to be done at the end, but does not take the interpreter apart.

    The device's thread may be loading or computing in native code, and would be ended in the middle of it, by which the
    process aborts.
    """
    atexit._run_exitfuncs()  # noqa: SLF001 - what the interpreter would call first, too
    os._exit(code)


if __name__ == "__main__":
    end_at_once(main())
