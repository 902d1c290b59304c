"""Threads as the server sets them, before anything imports torch."""

from sluice_server.threads import set_thread_count

set_thread_count()
