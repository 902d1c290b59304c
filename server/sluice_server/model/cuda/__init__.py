"""The packed layout on a GPU: shapes, staging, graphs, and two batches under way at once."""
