"""Ray: training, tasks."""
