"""Generative models over a design space."""
