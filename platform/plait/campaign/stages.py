"""The stages of a round up to PROPOSED: each a function of a Turn that returns an Outcome; those that learn are here.

A stage reads only its inputs, draws only from a generator seeded by (campaign seed, round, stage), and is recorded with
the hash of its inputs: running a round again goes on after the last recorded stage and makes the same designs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from plait.campaign import catalog, data_benchmark, jobs, race, sweeps
from plait.campaign.assays import Assay
from plait.campaign.campaigns import finetune_settings
from plait.campaign.candidates import filter_pool, sample, select
from plait.campaign.corpora import load_corpus
from plait.campaign.jobs import PretrainJob, load_prior
from plait.campaign.ports import ArtifactStore, Scorers, TrainingJob
from plait.campaign.ranges import axes_of
from plait.campaign.stage_runs import scratch_key
from plait.campaign.turns import NewModel, Outcome, Turn
from plait.design.records import Dataset
from plait.metrics.diversity import unique_fraction
from plait.rewards.choosing_conservatism import choose
from plait.rewards.conservatism import Kind, default_kl_weight

NUM_ATTEMPTS = 5
"""Fine-tunings of a round at most."""
FEWEST_UNIQUE = 0.5
"""Share of distinct samples below which a policy counts as collapsed."""
FEWEST_LOOKED_AT = 64
"""A policy is judged by a plate's worth of samples, and by no fewer than these."""


def benchmark(turn: Turn) -> Outcome:
    """What the data that a campaign starts from can teach; a warning is said before anything is designed."""
    if turn.round.number > 1:
        return Outcome({})
    result = data_benchmark.benchmark(
        turn.own,
        algorithm=turn.own.section.algorithm,
        settings=jobs.reward_settings(turn.own.section, turn.goal),
        seed=turn.seed("benchmark"),
        scorers=turn.ports.scorers,
    )
    text = result.warning or f"held-out Spearman {result.held_out_spearman:.2f}"
    turn.ports.progress("data benchmark", 1, 1, text)
    return Outcome({"benchmark": turn.ports.artifacts.put_json(asdict(result)), "warning": result.warning})


def prior(turn: Turn) -> Outcome:
    """A registered model, or one pre-trained on the corpus (once per campaign)."""
    section = turn.config.prior
    if section.model is not None:
        reference = section.model
        model = turn.ports.repository.transact(lambda uow: uow.model(reference))
        load_prior(model.algorithm, turn.ports.artifacts.path(model.artifact_sha256), turn.space)
        return Outcome({"prior": model.artifact_sha256, "algorithm": model.algorithm, "source": section.model})
    corpus, source = load_corpus(turn.ports, turn.campaign, section, turn.space)
    seed = turn.seed("prior")
    job = PretrainJob(section.algorithm, section.settings, turn.space, corpus, seed, turn.config.training)
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
    key = scratch_key(turn.campaign, turn.round.number, stage)
    directory = turn.ports.artifacts.scratch(key)
    curves = turn.ports.executor.train(
        job,
        run_id=key,
        directory=directory,
        num_workers=turn.config.workers_of(1 if stage == "prior" else turn.round.number),
        seed=turn.seed(stage),
        task=task,
        progress=turn.ports.progress,
        storage=turn.ports.artifacts.shared(key),
        min_workers=turn.config.training.min_workers,
    )
    return turn.ports.artifacts.put(directory / "result"), curves


@dataclass(frozen=True)
class FitTask:
    """One reward fit, picklable: runs in this process or as a Ray task, wherever that is; keeps the bundle."""

    algorithm: str
    settings: dict[str, Any]
    dataset: Dataset
    seed: int
    store: ArtifactStore
    scorers: Scorers

    def __call__(self) -> tuple[str, dict[str, Any]]:
        """Fit and keep; the artifact and the calibration on held-out groups."""
        reward: Any = jobs.fit_reward(self.algorithm, self.settings, self.dataset, self.seed, self.scorers)
        with TemporaryDirectory(prefix="plait-fit-") as folder:
            reward.save(Path(folder))
            return self.store.put(Path(folder)), asdict(reward.calibration)


def run_fit(task: FitTask) -> tuple[str, dict[str, Any]]:
    """What a worker calls."""
    return task()


