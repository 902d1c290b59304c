"""One end of a front end's socket, where the other end does not read or writes nonsense."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from sluice_server.frontends import link
from sluice_server.frontends.frames import Kind
from sluice_server.frontends.link import Link

FULL = b"\0" * (1 << 20)


class End:
    """A link, the bare socket at its other end, and whether the link is lost."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()
        self.link = Link(lambda _: None, self.lost.set)
        ours, self.other = socket.socketpair()
        self._socket = ours

    async def connect(self) -> None:
        await asyncio.get_running_loop().create_unix_connection(lambda: self.link, sock=self._socket)

    def fill(self) -> None:
        """Far more than the sockets and the link's own bound hold."""
        for _ in range(66):
            self.link.send(Kind.ANSWER, 1, FULL)

    async def until_behind(self) -> None:
        async with asyncio.timeout(5):
            while not self.link.is_behind:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0)


@pytest.fixture
async def end() -> AsyncIterator[End]:
    made = End()
    await made.connect()
    yield made
    made.link.abort()
    made.other.close()


async def test_who_does_not_read_for_long_is_given_up(end: End, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "_READ_WITHIN_SECONDS", 0.05)
    end.fill()
    await end.until_behind()
    async with asyncio.timeout(5):
        await end.lost.wait()
    end.link.send(Kind.BEAT)
    assert not end.link.is_behind, "nobody waits for one that is gone"


async def test_who_reads_again_is_kept(end: End) -> None:
    end.fill()
    await end.until_behind()
    end.other.setblocking(False)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(30):
        while end.link.is_behind:
            await loop.sock_recv(end.other, 1 << 20)
    assert not end.lost.is_set()


async def test_a_frame_that_is_none_ends_the_link(end: End, caplog: pytest.LogCaptureFixture) -> None:
    end.other.send(b"\xff" * 64)
    async with asyncio.timeout(5):
        await end.lost.wait()
    assert "a frame could not be read; the link ends" in caplog.text
