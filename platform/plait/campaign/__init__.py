"""Use cases and ports: datasets, campaigns, rounds, models; no Ray, SQL, MLflow or HTTP."""
