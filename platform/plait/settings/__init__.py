"""Settings from file, environment and arguments."""
