"""The packed engine on a GPU beside what else computes the same model there, in alternating turns."""
