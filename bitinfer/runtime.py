"""The native core's settings and maths as Python sees them: ISA rows, threads, installed files.

Thin over ``_core``; nothing here knows of models.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitinfer import _core
from bitinfer.cpu_count import performance_cores
from bitinfer.errors import ConfigError, UnsupportedIsaError

if TYPE_CHECKING:  # imported where it is used: `bitinfer --help` is twice as quick without
    import numpy as np
    from numpy.typing import NDArray

MAX_THREADS = 256  # kMaxThreads of csrc/threads/thread_pool.h

_PACKAGE = Path(__file__).parent
_noted: set[str] = set()


def available_isas() -> list[str]:
    """Names of the ISA rows that this machine can run, best first; ``scalar`` is always last."""
    return _core.available_isas()


def active_isa() -> str:
    """Name of the ISA row in use: the best one, or the one that ``BITINFER_ISA`` names.

    Warns once with each note of the dispatch (a row that failed its self-test and was passed over).

    Raises:
        UnsupportedIsaError: ``BITINFER_ISA`` or ``BITINFER_GEMV`` names something that is unknown
            or not usable here; the message lists the choices.
    """
    try:
        name = _core.active_isa()
        for packing in _core.layouts():
            _core.gemv_family(packing)
    except (ValueError, RuntimeError) as cause:
        raise UnsupportedIsaError(str(cause)) from None
    for note in _core.dispatch_notes():
        note_once(note)
    return name


def note_once(note: str) -> None:
    """Warn of what the user can do without, once in the life of the process."""
    if note not in _noted:
        _noted.add(note)
        warnings.warn(note, RuntimeWarning, stacklevel=3)


def isa_report() -> list[dict[str, Any]]:
    """Every ISA row of this architecture, best first: ``name``, ``usable``, ``reason`` if not."""
    return _core.isa_report()


def self_test(isa: str) -> str:
    """Run a usable row's kernels against the scalar ones: "" or the first difference."""
    return _core.self_test(isa)


def reset_dispatch() -> None:
    """Use the best row and the faster GEMV, whatever BITINFER_ISA and BITINFER_GEMV say."""
    _core.set_isa(_core.available_isas()[0])
    _core.set_gemv("auto")


def auto_packing() -> str:
    """The packing that is fastest on the active row."""
    return _core.auto_packing()


def bits_per_weight(packing: str) -> float:
    """Bits that ``packing`` takes for one ternary weight of whole tiles."""
    bits: float = _core.layouts()[packing]["bits_per_weight"]
    return bits


def num_threads(tuned: int | None = None) -> int:
    """Threads to run by default: ``BITINFER_NUM_THREADS``, else the physical performance cores.

    Args:
        tuned: What to run instead of the performance cores, if it was measured.

    Raises:
        ConfigError: the variable is not a whole number from 1 to ``MAX_THREADS``.
    """
    text = os.environ.get("BITINFER_NUM_THREADS", "").strip()
    if not text:
        return tuned or min(MAX_THREADS, performance_cores())
    if not (
        text.isascii() and text.isdecimal() and len(text) < 9 and 1 <= int(text) <= MAX_THREADS
    ):
        raise ConfigError(
            f"BITINFER_NUM_THREADS: expected a whole number from 1 to {MAX_THREADS}, got {text!r}"
        )
    return int(text)


def exp(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The exponential function of each float32, the same bits on every machine; a fresh array."""
    import numpy as np

    return _core.exp_f32(np.ascontiguousarray(x, dtype=np.float32))


def pow_f64(base: float, exponents: NDArray[np.float64]) -> NDArray[np.float64]:
    """``base`` to each float64 exponent, the same bits on every machine; a fresh array."""
    import numpy as np

    return _core.pow_f64(base, np.ascontiguousarray(exponents, dtype=np.float64))


def gemv_family(packing: str) -> str:
    """``"addsub"`` or ``"dot"``: the GEMV that decode uses for ``packing`` on the active row."""
    return _core.gemv_family(packing)


def read_bandwidth(
    buffer: NDArray[np.uint8], threads: int, streams: int, repeats: int
) -> list[float]:
    """Seconds that each of ``repeats`` reads of the whole ``buffer`` took, prefetched.

    Args:
        buffer: uint8, 1-D; its size a multiple of ``64 * streams``.
        threads: Threads that share the buffer.
        streams: Far-apart streams per thread.
        repeats: Reads, timed one by one.
    """
    return _core.read_bandwidth(buffer, threads, streams, repeats)


def version() -> str:
    """Version of bitinfer."""
    return _core.__version__


def core_file() -> Path:
    """The file of the native core."""
    return Path(_core.__file__)


def compiler() -> str:
    """The compiler that built the native core, its version and flags."""
    return _core.compiler


def default_model() -> Path:
    """The folder of the embedded model, a small ternary one that tells children's stories."""
    return _PACKAGE / "models" / "tales-14m"


def include_dir() -> Path:
    """The folder of the C header ``bitinfer.h``."""
    return _PACKAGE / "include"


def library_dir() -> Path:
    """The folder of the C library ``libbitinfer``."""
    return _PACKAGE / "lib"
