"""Sluice's wire contracts."""
