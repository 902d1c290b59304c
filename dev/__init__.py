"""Development tools: local cluster, image builds, demo. Standard library only: they run before any venv exists."""
