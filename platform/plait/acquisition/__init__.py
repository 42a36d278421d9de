"""Batch choice."""
