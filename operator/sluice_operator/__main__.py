"""`python -m sluice_operator`: settings from the environment and from flags; see --help."""

from __future__ import annotations

import asyncio
import sys

import kopf
from pydantic import ValidationError

from sluice_operator import handlers, logs, settings
from sluice_operator.runtime import Operator


def main() -> int:
    """Runs until SIGTERM; 2 where a setting is wrong."""
    try:
        configured = settings.from_command_line(sys.argv[1:])
    except ValidationError as error:
        for fault in error.errors():
            name = "_".join(map(str, fault["loc"])).upper()
            sys.stderr.write(f"{name}={fault['input']!r}: {fault['msg']}\n")
        return 2
    logs.configure(configured)
    asyncio.run(run(configured))
    return 0


async def run(configured: settings.Settings) -> None:
    """The operator with these settings, until it is stopped."""
    operator = Operator(configured)
    try:
        await kopf.operator(
            registry=kopf.get_default_registry(),
            memo=kopf.Memo(operator=operator),
            # Its own guess needs a user name, and the container's user has none.
            identity=configured.identity,  # type: ignore[arg-type]
            standalone=True,
            clusterwide=not configured.watch_namespaces,
            namespaces=configured.watch_namespaces,
        )
    finally:
        await operator.stop()


__all__ = ["handlers", "main", "run"]

if __name__ == "__main__":
    sys.exit(main())
