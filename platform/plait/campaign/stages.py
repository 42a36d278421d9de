"""The stages of a round up to PROPOSED: each a function of a Turn that returns an Outcome; those that learn are here.

A stage reads only its inputs, draws only from a generator seeded by (campaign seed, round, stage), and is recorded with
the hash of its inputs: running a round again goes on after the last recorded stage and makes the same designs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Generator

from plait.campaign import catalog, data_benchmark
from plait.campaign.campaigns import finetune_settings
from plait.campaign.candidates import filter_pool, sample, select
from plait.campaign.corpora import load_corpus
from plait.campaign.jobs import FinetuneJob, PretrainJob, load_prior
from plait.campaign.ports import TrainingJob
from plait.campaign.turns import NewModel, Outcome, Turn
from plait.design.records import Dataset
from plait.metrics.diversity import unique_fraction
from plait.rewards.conservatism import Kind, default_kl_weight

NUM_ATTEMPTS = 5
"""Fine-tunings of a round at most."""
FEWEST_UNIQUE = 0.5
"""Share of distinct samples below which a policy counts as collapsed."""
FEWEST_LOOKED_AT = 64
"""A policy is judged by a plate's worth of samples, and by no fewer than these."""


def benchmark(turn: Turn) -> Outcome:
    """What the round's data can teach; a warning is said before anything is designed."""
    readings = turn.readings
    source = "replicates" if len(set(readings.replicates)) > 1 else "std column" if readings.stds is not None else ""
    result = data_benchmark.benchmark(
        turn.dataset,
        num_readings=len(readings),
        noise_source=source,
        sign=turn.sign,
        algorithm=turn.config.reward.algorithm,
        settings={**turn.config.reward.settings, "members": turn.config.reward.members},
        seed=turn.seed("benchmark"),
    )
    text = result.warning or f"held-out Spearman {result.held_out_spearman:.2f}"
    turn.ports.progress("data benchmark", 1, 1, text)
    return Outcome({"benchmark": turn.ports.artifacts.put_json(asdict(result)), "warning": result.warning})


def prior(turn: Turn) -> Outcome:
    """A registered model, or one pre-trained on the corpus (once per campaign)."""
    section = turn.config.prior
    if section.model is not None:
        with turn.ports.repository.begin() as uow:
            model = uow.model(section.model)
        load_prior(model.algorithm, turn.ports.artifacts.path(model.artifact_sha256), turn.space)
        return Outcome({"prior": model.artifact_sha256, "algorithm": model.algorithm, "source": section.model})
    corpus, source = load_corpus(turn.ports, turn.campaign, section, turn.space)
    job = PretrainJob(section.algorithm, section.settings, turn.space, corpus, turn.seed("prior"))
    sha, curves = train(turn, "prior", job, "pre-training the prior")
    held_out = curves.get("held_out_elbo", [])
    details = {
        "corpus": source,
        "num_sequences": len(corpus),
        "held_out_elbo": max((v for _, v in held_out), default=None),
    }
    made = NewModel("prior", "prior", section.algorithm, sha, details, curves, section.settings)
    return Outcome({"prior": sha, "algorithm": section.algorithm, "source": source}, (made,))


def train(turn: Turn, stage: str, job: TrainingJob, task: str) -> tuple[str, dict[str, list[tuple[int, float]]]]:
    """Run a training job to its end, resuming if it was interrupted; its bundle's hash and curves."""
    key = f"{turn.campaign.name}-{0 if stage == 'prior' else turn.round.number}-{stage}"
    directory = turn.ports.artifacts.scratch(key)
    curves = turn.ports.executor.train(
        job,
        run_id=key,
        directory=directory,
        num_workers=turn.config.workers_of(1 if stage == "prior" else turn.round.number),
        seed=turn.seed(stage),
        task=task,
        progress=turn.ports.progress,
    )
    return turn.ports.artifacts.put(directory / "result"), curves


@dataclass(frozen=True)
class FitTask:
    """One reward fit, picklable: runs in this process or as a Ray task; writes a bundle."""

    algorithm: str
    settings: dict[str, Any]
    dataset: Dataset
    seed: int
    directory: Path

    def __call__(self) -> dict[str, Any]:
        """Fit and save; the calibration on held-out groups."""
        config = catalog.configure("rewards", self.algorithm, self.settings)
        reward = catalog.find("rewards", self.algorithm).fit(config, self.dataset, Generator().manual_seed(self.seed))
        reward.save(self.directory)
        return asdict(reward.calibration)


def run_fit(task: FitTask) -> dict[str, Any]:
    """What a worker calls."""
    return task()


