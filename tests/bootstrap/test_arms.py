"""Arms that race for the wells: a whole campaign on a space too large to be ranked, real components, small settings."""

import numpy as np
import plait
import pytest
from plait.design.errors import ConfigError, RunFailedError

TINY = {
    "finetune": {"settings": {"num_updates": 3, "batch_size": 8}},
    "prior": {"settings": {"num_pretrain_steps": 30, "width": 16}},
    "reward": {"members": 2, "settings": {"steps": 30, "families": ["mlp", "sparse"]}},
    "judge": {"settings": {"steps": 30, "members": 2, "families": ["mlp"]}},
    "batch": {"size": 8, "num_candidates": 64},
}


def reading(sequence):
    """More Gs are better, and GC next to each other best."""
    return sequence.count("G") + 2.0 * sequence.count("GC")


@pytest.fixture
def home(tmp_path):
    rng = np.random.default_rng(0)
    sequences = sorted({"".join(rng.choice(list("ACGT"), 24)) for _ in range(120)})
    table = tmp_path / "t.csv"
    table.write_text("sequence,value\n" + "\n".join(f"{s},{reading(s)}" for s in sequences) + "\n")
    with plait.open(tmp_path / "home", create=True, actor="ada") as opened:
        opened.data.import_(table, dataset="long", alphabet="dna", unit="units")
        yield opened


def propose(home, name="c"):
    home.round.propose(name)
    home.round.approve(name)
    home.round.export(name, home.path.parent / f"{name}-order.csv")
    designs = home.round.designs(name)
    return [d for d in designs if d.round == max(x.round for x in designs)]


def close(home, designs, values, name="c"):
    table = home.path.parent / "results.csv"
    rows = [f"{d.design_id},{v}" for d, v in zip(designs, values, strict=True)]
    table.write_text("design_id,value\n" + "\n".join(rows) + "\n")
    home.results.import_(name, table)
    home.round.close(name)


def test_arms_share_the_first_round_and_the_better_takes_the_next(home):
    home.campaign.create({"name": "c", "dataset": "long", "rounds": 2, **TINY})
    first = propose(home)
    sources = [d.source for d in first]
    assert sorted(sources) == ["neutral_drift"] * 4 + ["policy"] * 4
    assert len({d.sequence for d in first}) == 8
    close(home, first, [9.0 if d.source == "neutral_drift" else 1.0 for d in first])
    second = propose(home)
    assert [d.source for d in second] == ["neutral_drift"] * 8
    assert not {d.sequence for d in second} & {d.sequence for d in first}
    with home.registry.begin() as uow:
        rounds = {(s.round, s.stage): s.outputs for s in uow.stages("c")}
    assert rounds[2, "sweep"]["finetuner"] == "none"
    assert "optimiser" in rounds[1, "fit_reward"]
    assert "optimiser" not in rounds[2, "fit_reward"]


def test_a_samplers_designs_are_taken_as_it_drew_them(home):
    home.campaign.create({"name": "c", "dataset": "long", "arms": ["neutral_drift"], **TINY})
    designs = propose(home)
    with home.registry.begin() as uow:
        outputs = {s.stage: s.outputs for s in uow.stages("c")}
    ((_, drawn),) = home.ports.artifacts.get_json(outputs["sample"]["pool"])
    kept = {s for s, _ in home.ports.artifacts.get_json(outputs["filter"]["kept"])}
    assert [d.sequence for d in designs] == [s for s in dict.fromkeys(drawn) if s in kept][:8]
    assert drawn != sorted(drawn)


def test_naturalness_is_judged_by_the_prior_where_no_policy_runs(home):
    corpus = home.path.parent / "corpus.txt"
    rng = np.random.default_rng(1)
    corpus.write_text("\n".join("".join(rng.choice(list("ACGT"), 24, p=[0.48, 0.02, 0.02, 0.48])) for _ in range(300)))
    prior = {"corpus": str(corpus), "settings": {"num_pretrain_steps": 100, "width": 16}}
    config = {"name": "c", "dataset": "long", "arms": ["genetic"], **TINY, "prior": prior}
    home.campaign.create(config | {"filter": {"naturalness": 0.5}})
    with pytest.raises(RunFailedError, match="'natural': 0"):
        propose(home)


def test_an_arm_that_is_named_runs_alone(home):
    home.campaign.create({"name": "c", "dataset": "long", "arms": ["genetic"], **TINY})
    assert {d.source for d in propose(home)} == {"genetic"}


def test_naming_an_algorithm_leaves_the_wells_to_its_policy(home):
    config = {"name": "c", "dataset": "long", **TINY, "finetune": {"algorithm": "strl", **TINY["finetune"]}}
    home.campaign.create(config)
    assert {d.source for d in propose(home)} == {"policy"}


@pytest.mark.parametrize(
    ("arms", "reason"), [(["nobody"], "nobody"), (["policy", "policy"], "each arm runs once"), ([], "at least 1")]
)
def test_arms_that_make_no_sense_are_refused(home, arms, reason):
    with pytest.raises(ConfigError, match=reason):
        home.campaign.create({"name": "c", "dataset": "long", "arms": arms, **TINY})
