"""Faults, tried on whole runs: robustness/faults.py is the table, these are its parts."""