def fit_reward(turn: Turn) -> Outcome:
    """Three ensembles: the optimiser's, the judge's (other groups of sequences), and the final one on everything."""
    section, config = turn.config.reward, turn.config
    kind = config.conservatism_of(turn.round.number).kind
    settings = {"is_bootstrap": kind == "boot", **section.settings, "members": section.members}
    optimiser, judge = turn.halves
    plans = {
        "optimiser": (settings, optimiser),
        "judge": ({"members": section.members, **config.judge.settings}, judge),
        "final": (settings, turn.dataset),
    }
    scratch = turn.ports.artifacts.scratch(f"{turn.campaign.name}-{turn.round.number}-fit_reward")
    tasks = [
        FitTask(section.algorithm, plan, data, turn.seed(f"fit_reward/{name}"), scratch / name)
        for name, (plan, data) in plans.items()
    ]
    turn.ports.progress("fitting rewards", 0, 1, f"{len(turn.dataset)} items")
    calibrations = dict(zip(plans, turn.ports.executor.map(run_fit, tasks), strict=True))
    turn.ports.progress("fitting rewards", 1, 1, f"held-out Spearman {calibrations['final']['spearman']:.2f}")
    outputs: dict[str, Any] = {"calibration": calibrations["final"], "judge_calibration": calibrations["judge"]}
    models = []
    for task, (name, (plan, data)) in zip(tasks, plans.items(), strict=True):
        outputs[name] = turn.ports.artifacts.put(task.directory)
        details = {"role": name, "num_items": len(data), "calibration": calibrations[name]}
        suffix = "reward" if name == "final" else f"reward-{name}"
        models.append(NewModel(suffix, "reward", section.algorithm, outputs[name], details, params=plan))
    return Outcome(outputs, tuple(models))


def sweep(turn: Turn) -> Outcome:
    """The round's conservatism; passes the configuration through where nothing is to be searched."""
    chosen = turn.config.conservatism_of(turn.round.number)
    settings = finetune_settings(turn.config)
    has_leash = "kl_weight" in catalog.find("finetune", turn.config.finetune.algorithm).Config.model_fields
    is_leash_free = has_leash and "kl_weight" not in settings
    if is_leash_free:
        settings = settings | {"kl_weight": default_kl_weight(turn.space.length)}
    return Outcome(
        {"kind": chosen.kind, "scale": chosen.effective_scale, "settings": settings, "is_leash_free": is_leash_free}
    )


def finetune_job(turn: Turn, algorithm: str, settings: dict[str, Any], kind: Kind, scale: float) -> FinetuneJob:
    """The round's fine-tuning by any algorithm and conservatism."""
    return FinetuneJob(
        algorithm,
        settings,
        turn.outputs["prior"]["algorithm"],
        turn.path("prior", "prior"),
        turn.config.reward.algorithm,
        turn.path("fit_reward", "optimiser"),
        turn.halves[0],
        kind,
        scale,
    )


def finetune(turn: Turn) -> Outcome:
    """The policy: the prior fine-tuned towards the optimiser's conservative reward.

    A policy that repeats itself is a failure, whatever its score: where the leash was left to Plait, it is doubled
    until at least half of a plate's worth of samples differ.
    """
    chosen, section = turn.outputs["sweep"], turn.config.finetune
    settings = dict(chosen["settings"])
    attempts: list[dict[str, Any]] = []
    for attempt in range(NUM_ATTEMPTS):
        job = finetune_job(turn, section.algorithm, settings, chosen["kind"], chosen["scale"])
        sha, curves = train(turn, f"finetune-{attempt}", job, f"fine-tuning ({section.algorithm})")
        attempts.append({"kl_weight": settings.get("kl_weight"), "unique_fraction": _unique_fraction(turn, sha)})
        if attempts[-1]["unique_fraction"] >= FEWEST_UNIQUE or not chosen["is_leash_free"]:
            break
        settings["kl_weight"] *= 2
    last = {name: values[-1][1] for name, values in curves.items() if values}
    details = {"prior": turn.outputs["prior"]["prior"], "reward": turn.outputs["fit_reward"]["final"], "last": last}
    params = {
        **settings,
        "kind": chosen["kind"],
        "scale": chosen["scale"],
        "workers": turn.config.workers_of(turn.round.number),
    }
    model = NewModel("policy", "policy", turn.outputs["prior"]["algorithm"], sha, details, curves, params)
    return Outcome({"policy": sha, "last": last, "attempts": attempts}, (model,))


def _unique_fraction(turn: Turn, sha: str) -> float:
    """Share of distinct designs among fresh samples of a policy; said aloud where the policy has collapsed."""
    policy = load_prior(turn.outputs["prior"]["algorithm"], turn.ports.artifacts.path(sha), turn.space)
    ancestral, generator = catalog.find("samplers", "ancestral"), turn.generator("finetune/look")
    state = ancestral.prepare(ancestral.Config(), policy, None, None, generator)
    num = max(FEWEST_LOOKED_AT, turn.config.batch.size)
    share = unique_fraction(ancestral.sample(state, num, generator).tokens.numpy())
    if share < FEWEST_UNIQUE:
        text = f"the policy repeats itself: only {share:.0%} of its samples differ"
        turn.ports.progress("fine-tuning", 1, 1, text)
    return share


STAGES: dict[str, Callable[[Turn], Outcome]] = {
    "benchmark": benchmark,
    "prior": prior,
    "fit_reward": fit_reward,
    "sweep": sweep,
    "finetune": finetune,
    "sample": sample,
    "filter": filter_pool,
    "select": select,
}
"""Name -> stage, in order; screening runs inside `select`, so that a stopped design is replaced at once."""
