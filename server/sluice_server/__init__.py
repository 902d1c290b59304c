"""Sluice's inference server: admission, buckets, batcher, device worker, notifier, in that direction only."""

__version__ = "0.1.0"
