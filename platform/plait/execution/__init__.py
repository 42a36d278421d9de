"""Where trainings run: this process or Ray."""
