"""Batches: a file of requests becomes one of answers, each row once, also if it is cut off.

``rows.py`` reads requests, ``runner.py`` answers them by the application that the server runs,
``results.py`` writes and reads answers, ``journal.py`` keeps them until all are there, and
``run.py`` does it on one machine.
"""
