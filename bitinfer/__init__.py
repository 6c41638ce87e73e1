"""Fast, exact CPU inference for ternary (1.58-bit) language models."""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

try:
    from bitinfer._core import __version__
except ModuleNotFoundError as cause:
    raise ImportError(
        f"bitinfer: the compiled part is missing in {__path__[0]}: if that is the source checkout, "
        "start Python in another folder, or install with `pip install .`"
    ) from cause
except ImportError as cause:  # of another system, Python or libc, or damaged
    raise ImportError(
        f"bitinfer: the compiled part does not load here ({sys.platform}, Python"
        f" {sys.version.split()[0]}; {cause}): install bitinfer again on this machine"
    ) from cause
from bitinfer.errors import (
    BitinferError,
    CheckpointError,
    ConfigError,
    ContextLengthError,
    ExportError,
    GrammarError,
    HistoryError,
    HubError,
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
    from bitinfer.export import Exported, export_gguf
    from bitinfer.generate import Completion, GenerateOptions, TextStream
    from bitinfer.model import Model
    from bitinfer.sampling import SamplingParams, TokenLogprob

__all__ = [
    "BitinferError",
    "CheckpointError",
    "Completion",
    "ConfigError",
    "ContextLengthError",
    "ExportError",
    "Exported",
    "GenerateOptions",
    "GrammarError",
    "HistoryError",
    "HubError",
    "Model",
    "PackedFileError",
    "PromptError",
    "SamplingParams",
    "TextStream",
    "TokenLogprob",
    "TokenizerError",
    "UnsupportedIsaError",
    "__version__",
    "active_isa",
    "available_isas",
    "default_model",
    "export_gguf",
    "include_dir",
    "library_dir",
    "num_threads",
]

# Imported only when asked for: they stand on NumPy and the tokenizer, which take their time.
_LATE = {
    "Completion": "generate",
    "Exported": "export",
    "GenerateOptions": "generate",
    "Model": "model",
    "SamplingParams": "sampling",
    "TextStream": "generate",
    "TokenLogprob": "sampling",
    "export_gguf": "export",
}


def __getattr__(name: str) -> Any:
    """Import a name of ``_LATE``."""
    if name in _LATE:
        return getattr(import_module(f"bitinfer.{_LATE[name]}"), name)
    raise AttributeError(f"module 'bitinfer' has no attribute {name!r}")
