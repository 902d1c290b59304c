"""Engines without a server around them, each in a process of its own: the lines to beat, and Sluice's own."""