def fit_reward(turn: Turn) -> Outcome:
    """Three models an assay: the optimiser's, the judge's (other groups of sequences), and one on all data.

    Once a round has been measured the optimiser's is left out where no policy is to be tuned.
    """
    tasks = {(assay.name, role): task for assay in turn.assays for role, task in _fits_of(turn, assay).items()}
    turn.ports.progress("fitting rewards", 0, 1, f"{len(turn.dataset)} items")
    fits = dict(zip(tasks, turn.ports.executor.map(run_fit, list(tasks.values())), strict=True))
    skill = fits[turn.own.name, "final"][1]["spearman"]
    turn.ports.progress("fitting rewards", 1, 1, f"held-out Spearman {skill:.2f}")
    made: dict[str, dict[str, Any]] = {assay.name: {} for assay in turn.assays}
    models = []
    for (name, role), task in tasks.items():
        made[name][role], calibration = fits[name, role]
        made[name] |= {"calibration": calibration} if role == "final" else {}
        made[name] |= {"judge_calibration": calibration} if role == "judge" else {}
        assay = next(assay for assay in turn.assays if assay.name == name)
        details = {"role": role, "assay": name, "goal": assay.goal, "num_items": len(task.dataset)}
        details["calibration"] = calibration
        suffix = "reward" if role == "final" else f"reward-{role}"
        suffix += "" if name == turn.own.name else f"-{name}"
        artifact, version = made[name][role], assay.version
        models.append(
            NewModel(suffix, "reward", task.algorithm, artifact, details, params=task.settings, version=version)
        )
    own = made.pop(turn.own.name)
    return Outcome(own | {"further": made}, tuple(models))


def _fits_of(turn: Turn, assay: Assay) -> dict[str, FitTask]:
    section, kind = assay.section, turn.config.conservatism_of(turn.round.number).kind
    settings = jobs.reward_settings(section, assay.goal)
    if "is_bootstrap" in catalog.find("rewards", section.algorithm).Config.model_fields:
        settings = {"is_bootstrap": kind == "boot"} | settings
    optimiser, judge = assay.halves
    plans = {
        "optimiser": (section.algorithm, settings, optimiser),
        "judge": (jobs.judge_algorithm(section.algorithm), jobs.judge_settings(turn.config, section), judge),
        "final": (section.algorithm, settings, assay.dataset),
    }
    is_own = assay is turn.own
    return {
        role: FitTask(
            algorithm,
            plan,
            data,
            turn.seed(f"fit_reward/{role}" if is_own else f"fit_reward/{role}/{assay.name}"),
            turn.ports.artifacts,
            turn.ports.scorers,
        )
        for role, (algorithm, plan, data) in plans.items()
        if role != "optimiser" or not turn.history or race.POLICY in turn.running
    }


def _conservatism(turn: Turn) -> tuple[Kind, float, str]:
    """Kind, scale and why: as configured, or what the readings speak for.

    Only the first round's readings are asked: those of later rounds were selected by a model, which answers for itself.
    What the data lacks is sought only where no round follows that could learn it by measuring.
    """
    given = turn.config.conservatism_of(turn.round.number)
    if given.kind != "auto":
        return given.kind, given.effective_scale, "as configured"
    if turn.history:
        return "none", 0.0, "readings that a model has selected are not asked: leash and support gate alone"
    if jobs.needs_scorers(turn.own.section.algorithm):
        return "none", 0.0, "a black box is not learnt from the readings: leash and support gate alone"
    choice = choose(turn.own.halves, (turn.reward("optimiser"), turn.reward("judge")))
    kind, scale, reason = choice.kind, choice.scale, choice.reason
    if scale < 0 and turn.config.rounds > 1:
        kind, scale, reason = "none", 0.0, f"{reason} where no round follows; here measuring will tell"
    turn.ports.progress("choosing conservatism", 1, 1, reason)
    return kind, scale, reason


