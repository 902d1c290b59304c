"""`python -m sluice_server`: settings from the environment or flags; `--help` lists them all."""

import sys

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


if __name__ == "__main__":
    sys.exit(main())
