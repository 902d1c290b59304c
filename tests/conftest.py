"""Threads as the server sets them, before anything imports torch; and no compiler but where a test asks for it."""

import os

from sluice_server.threads import set_thread_count

set_thread_count()
# It takes a core for half a minute, and nearly every test starts a server.
os.environ.setdefault("COMPILE", "off")
