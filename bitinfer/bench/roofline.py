"""The memory roofline: the fastest read of some bytes, by the kernels' own way of streaming."""

from __future__ import annotations

import numpy as np

from bitinfer import runtime

ROOFLINE_STREAMS = (1, 2, 4, 8)  # far-apart streams per thread that are tried
_READ_BYTES = 64 << 20  # a smaller buffer is read several times in a row
_BUFFER_UNIT_BYTES = 64 * max(ROOFLINE_STREAMS)


class Roofline:
    """The fastest read of some bytes of memory that this machine has shown.

    Args:
        num_bytes: Size of the buffer, rounded up to whole streams.
        threads: Threads that read it.

    Attributes:
        gb_per_s: Best rate so far, 10^9 bytes a second; 0 before the first read.
    """

    def __init__(self, num_bytes: int, threads: int) -> None:
        self._threads = threads
        size = -(-num_bytes // _BUFFER_UNIT_BYTES) * _BUFFER_UNIT_BYTES
        self._buffer = np.ones(size, np.uint8)  # written, so that every page is its own
        self.gb_per_s = 0.0

    def read(self) -> float:
        """Read the buffer with each number of streams.

        Returns:
            The best rate of this call, 10^9 bytes a second.
        """
        times = max(1, _READ_BYTES // self._buffer.size)
        best_s = min(
            seconds
            for streams in ROOFLINE_STREAMS
            for seconds in runtime.read_bandwidth(self._buffer, self._threads, streams, times)
        )
        rate = self._buffer.size / best_s / 1e9
        self.gb_per_s = max(self.gb_per_s, rate)
        return rate
