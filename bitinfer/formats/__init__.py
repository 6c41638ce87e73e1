"""Strict readers of model files: safetensors, GGUF, and ``packed``, which also writes."""
