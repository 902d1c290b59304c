"""Front ends: their frames and rules as properties, their processes with a real model."""
