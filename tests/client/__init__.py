"""The client: its pure parts, and both clients and the command against real servers."""
