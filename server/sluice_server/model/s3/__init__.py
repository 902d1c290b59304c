"""Models from an S3-compatible object store. Needs the extra s3: import it only where an s3:// address is asked for.

`source` decides what to fetch and from where; `store` speaks with the store and `errors` says what it refuses;
`transfer` downloads in `parallel` with a `journal`, and proves the files by their `checksums`; `snapshots` shares
them between processes.
"""

from sluice_server.model.s3.source import fetch

__all__ = ["fetch"]
