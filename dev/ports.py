"""Free ports of loopback that stay free until their daemon listens on them, and while it is started anew."""

import contextlib
import random
import socket

# Below those that the kernel gives to outgoing connections: a client that tries again and again while a daemon is away
# would sooner or later be given the daemon's own port, and the daemon could not come back.
_FIRST, _LAST = 20_000, 32_000


def free_ports(count: int) -> list[int]:
    """So many different ones.

    Raises:
        OSError: There are not so many.
    """
    with contextlib.ExitStack() as held:
        found: list[int] = []
        for port in random.sample(range(_FIRST, _LAST), _LAST - _FIRST):
            one = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                one.bind(("127.0.0.1", port))
                found.append(port)
            if len(found) == count:
                return found
    raise OSError(f"no {count} free ports between {_FIRST} and {_LAST} on loopback")
