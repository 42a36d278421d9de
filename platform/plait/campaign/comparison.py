"""The same offline data given to every method once, so that a campaign can see what its own method is worth.

Each method makes one batch from round 1's data and is a stage of its own: done once, found again later. Values come as
the models see them; measured values are looked up when the report is gathered.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from plait.campaign import catalog
from plait.campaign.jobs import item_elbo
from plait.campaign.ports import Ports
from plait.campaign.proposing import open_turn
from plait.campaign.rounds import latest_round
from plait.campaign.stage_runs import flush_outbox, run_stage
from plait.campaign.stages import STAGES, finetune_job
from plait.campaign.trials import draw_with_kl
from plait.campaign.turns import Outcome, Turn
from plait.metrics.diversity import kmer_correlation, mean_pairwise_distance, novelty, unique_fraction
from plait.priors.base import keep_gradients
from plait.rewards.conservatism import Kind
from plait.rewards.support_gate import SupportGate

SCALE = 1.0
"""Standard deviations that the BRAID variants of the comparison subtract."""
LOOKS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
"""Shares of the updates after which a policy is looked at."""
LOOK_SIZE = 64


@dataclass(frozen=True)
class FineTuned:
    """One fine-tuning method of the comparison."""

    algorithm: str
    kind: Kind = "none"
    scale: float = 0.0


METHODS: dict[str, FineTuned | None] = {
    "offline": None,
    "prior": None,
    "best_of_n": None,
    "strl": FineTuned("strl"),
    "drakes": FineTuned("drakes"),
    "braid_boot": FineTuned("braid", "boot", SCALE),
    "braid_bonus": FineTuned("braid", "bonus", SCALE),
    "exhaustive": None,
}
"""Name -> how its policy is made; None where there is no policy to train."""


@dataclass(frozen=True)
class Batch:
    """What one method made."""

    tokens: NDArray[np.int64]
    is_sampled: bool
    kl: float | None = None
    looks: tuple[dict[str, Any], ...] = ()


def compare(ports: Ports, name: str, settings: dict[str, Any] | None = None) -> None:
    """Run every method on round 1's data (what is done already is not done again).

    Args:
        ports: The world.
        name: The campaign.
        settings: Of all fine-tuners alike; their defaults where left out.

    Raises:
        WrongStateError: Round 1 was not proposed yet.
    """
    outputs: dict[str, dict[str, Any]] = {}
    turn = ports.repository.transact(lambda uow: open_turn(ports, uow, name, latest_round(uow, name, 1), outputs))
    for stage in ("benchmark", "prior", "fit_reward"):
        run_stage(turn, stage, STAGES[stage], outputs)
    methods = [method for method in METHODS if _is_possible(turn, method)]
    for index, method in enumerate(methods):
        ports.progress("comparing methods", index, len(methods), method)
        run_stage(turn, f"compare/{method}", lambda t, m=method: _compare_one(t, m, settings or {}), dict(outputs))  # type: ignore[misc]
    ports.progress("comparing methods", len(methods), len(methods), "")
    flush_outbox(ports)


def _is_possible(turn: Turn, method: str) -> bool:
    if method == "exhaustive":
        return turn.space.size <= turn.config.batch.exhaustive_limit
    recipe = METHODS[method]
    if recipe is None or not catalog.find("finetune", recipe.algorithm).needs_gradient:
        return True
    return turn.plan("optimiser", recipe.kind, recipe.scale).build().is_differentiable


def _compare_one(turn: Turn, method: str, settings: dict[str, Any]) -> Outcome:
    started = time.monotonic()
    batch = _make(turn, method, settings)
    seconds = time.monotonic() - started
    return Outcome(
        {"method": turn.ports.artifacts.put_json(_describe(turn, method, batch)), "seconds": round(seconds, 1)}
    )


def _make(turn: Turn, method: str, settings: dict[str, Any]) -> Batch:
    size, recipe = turn.config.batch.size, METHODS[method]
    generator = turn.generator(f"compare/{method}")
    if method == "offline":
        return Batch(turn.dataset.tokens[np.argsort(-turn.dataset.values, kind="stable")[:size]], False)
    if recipe is not None:
        return _fine_tuned(turn, method, recipe, settings)
    objective = turn.plan("optimiser", "none", 0.0).build()
    sampler = catalog.find("samplers", "ancestral" if method == "prior" else method)
    state = sampler.prepare(sampler.Config(), turn.prior(), objective, turn.dataset, generator)
    return Batch(sampler.sample(state, size, generator).tokens.numpy(), method != "exhaustive")


def _fine_tuned(turn: Turn, method: str, recipe: FineTuned, settings: dict[str, Any]) -> Batch:
    """Tune in this process, looking at the policy now and then."""
    generator = turn.generator(f"compare/{method}")
    job = finetune_job(turn, recipe.algorithm, settings, recipe.kind, recipe.scale)
    algorithm = catalog.find("finetune", recipe.algorithm)
    objective = job.plan.build()
    state = job.begin(algorithm.Config(**settings), generator)
    looks, kl = [], 0.0
    when = {round(share * job.num_steps) for share in LOOKS}
    judge = turn.reward("judge")
    for update in range(job.num_steps + 1):
        if update in when:
            tokens, kl = draw_with_kl(state.policy, turn.prior(), LOOK_SIZE, generator)
            value = objective(tokens)
            looks.append(
                {
                    "update": update,
                    "kl": kl,
                    "proxy": turn.sign * float(value.mean.mean()),
                    "conservative": turn.sign * float(value.conservative.mean()),
                    "judged": turn.sign * float(judge.predict(tokens).mean.mean()),
                    "sequences": turn.space.decode(tokens.numpy()),
                }
            )
        if update < job.num_steps:
            algorithm.step(state, keep_gradients)
            turn.ports.progress(f"fine-tuning ({method})", update + 1, job.num_steps, "")
    tokens, kl = draw_with_kl(state.policy, turn.prior(), turn.config.batch.size, generator)
    return Batch(tokens.numpy(), True, kl, tuple(looks))


def _describe(turn: Turn, method: str, batch: Batch) -> dict[str, Any]:
    tokens = turn.space.canonical(batch.tokens)
    unique = unique_fraction(tokens)
    on_torch = torch.from_numpy(batch.tokens)
    elbo = item_elbo(turn.prior(), on_torch, turn.generator("elbo"))
    finite = elbo[torch.isfinite(elbo)]
    passes = turn.space.is_feasible(tokens) & SupportGate.fit(turn.dataset).judge(tokens).is_supported
    top = turn.dataset.tokens[np.argsort(-turn.dataset.values)[: max(20, len(turn.dataset) // 20)]]
    letters = turn.space.alphabet.size
    return {
        "method": method,
        "sequences": turn.space.decode(batch.tokens),
        "proxy": (turn.sign * turn.reward("optimiser").predict(on_torch).mean.double()).tolist(),
        "judged": (turn.sign * turn.reward("judge").predict(on_torch).mean.double()).tolist(),
        "unique_fraction": unique if batch.is_sampled else None,
        "diversity": mean_pairwise_distance(tokens),
        "novelty": float(np.median(novelty(tokens, turn.dataset.tokens))),
        "elbo_per_token": float(finite.mean()) / len(turn.space.free_positions()) if len(finite) else 0.0,
        "kmer_correlation": kmer_correlation(batch.tokens, top, letters),
        "kl": batch.kl,
        "pass_rate": float(passes.mean()),
        "is_collapsed": batch.is_sampled and unique < 0.5,
        "looks": list(batch.looks),
    }


def results(ports: Ports, name: str) -> list[tuple[dict[str, Any], float]]:
    """The comparison as far as it was run: (description, seconds) by method, in METHODS' order."""
    with ports.repository.begin() as uow:
        done = {s.stage: s for s in uow.stages(name, 1) if s.stage.startswith("compare/")}
    found = [done[f"compare/{method}"] for method in METHODS if f"compare/{method}" in done]
    return [(ports.artifacts.get_json(s.outputs["method"]), s.outputs["seconds"]) for s in found]
