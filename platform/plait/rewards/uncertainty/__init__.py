"""What a reward model does not know."""
