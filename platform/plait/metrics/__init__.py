"""Diversity, calibration, rank statistics, noise (numpy)."""
