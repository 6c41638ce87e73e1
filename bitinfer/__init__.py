"""Fast, exact CPU inference for ternary (1.58-bit) language models."""

from typing import TYPE_CHECKING, Any

try:
    from bitinfer._core import __version__
except ModuleNotFoundError as cause:
    raise ImportError(
        f"bitinfer: the compiled part is missing in {__path__[0]}: if that is the source checkout, "
        "start Python in another folder, or install with `pip install .`"
    ) from cause
from bitinfer.errors import (
    BitinferError,
    CheckpointError,
    ConfigError,
    ContextLengthError,
    PackedFileError,
    PromptError,
    TokenizerError,
    UnsupportedIsaError,
)
from bitinfer.runtime import (
    active_isa,
    available_isas,
    default_model,
    include_dir,
    library_dir,
    num_threads,
)

if TYPE_CHECKING:
    from bitinfer.generate import Completion
    from bitinfer.model import Model

__all__ = [
    "BitinferError",
    "CheckpointError",
    "Completion",
    "ConfigError",
    "ContextLengthError",
    "Model",
    "PackedFileError",
    "PromptError",
    "TokenizerError",
    "UnsupportedIsaError",
    "__version__",
    "active_isa",
    "available_isas",
    "default_model",
    "include_dir",
    "library_dir",
    "num_threads",
]


def __getattr__(name: str) -> Any:
    """Import what stands on the tokenizer only when asked for: a quick start without it."""
    if name == "Model":
        from bitinfer.model import Model

        return Model
    if name == "Completion":
        from bitinfer.generate import Completion

        return Completion
    raise AttributeError(f"module 'bitinfer' has no attribute {name!r}")
