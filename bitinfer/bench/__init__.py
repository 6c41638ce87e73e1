"""The one timing loop, the record of a measurement, and what is made of records.

It measures, compares, writes tables and draws; ``cli/bench.py`` shows. ``benchmarks/README.md``
defines every field of a record.
"""

from bitinfer.bench.measure import bench
from bitinfer.bench.record import Record, read_records, write_records
from bitinfer.bench.roofline import Roofline

__all__ = ["Record", "Roofline", "bench", "read_records", "write_records"]
