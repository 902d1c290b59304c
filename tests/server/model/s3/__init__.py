"""Models from an object store."""
