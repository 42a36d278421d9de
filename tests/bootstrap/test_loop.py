"""The whole loop from Python on real splice-site measurements: small settings, real components."""

import itertools
import shutil
import sqlite3
from dataclasses import replace

import numpy as np
import plait
import pytest
from plait.design.errors import BadInputError, ConfigError, CorruptArtifactError, NotFoundError, WrongStateError

TINY = {
    "finetune": {"settings": {"num_updates": 3, "batch_size": 8}},
    "prior": {"settings": {"num_pretrain_steps": 30, "width": 16}},
    "reward": {"members": 2, "settings": {"steps": 30, "families": ["mlp"]}},
    "judge": {"settings": {"steps": 30, "members": 2, "families": ["mlp"]}},
    "batch": {"size": 8, "num_candidates": 64},
}


def write_table(path, readings):
    rows = [f"{s},{v!r}" for s, v in zip(readings.sequences, readings.values.tolist(), strict=True)]
    path.write_text("sequence,value\n" + "\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def offline():
    from plait.lab.scenarios import find_scenario

    return find_scenario("splice").offline_readings(size=300, seed=0)


@pytest.fixture(scope="module")
def template(tmp_path_factory, offline):
    """A home with the dataset and MLflow's store, which takes seconds to make; tests get copies."""
    folder = tmp_path_factory.mktemp("template")
    with plait.open(folder / "home", create=True) as opened:
        table = write_table(folder / "t.csv", offline)
        opened.data.import_(table, dataset="splice", alphabet="dna", unit="log10 PSI")
        opened.prior.train("warm-up", dataset="splice", settings={"num_pretrain_steps": 1, "width": 4})
    return folder / "home"


def open_copy(template, path):
    shutil.copytree(template, path)
    return plait.open(path, actor="ada")


@pytest.fixture
def home(tmp_path, template):
    with open_copy(template, tmp_path / "home") as opened:
        yield opened


def test_a_campaign_with_a_simulated_lab_goes_round_and_round(home, offline):
    home.campaign.create({"name": "c", "dataset": "splice", "rounds": 2, "space": {"template": "NNNGYNNNN"}, **TINY})
    rounds = home.campaign.run("c", lab="splice")
    assert [str(r.state) for r in rounds] == ["closed", "closed"]
    designs = home.round.designs("c", round=1) + home.round.designs("c", round=2)
    sequences = [d.sequence for d in designs]
    assert len(designs) == len(set(sequences)) == 16
    assert not set(sequences) & set(offline.sequences)
    assert all(s[3] == "G" and s[4] in "CT" for s in sequences)
    versions = home.data.show("splice")
    with home.registry.begin() as uow:
        ok = [r for r in uow.results("c") if r.value is not None]
        assert uow.approvals("c")[0].reason.endswith("splice")
        assert {a.actor for a in uow.approvals("c")} == {"ada"}
    assert [v.number for v in versions] == [1, 2, 3]
    assert versions[-1].num_measurements == 300 + len(ok)
    with pytest.raises(WrongStateError, match="all 2 rounds"):
        home.round.propose("c")
    for design in designs:
        assert design.conservative <= design.predicted_mean
    rank_value = [d.conservative for d in designs[:8]]
    assert rank_value == sorted(rank_value, reverse=True)


def test_proposing_again_changes_nothing_and_mlflow_is_told_once(home):
    home.campaign.create({"name": "c", "dataset": "splice", **TINY})
    first = home.round.propose("c")
    before = [(d.design_id, d.sequence, d.predicted_mean) for d in home.round.designs("c")]
    assert home.round.propose("c") == first
    assert [(d.design_id, d.sequence, d.predicted_mean) for d in home.round.designs("c")] == before
    with home.registry.begin() as uow:
        assert uow.outbox() == []
        models = uow.models()
    assert {m.kind for m in models} == {"prior", "reward", "policy"}
    with sqlite3.connect(home.path / "mlflow.db") as mlflow:
        told = dict(mlflow.execute("select run_uuid, status from runs").fetchall())
    assert {m.mlflow_run_id for m in models} == set(told)
    assert set(told.values()) == {"FINISHED"}


def test_one_seed_gives_the_same_designs_in_another_home(tmp_path, template):
    batches = []
    for name in ("a", "b"):
        with open_copy(template, tmp_path / name) as home:
            home.campaign.create({"name": "c", "dataset": "splice", "seed": 7, **TINY})
            home.round.propose("c")
            batches.append([(d.sequence, d.conservative) for d in home.round.designs("c")])
    assert batches[0] == batches[1]


def test_a_rejected_round_is_followed_by_other_designs(home):
    home.campaign.create({"name": "c", "dataset": "splice", **TINY})
    home.round.propose("c")
    home.round.reject("c", reason="too many cryptic sites")
    home.round.propose("c")
    first, second = ({d.sequence for d in home.round.designs("c", round=n)} for n in (1, 2))
    assert not first & second


def test_minimising_turns_the_ranking_round(home):
    found = {}
    for goal in ("maximize", "minimize"):
        home.campaign.create({"name": goal, "dataset": "splice", "objective": {"goal": goal}, **TINY})
        home.round.propose(goal)
        found[goal] = home.round.designs(goal)
    assert all(d.conservative >= d.predicted_mean for d in found["minimize"])
    low, high = (np.mean([d.predicted_mean for d in found[g]]) for g in ("minimize", "maximize"))
    assert low < high


def test_results_come_in_parts_and_open_wells_become_failed(home, tmp_path):
    home.campaign.create({"name": "c", "dataset": "splice", **TINY})
    with pytest.raises(WrongStateError):
        home.round.approve("c")
    home.round.propose("c")
    home.round.approve("c", reason="looks natural")
    _, count = home.round.export("c", tmp_path / "order.csv")
    once = (tmp_path / "order.csv").read_bytes()
    home.round.export("c", tmp_path / "order.csv")
    assert (tmp_path / "order.csv").read_bytes() == once
    assert count == 8
    ids = [d.design_id for d in home.round.designs("c")]
    (tmp_path / "r1.csv").write_text(f"design_id,value,status\n{ids[0]},1.5,ok\n{ids[1]},,failed\n")
    state, num_new, _ = home.results.import_("c", tmp_path / "r1.csv")
    assert (str(state.state), num_new) == ("measuring", 2)
    assert home.results.import_("c", tmp_path / "r1.csv")[1] == 0
    (tmp_path / "bad.csv").write_text(f"design_id,value\n{ids[2]},1.0\nnobody,2.0\n")
    with pytest.raises(BadInputError) as caught:
        home.results.import_("c", tmp_path / "bad.csv")
    assert [(p.row, p.column) for p in caught.value.problems] == [(3, "design_id")]
    closed, version, num_open = home.round.close("c")
    assert (str(closed.state), num_open) == ("closed", {"splice": 6})
    assert version.num_measurements == 301
    with home.registry.begin() as uow:
        assert uow.readings(version.id).values[-1] == 1.5


def test_several_assays_are_predicted_measured_and_reported(home, offline, tmp_path):
    cost = np.array([s.count("G") + 0.1 * s.count("A") for s in offline.sequences])
    write_table(tmp_path / "cost.csv", replace(offline, values=cost))
    home.data.import_(tmp_path / "cost.csv", dataset="cost", alphabet="dna", unit="EUR", goal="minimize")
    few = {"batch": {"size": 9, "num_candidates": 64}, "filter": {"support_gate": False}}
    home.campaign.create(
        {"name": "c", "dataset": "splice", "assays": [{"dataset": "cost"}], "rounds": 1, **TINY, **few}
    )
    home.round.propose("c")
    designs = home.round.designs("c")
    home.round.approve("c")
    home.round.export("c", tmp_path / "order.csv")
    rows = [f"{d.design_id},splice,{d.rank}" for d in designs]
    rows += [f"{d.design_id},cost,{-10 * d.rank}" for d in designs[:-1]]
    (tmp_path / "r.csv").write_text("\n".join(["design_id,assay,value", *rows]) + "\n")
    assert str(home.results.import_("c", tmp_path / "r.csv")[0].state) == "measuring"
    assert home.round.close("c")[2] == {"splice": 0, "cost": 1}
    [summary] = home.report("c", tmp_path / "report.html").rounds
    [further] = summary.further
    assert summary.measured == tuple(float(d.rank) for d in designs)
    assert further.measured == (*(-10.0 * d.rank for d in designs[:-1]), None)
    assert (further.name, further.unit, further.goal) == ("cost", "EUR", "minimize")
    assert further.predicted_mean == tuple(d.details["assays"]["cost"]["predicted_mean"] for d in designs)
    assert further.measured_spearman is not None
    assert "The further assays" in (tmp_path / "report.html").read_text()


def test_the_comparison_and_the_report(home, tmp_path):
    home.campaign.create({"name": "c", "dataset": "splice", "rounds": 1, **TINY})
    home.campaign.run("c", lab="splice")
    home.campaign.compare("c", settings={"num_updates": 2, "batch_size": 8})
    data = home.report("c", tmp_path / "report.html")
    assert [m.method for m in data.methods][:3] == ["offline", "prior", "best_of_n"]
    assert len(data.methods) == 8
    assert all(len(m.sequences) == 8 for m in data.methods)
    assert data.has_truth
    assert {p.method for p in data.trajectories} == {"strl", "drakes", "braid_boot", "braid_bonus"}
    assert "<html" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"dataset": "none"}, NotFoundError),
        ({"space": {"template": "NNN"}}, ConfigError),
        ({"space": {"template": "AAAAAAAAA"}}, ConfigError),
        ({"space": {"alphabet": "rna"}}, ConfigError),
        ({"finetune": {"algorithm": "magic"}}, ConfigError),
        ({"finetune": {"settings": {"colour": 1}}}, ConfigError),
        ({"prior": {"model": "none"}}, NotFoundError),
        ({"prior": {"corpus": "/none.fa"}}, NotFoundError),
        ({"space": {"constraints": [{"kind": "forbidden_motif", "motifs": ["Q"]}]}}, BadInputError),
    ],
)
def test_a_campaign_that_cannot_work_is_refused_and_leaves_nothing(home, change, error):
    with pytest.raises(error):
        home.campaign.create({"name": "c", "dataset": "splice"} | change)
    assert home.campaign.list() == []


