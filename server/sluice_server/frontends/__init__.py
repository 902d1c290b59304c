"""Front ends: processes that speak gRPC for the one that computes, where one event loop is too slow for the device.

The main process keeps engine, admission and device; each front end decodes, checks, tokenizes and encodes.
"""
