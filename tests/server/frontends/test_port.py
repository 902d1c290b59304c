"""The port is kept for those who share it, and had by one server only."""

import socket

import pytest
from sluice_server.frontends.port import keep_port


def listener(port: int, *, shares: bool) -> socket.socket:
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shares:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        one.bind(("127.0.0.1", port))
        one.listen()
    except OSError:
        one.close()
        raise
    return one


def test_several_listen_beside_the_kept_port_and_get_every_connection() -> None:
    with keep_port("127.0.0.1:0") as kept:
        port = kept.getsockname()[1]
        with listener(port, shares=True), listener(port, shares=True):
            for _ in range(20):
                socket.create_connection(("127.0.0.1", port), timeout=5).close()


def test_whoever_does_not_share_is_kept_away() -> None:
    with keep_port("127.0.0.1:0") as kept:
        port = kept.getsockname()[1]
        with listener(port, shares=True), pytest.raises(OSError, match="in use"):
            listener(port, shares=False)


@pytest.mark.parametrize("shares", [True, False])
def test_a_port_on_which_another_server_listens_is_refused_though_it_would_share(shares: bool) -> None:
    with listener(0, shares=shares) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(OSError, match=f"cannot listen on {address}: .*in use"):
            keep_port(address)
