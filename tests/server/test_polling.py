"""gRPC waits for its sockets as it was told before it was imported."""

import os
import subprocess
import sys

STARTS_GRPC = """
from sluice_server.rpc import polling
polling.wait_in_one_thread()
import asyncio, os, grpc
async def main():
    server = grpc.aio.server()
    await server.start()
    await server.stop(None)
asyncio.run(main())
print(os.environ["GRPC_EXPERIMENTS"])
"""


def told_and_said(**environment: str) -> tuple[str, str]:
    """What gRPC was told, and what it says of it."""
    usual = {name: value for name, value in os.environ.items() if name != "GRPC_EXPERIMENTS"}
    done = subprocess.run(
        [sys.executable, "-c", STARTS_GRPC],
        env=usual | environment, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout.strip(), done.stderr


def test_grpc_knows_the_way_to_wait_that_is_chosen_for_it() -> None:
    assert told_and_said() == ("-event_engine_listener", "")


def test_a_users_own_choice_stays_and_grpc_says_what_it_does_not_know() -> None:
    told, said = told_and_said(GRPC_EXPERIMENTS="-no_such_way")
    assert told == "-no_such_way"
    assert "Unknown experiment: no_such_way" in said
