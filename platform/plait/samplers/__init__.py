"""Drawing designs from a prior or policy; one algorithm per file."""
