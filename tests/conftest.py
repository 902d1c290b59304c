"""Threads as the server sets them, before anything imports torch; and no compiler but where a test asks for it.

Without a GPU, Triton's kernels are interpreted: Triton asks for it when it is first imported.
"""

import os
from pathlib import Path

from sluice_server.threads import set_thread_count

set_thread_count()
# It takes a core for half a minute, and nearly every test starts a server.
os.environ.setdefault("COMPILE", "off")
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")
