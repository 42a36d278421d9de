"""Runs benchmarks/training_speed.py on a home of its own: `python -m plait.bootstrap.training_speed`."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from plait.benchmarks.training_speed import Curves, TimedJob, main
from plait.bootstrap.home import create_home
from plait.design.records import no_progress


def train(job: TimedJob, num_workers: int) -> Curves:
    """By Ray Train, on an embedded Ray that comes and goes."""
    with TemporaryDirectory() as folder, create_home(folder) as home:
        return home.executor.train(
            job,
            run_id="speed",
            directory=Path(folder, "run"),
            num_workers=num_workers,
            seed=0,
            task="fine-tuning",
            progress=no_progress,
        )


if __name__ == "__main__":
    main(train)
