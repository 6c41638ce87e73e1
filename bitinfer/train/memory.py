"""Memory of a process that trains on the CPU."""

from __future__ import annotations

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h


def keep_freed_memory() -> None:
    """Have the C library keep the memory that is freed, for what is allocated next: mallopt(3).

    A step of training frees as much as it takes. By default glibc gives large tensors back to the
    system, which then fills each of their pages with zeros again: a quarter of a step and more.
    Other C libraries are left as they are.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    library = ctypes.CDLL(None)
    library.mallopt(_M_MMAP_MAX, 0)
    library.mallopt(_M_TRIM_THRESHOLD, -1)
