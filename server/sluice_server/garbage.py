"""When Python looks for garbage: of a process that serves."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

# Objects between two looks for garbage, and looks before older ones are looked at again. Python's own 700 are what a
# few requests make: it looked hundreds of times a second, for 6 % of the event loop's time.
_THRESHOLDS = (10_000, 20, 10)


@contextmanager
def looked_for_rarely() -> Iterator[None]:
    """While a process serves."""
    usual = gc.get_threshold()
    gc.set_threshold(*_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        # Python lets go of everything in the end, and libraries complain of what it does not see.
        gc.unfreeze()
