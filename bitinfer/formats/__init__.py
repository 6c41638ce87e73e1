"""Strict readers of model files, one module per container; ``packed`` also writes."""
