"""The operator: pure parts as tables, the rest against a real API server."""
