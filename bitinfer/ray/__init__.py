"""Adapters for Ray (``pip install "bitinfer[ray]"``): replicas of the server, batches on hosts.

``serving.py`` puts the server's application into Ray Serve, ``data.py`` answers the rows of a batch
in actors of Ray Data. Ray places, restarts and scales; nothing of that is done here.

``import ray`` means the library here too, for the package's folder is never in ``sys.path``.
"""

from bitinfer.ray.data import RowAnswerer, run_batch
from bitinfer.ray.serving import app, deployment

__all__ = ["RowAnswerer", "app", "deployment", "run_batch"]
