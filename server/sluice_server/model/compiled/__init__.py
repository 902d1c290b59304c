"""A model compiled for this very CPU: made once, beside the process that serves it, kept in its cache, swapped in."""
