"""What a batch costs beside its tokens, learned from batches of different lengths. Pure."""

import math
from dataclasses import dataclass

# Busy time or number of batches, whichever comes later, after which an old batch has lost 63 % of its weight: a few
# batches of seconds each say too little to go by.
_MEMORY_SECONDS = 5.0
_MEMORY_BATCHES = 16.0
# By so much of what they say beyond what is believed, each batch moves it; half as much while they are few.
_STEP = 0.2
_FEW_BATCHES = 2.0
# No batch takes less than what every batch costs, and a little for its tokens.
MOST_SHARE = 0.97


@dataclass(slots=True)
class FixedCost:
    """Where the line through batches' times over their lengths meets zero: least squares that forget.

    Errors count relative to a batch's own time, so that long batches do not outweigh short ones, and one that something
    else held up hardly counts. Batches of one length say nothing of where the line meets zero, and move nothing.

    Attributes:
        seconds: As believed now; the warm-up's word at first, which is wrong where the machine was busy meanwhile.
    """

    seconds: float = 0.0
    _batches: float = 0.0
    _weight: float = 0.0
    _x: float = 0.0
    _xx: float = 0.0
    _y: float = 0.0
    _xy: float = 0.0

    def observe(self, length: float, busy_seconds: float) -> None:
        """Learns from one batch.

        Args:
            length: Of the batch, by a measure that stays the same and that time grows with as with a line.
            busy_seconds: What it took.
        """
        decay = math.exp(-min(busy_seconds / _MEMORY_SECONDS, 1 / _MEMORY_BATCHES))
        weight = busy_seconds**-2
        self._batches = self._batches * decay + 1
        self._weight = self._weight * decay + weight
        self._x = self._x * decay + weight * length
        self._xx = self._xx * decay + weight * length**2
        self._y = self._y * decay + weight * busy_seconds
        self._xy = self._xy * decay + weight * length * busy_seconds
        # 0 where all are of one length, near 1 where they differ by much; and with it, the line's height at zero.
        spread = 1 - self._x**2 / (self._weight * self._xx)
        height = (self._y - self._x * self._xy / self._xx) / self._weight
        step = _STEP * self._batches / (self._batches + _FEW_BATCHES)
        believed = self.seconds + step * (height - spread * self.seconds)
        self.seconds = min(max(0.0, believed), MOST_SHARE * busy_seconds)
