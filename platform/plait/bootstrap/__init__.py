"""Builds concrete adapters from settings: the only room that knows them all."""
