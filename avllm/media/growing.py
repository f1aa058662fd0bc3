"""A waveform whose length is not known before its end, at the memory of one."""

import numpy as np
from jaxtyping import Float32

_MOVED = 1 << 20  # samples at a time: what overlaps is copied first


class GrowingWaveform:
    """Takes a waveform piece by piece.

    What is set aside but not written yet costs no memory, and it grows where it is: pieces that are put together at
    the end would take twice as much as their result.

    Args:
        num_channels: of all pieces.
        expected: how many samples it will have, as far as that is known.
    """

    def __init__(self, num_channels: int, expected: int) -> None:
        self.num_channels, self.room, self.num_samples = num_channels, max(1, expected), 0
        self.flat = np.empty(self.num_channels * self.room, np.float32)

    def append(self, piece: Float32[np.ndarray, "c s"]) -> None:
        """Adds a piece at the end."""
        end = self.num_samples + piece.shape[1]
        if end > self.room:
            self._grow(max(end, self.room + self.room // 2))
        self.flat.reshape(self.num_channels, self.room)[:, self.num_samples : end] = piece
        self.num_samples = end

    def take(self) -> Float32[np.ndarray, "c s"]:
        """All pieces as one; nothing is added after that."""
        count = self.num_samples
        for channel in range(1, self.num_channels):
            source, target = channel * self.room, channel * count
            for start in range(0, count, _MOVED):
                end = min(start + _MOVED, count)
                self.flat[target + start : target + end] = self.flat[source + start : source + end]
        self.flat.resize(self.num_channels * count, refcheck=False)
        return self.flat.reshape(self.num_channels, count)

    def _grow(self, room: int) -> None:
        self.flat.resize(self.num_channels * room, refcheck=False)
        for channel in range(self.num_channels - 1, 0, -1):
            source, target = channel * self.room, channel * room
            for end in range(self.num_samples, 0, -_MOVED):
                start = max(0, end - _MOVED)
                self.flat[target + start : target + end] = self.flat[source + start : source + end]
        self.room = room
