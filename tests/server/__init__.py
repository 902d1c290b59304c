"""The inference server: pure parts as timelines and properties, the rest through real sockets with a real model."""
