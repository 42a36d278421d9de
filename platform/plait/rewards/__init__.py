"""Reward models and conservatism."""
