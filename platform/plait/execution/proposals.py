"""Which trials a sweep runs: proposed by Optuna in generations, halved on their way; the same trials every time.

Search by Optuna's TPE (Bergstra et al. 2011), early stopping by asynchronous successive halving (Li et al. 2020): at a
look, a trial goes on that is among the best one in `reduction` of all that were judged there. Both are told of finished
generations only, in the order of trial numbers, so that what is proposed and what is stopped depend neither on how many
trials run at a time nor on which of them ends first. For the same reason there is no state to save: a sweep that was
interrupted is told its outcomes again, in order, and asks the same.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from plait.campaign.sweep_ports import Axis, SweepPlan, Trial, TrialOutcome
from plait.execution.trials import find_outcome

FLOORS = "floors"
LOST = "its process was lost, and so were those that took its place"


class Proposals:
    """The generations of a sweep, one after the other."""

    def __init__(self, plan: SweepPlan) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._plan, self.outcomes = plan, list[TrialOutcome]()
        num_random = max(plan.generation, plan.num_trials // 4)
        sampler = optuna.samplers.TPESampler(n_startup_trials=num_random, seed=plan.seed % 2**32)
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._distributions: dict[str, Any] = {name: _distribution(axis) for name, axis in plan.axes.items()}
        self._asked: list[Any] = []

    def ask(self) -> list[Trial]:
        """The next generation, once the one before was told, in the order of trial numbers; [] after the last."""
        done, cutoffs = len(self.outcomes), self._cutoffs()
        num = min(self._plan.generation, self._plan.num_trials - done)
        self._asked = [self._study.ask(self._distributions) for _ in range(num)]
        return [Trial(done + i, dict(asked.params), cutoffs) for i, asked in enumerate(self._asked)]

    def tell(self, outcomes: list[TrialOutcome]) -> None:
        """What became of the generation that was asked for, in the same order."""
        from optuna.trial import TrialState

        for asked, outcome in zip(self._asked, outcomes, strict=True):
            if outcome.error:
                self._study.tell(asked, state=TrialState.FAIL)
                continue
            for look in outcome.looks:
                asked.report(look["score"], look["update"])
            asked.set_constraint(FLOORS, outcome.looks[-1]["shortfall"])
            if outcome.is_stopped:  # ranked behind all that were trained to the end, by how far it came
                self._study.tell(asked, state=TrialState.PRUNED)
            else:
                self._study.tell(asked, outcome.looks[-1]["score"])
        self.outcomes += outcomes
        self._asked = []

    def _cutoffs(self) -> tuple[tuple[int, float], ...]:
        """For each update at which trials were judged, the score that the next must reach to go on."""
        judged: dict[int, list[float]] = {}
        for look in (look for outcome in self.outcomes for look in outcome.looks):
            judged.setdefault(look["update"], []).append(-math.inf if look["shortfall"] > 0 else look["score"])
        kept = {
            at: sorted(scores, reverse=True)[math.ceil(len(scores) / self._plan.reduction) - 1]
            for at, scores in sorted(judged.items())
            if len(scores) >= self._plan.reduction
        }
        return tuple((at, score) for at, score in kept.items() if math.isfinite(score))


class Generations:
    """The trials of a sweep, handed out one generation after the other; those with an outcome are not handed out.

    Args:
        plan: The sweep.
        root: Of the storage in which outcomes are kept.
    """

    def __init__(self, plan: SweepPlan, root: str) -> None:
        self._root, self._proposals = root, Proposals(plan)
        self._open: list[Trial] = []
        self._waiting: deque[Trial] = deque()
        self._ended: dict[int, TrialOutcome] = {}
        self._go_on()

    def is_over(self) -> bool:
        """All trials have ended."""
        return not self._open

    @property
    def outcomes(self) -> list[TrialOutcome]:
        """By number, of finished generations."""
        return self._proposals.outcomes

    @property
    def num_ended(self) -> int:
        """Trials that have ended."""
        return len(self.outcomes) + len(self._ended)

    def hand_out(self) -> Trial | None:
        """The next trial to run, None while all of the generation are handed out."""
        return self._waiting.popleft() if self._waiting else None

    def end(self, trial: Trial) -> None:
        """A trial that was handed out has ended, well or not."""
        self._ended[trial.number] = find_outcome(self._root, trial) or TrialOutcome(trial, error=LOST)
        self._go_on()

    def _go_on(self) -> None:
        """Open generations until one has a trial without outcome, or none is left."""
        while len(self._ended) == len(self._open):
            if self._open:
                self._proposals.tell([self._ended[trial.number] for trial in self._open])
            self._open, self._ended = self._proposals.ask(), {}
            for trial in self._open:
                if (outcome := find_outcome(self._root, trial)) is not None:
                    self._ended[trial.number] = outcome
                else:
                    self._waiting.append(trial)
            if not self._open:
                return


def _distribution(axis: Axis) -> Any:
    from optuna.distributions import FloatDistribution, IntDistribution

    if axis.is_whole:
        return IntDistribution(int(axis.low), int(axis.high), log=axis.is_log)
    return FloatDistribution(axis.low, axis.high, log=axis.is_log)
