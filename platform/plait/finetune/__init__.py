"""Fine-tuning a prior into a policy; one algorithm per file."""