def test_a_prior_trained_by_itself_draws_designs_and_serves_a_campaign(home):
    model = home.prior.train("mine", dataset="splice", settings={"num_pretrain_steps": 20, "width": 16})
    again = home.prior.train("mine", dataset="splice", settings={"num_pretrain_steps": 20, "width": 16})
    assert (again.id, again.artifact_sha256) == (model.id, model.artifact_sha256)
    home.model.promote("mine", alias="champion")
    drawn = home.sample("mine@champion", 5, seed=3)
    assert drawn.sequences == home.sample("mine", 5, seed=3).sequences
    assert {len(s) for s in drawn.sequences} == {9}
    home.campaign.create(
        {"name": "c", "dataset": "splice"}
        | {k: v for k, v in TINY.items() if k != "prior"}
        | {"prior": {"model": "mine@champion"}, "space": {"template": "NNNGYNNNN"}}
    )
    home.prior.train("mine", dataset="splice", settings={"num_pretrain_steps": 10, "width": 8})
    home.model.promote("mine", alias="champion")  # the campaign stays with what the alias meant when it was made
    home.round.propose("c")
    with home.registry.begin() as uow:
        [stage] = [s for s in uow.stages("c") if s.stage == "prior"]
    assert stage.outputs["prior"] == model.artifact_sha256
    assert all(d.sequence[3] == "G" for d in home.round.designs("c"))
    home.prior.train("short", dataset="splice", template="NNNGCNNNN", settings={"num_pretrain_steps": 1, "width": 4})
    with pytest.raises(ConfigError, match="leaves the prior's NNNGCNNNN"):
        home.campaign.create({"name": "e", "dataset": "splice", "prior": {"model": "short"}})
    with pytest.raises(WrongStateError, match="needs a reward"):
        home.sample("mine", 2, sampler="best_of_n")
    assert len(home.sample("c-policy", 2, sampler="best_of_n").sequences) == 2


