"""The local cluster's tools."""
