"""Faults, tried on whole runs: benchmarks/faults.py is the table, these are its parts."""
