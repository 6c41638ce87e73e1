"""Models in the formats of other programs, so that nobody is locked in."""

from bitinfer.export.gguf import KINDS, Exported, export_gguf

__all__ = ["KINDS", "Exported", "export_gguf"]
