"""One port for several processes: kept by the main one, so that it is theirs before the first of them listens."""

import socket


def keep_port(address: str) -> socket.socket:
    """A socket that is bound and never listens: whoever shares the port (SO_REUSEPORT) may listen beside it.

    Args:
        address: host:port; port 0 takes a free one.

    Raises:
        OSError: The address cannot be had, or somebody listens there already, sharing or not: two servers on one port
            would share its callers silently.
    """
    host, _, port = address.rpartition(":")
    family, kind, protocol, _, where = socket.getaddrinfo(
        host.strip("[]") or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    try:
        with socket.socket(family, kind, protocol) as alone:
            # As for any listener: what is left of closed connections does not count.
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind(where)
            taken = alone.getsockname()
        kept = socket.socket(family, kind, protocol)
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        kept.bind(taken)
    except OSError as error:
        raise OSError(f"cannot listen on {address}: {error}") from error
    return kept