def test_a_changed_artifact_is_refused(home):
    home.prior.train("mine", dataset="splice", settings={"num_pretrain_steps": 5, "width": 16})
    sha = home.model.show("mine").artifact_sha256
    tensors = home.path / "artifacts" / "kept" / sha / "tensors.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(CorruptArtifactError):
        home.sample("mine", 1)


def attempts_of(home, change):
    finetune = {"settings": {"num_updates": 100, "batch_size": 16, "learning_rate": 0.02}} | change
    reward = {"members": 2, "settings": {"steps": 200, "families": ["mlp"]}}
    items = ["".join(letters) for letters in itertools.product("ACGT", repeat=4)]  # few, so that samples repeat soon
    table = home.path.parent / "few.csv"
    table.write_text(
        "sequence,value\n" + "".join(f"{s},{s.count('G') + i / 1000}\n" for i, s in enumerate(items[:200]))
    )
    home.data.import_(table, dataset="few", alphabet="dna", unit="log10 PSI")
    few = {"dataset": "few", "batch": {"size": 64}, "filter": {"support_gate": False}}
    home.campaign.create({"name": "c", **TINY, **few, "finetune": finetune, "reward": reward})
    home.round.propose("c")
    with home.registry.begin() as uow:
        [stage] = [s for s in uow.stages("c") if s.stage == "finetune"]
    return stage.outputs["attempts"]


def test_the_leash_is_doubled_while_the_policy_repeats_itself(home):
    attempts = attempts_of(home, {})
    weights = [a["kl_weight"] for a in attempts]
    assert len(attempts) > 1, attempts
    assert weights == [0.2 * 2**k for k in range(len(weights))]
    assert all(a["unique_fraction"] < 0.5 for a in attempts[:-1])
    assert attempts[-1]["unique_fraction"] >= 0.5 or len(attempts) == 5


def test_a_leash_that_was_given_is_kept(home):
    [attempt] = attempts_of(home, {"kl_weight": 0.001})
    assert attempt["unique_fraction"] < 0.5
