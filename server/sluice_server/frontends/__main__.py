"""`python -m sluice_server.frontends FD`: started by the main process, which says the rest through the socket FD."""

import signal
import sys

# Of a group's signals the main process says what they mean; before the imports, which take a while.
for _number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(_number, signal.SIG_IGN)


def main() -> int:
    """0 after an orderly end, 1 when the port cannot be listened on."""
    import socket

    import uvloop

    from sluice_server.frontends.front_end import serve

    try:
        uvloop.run(serve(socket.socket(fileno=int(sys.argv[1]))))
    except OSError:
        # The main process was told, and says it.
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
