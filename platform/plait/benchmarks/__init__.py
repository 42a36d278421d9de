"""Measurements of speed and of designs, run by hand or by `plait benchmark`."""