def sweep(turn: Turn) -> Outcome:
    """The round's conservatism, the fine-tuner whose name fits it, and what a sweep found where numbers are open."""
    kind, scale, reason = _conservatism(turn)
    name = turn.config.finetuner_of(scale) if race.POLICY in turn.running else "none"
    settings = {} if name == "none" else finetune_settings(turn.config)
    algorithm = None if name == "none" else catalog.find("finetune", name)
    is_leashed = algorithm is not None and getattr(algorithm.Config(), "kl_weight", 0.0) is None  # strl's is always 0
    is_leash_free = is_leashed and "kl_weight" not in settings
    if is_leash_free:
        settings = settings | {"kl_weight": default_kl_weight(turn.space.num_free)}
    outputs: dict[str, Any] = {"kind": kind, "scale": scale, "reason": reason, "finetuner": name}
    outputs |= {"settings": settings, "is_leash_free": is_leash_free}
    if getattr(algorithm, "continues", False):
        outputs["previous"] = turn.previous_policy
    axes = {} if name == "none" else axes_of(turn.config, turn.round.number, turn.space.num_free)
    if not axes:
        return Outcome(outputs)
    base = finetune_job(turn, name, settings, kind, scale, outputs.get("previous"))
    swept = sweeps.sweep(turn, base, axes)
    return replace(swept, outputs=outputs | {"is_leash_free": False} | swept.outputs)


def finetune_job(
    turn: Turn, algorithm: str, settings: dict[str, Any], kind: Kind, scale: float, previous: str | None = None
) -> jobs.FinetuneJob:
    """The round's fine-tuning by any algorithm and conservatism, from the policy `previous` where there is one."""
    return jobs.FinetuneJob(
        algorithm,
        settings,
        turn.outputs["prior"]["algorithm"],
        turn.artifact(turn.outputs["prior"]["prior"]),
        turn.plan("optimiser", kind, scale),
        None if previous is None else turn.artifact(previous),
        turn.config.training,
    )


def finetune(turn: Turn) -> Outcome:
    """The policy: the prior fine-tuned towards the optimiser's conservative reward.

    A policy that repeats itself is a failure, whatever its score: where the leash was left to Plait, it is doubled
    until at least half of a plate's worth of samples differ.
    """
    chosen, algorithm = turn.outputs["sweep"], turn.outputs["sweep"]["finetuner"]
    settings = dict(chosen["settings"])
    if algorithm == "none":
        sha = turn.outputs["prior"]["prior"]
        untrained = {"kl_weight": None, "unique_fraction": _unique_fraction(turn, sha)}
        return Outcome({"policy": sha, "last": {}, "attempts": [untrained]})
    attempts: list[dict[str, Any]] = []
    if "policy" in chosen:  # what was judged is what is used
        sha, curves = chosen["policy"], turn.ports.artifacts.get_json(chosen["curves"])
        attempts.append({"kl_weight": settings.get("kl_weight"), "unique_fraction": _unique_fraction(turn, sha)})
    for attempt in range(0 if attempts else NUM_ATTEMPTS):
        job = finetune_job(turn, algorithm, settings, chosen["kind"], chosen["scale"], chosen.get("previous"))
        sha, curves = train(turn, f"finetune-{attempt}", job, f"fine-tuning ({algorithm})")
        attempts.append({"kl_weight": settings.get("kl_weight"), "unique_fraction": _unique_fraction(turn, sha)})
        if attempts[-1]["unique_fraction"] >= FEWEST_UNIQUE or not chosen["is_leash_free"]:
            break
        settings["kl_weight"] *= 2
    last = {name: values[-1][1] for name, values in curves.items() if values}
    details = {"prior": turn.outputs["prior"]["prior"], "reward": turn.outputs["fit_reward"]["final"], "last": last}
    details |= {"algorithm": algorithm, "reward_algorithm": turn.own.section.algorithm}
    details |= {"assays": [assay.name for assay in turn.assays]}
    params = {
        **settings,
        "kind": chosen["kind"],
        "scale": chosen["scale"],
        "workers": turn.config.workers_of(turn.round.number),
        **{f"training.{name}": value for name, value in turn.config.training.model_dump(exclude_unset=True).items()},
    }
    model = NewModel("policy", "policy", turn.outputs["prior"]["algorithm"], sha, details, curves, params)
    return Outcome({"policy": sha, "last": last, "attempts": attempts}, (model,))


def _unique_fraction(turn: Turn, sha: str) -> float:
    """Share of distinct designs among fresh samples of a policy; said aloud where the policy has collapsed."""
    policy = load_prior(turn.outputs["prior"]["algorithm"], turn.ports.artifacts.path(sha), turn.space)
    ancestral, generator = catalog.find("samplers", "ancestral"), turn.generator("finetune/look")
    state = ancestral.prepare(ancestral.Config(), policy, None, None, generator)
    num = max(FEWEST_LOOKED_AT, turn.config.batch.size)
    share = unique_fraction(turn.space.canonical(ancestral.sample(state, num, generator).tokens.numpy()))
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
