"""Sweeps on Ray Tune: every trial a process of its own, as many at a time as there is room for.

Tune starts the trials, keeps their number within bounds and starts again those whose process was lost. What is tried,
what stops and what is known after an interruption is decided in `proposals` and `trials`: Tune's own state is thrown
away with every run of a sweep.
"""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Callable
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

from plait.campaign.sweep_ports import SweepPlan, Trial, TrialOutcome
from plait.design.errors import RunFailedError
from plait.design.records import Progress
from plait.execution import cluster
from plait.execution.loop import reason_of
from plait.execution.proposals import Generations
from plait.execution.telling import Teller
from plait.execution.trials import run_trial
from plait.execution.waiting import run_beside
from plait.settings import Settings

MAX_RESTARTS = 2
TUNE_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # curves and outcomes are ours
    "RAY_AIR_NEW_OUTPUT": "0",  # with verbose=0, nothing on the user's stdout
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
"""What Tune reads in the driver; a variable that is set already wins."""


def sweep(
    settings: Settings,
    plan: SweepPlan,
    *,
    run_id: str,
    storage: str,
    task: str,
    progress: Progress,
    seconds_between_checkpoints: float,
) -> list[TrialOutcome]:
    """Run what is left of a sweep on Ray; see Executor.sweep. Ctrl-C stops Ray before it goes on upwards.

    Raises:
        RunFailedError: Ray or Tune failed; what is finished stays.
        ConfigError: The cluster has no room for one trial, or cannot be reached.
    """
    search, teller = Generations(plan, storage), Teller(progress, task, plan.num_trials)
    if search.is_over():
        return search.outcomes
    cluster.bring_up(settings, math.ceil(settings.worker_cpus), lambda text: teller.say(search.num_ended, text))
    for name, value in TUNE_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a lost process is replaced, or told as a failed trial
    try:
        with TemporaryDirectory(prefix="plait-tune-") as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Ray uses what Ray has deprecated
            run = partial(_run, root=storage, torch_threads=settings.torch_threads, seconds=seconds_between_checkpoints)
            tuner = _tuner(settings, plan, search, run, run_id, folder)
            run_beside(tuner.fit, _Watch(teller, search).look)
    except _tune_errors() as error:
        raise RunFailedError(f"{task} failed: {reason_of(error)[0]}", hint="run again to go on from there") from None
    if not search.is_over():
        raise RunFailedError(f"{task} ended after {search.num_ended} trials", hint="run again to go on from there")
    return search.outcomes


def _run(config: dict[str, Any], *, plan: SweepPlan, root: str, torch_threads: int, seconds: float) -> None:
    """What Tune calls in a worker."""
    from ray import tune

    trial = Trial(config["number"], config["values"], tuple(map(tuple, config["cutoffs"])))
    outcome = run_trial(plan, trial, root, torch_threads, seconds)
    tune.report({"score": outcome.looks[-1]["score"] if outcome.looks else math.nan})


def _tuner(
    settings: Settings, plan: SweepPlan, search: Generations, run: Callable[..., None], run_id: str, folder: str
) -> Any:
    from ray import tune

    most = min(n for n in (plan.max_concurrent, settings.max_concurrent_trials, plan.num_trials) if n is not None)
    return tune.Tuner(
        tune.with_resources(tune.with_parameters(run, plan=plan), {"CPU": settings.worker_cpus}),
        tune_config=tune.TuneConfig(
            search_alg=_searcher(search),
            num_samples=plan.num_trials,
            max_concurrent_trials=most,
            reuse_actors=True,  # one start of a process and its imports for many trials
            trial_dirname_creator=lambda trial: f"trial-{trial.config['number']}",
        ),
        run_config=tune.RunConfig(
            name=run_id,
            storage_path=folder,
            failure_config=tune.FailureConfig(max_failures=MAX_RESTARTS),
            verbose=0,
        ),
    )


def _searcher(search: Generations) -> Any:
    """The generations as Tune asks for trials."""
    from ray.tune.search import Searcher

    running: dict[str, Trial] = {}

    class Asked(Searcher):  # type: ignore[misc]
        def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
            if search.is_over():
                return str(Searcher.FINISHED)
            if (trial := search.hand_out()) is None:
                return None
            running[trial_id] = trial
            return {"number": trial.number, "values": trial.values, "cutoffs": list(trial.cutoffs)}

        def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
            search.end(running.pop(trial_id))

        def save(self, checkpoint_path: str) -> None:
            pass

        def restore(self, checkpoint_path: str) -> None:
            pass

    return Asked()


class _Watch:
    """Tells how many trials have ended."""

    def __init__(self, teller: Teller, search: Generations) -> None:
        self._teller, self._search, self._told = teller, search, -1

    def look(self) -> None:
        """Tell what is new."""
        if (num := self._search.num_ended) != self._told:
            self._told = num
            self._teller.say(num, f"{num} trials judged")


def _tune_errors() -> tuple[type[BaseException], ...]:
    from ray.exceptions import RayError
    from ray.tune import TuneError

    return RayError, TuneError
