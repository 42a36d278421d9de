import csv
import hashlib
import os
import re
import sqlite3

import pytest
import yaml

NEW = ["--alphabet", "dna", "--unit", "au"]


def value_of(sequence: str) -> float:
    return sequence.count("G") + 2 * (sequence[2] == "T")


def write_results(path, rows):
    path.write_text("design_id,value,status\n" + "".join(f"{i},{value},{status}\n" for i, value, status in rows))
    return path


def test_a_campaign_says_what_it_decided(campaign):
    shown = campaign.json("campaign", "show", "c")
    assert any("ANNNNNNN" in note for note in shown["notes"])
    assert (shown["rounds"], shown["next"]) == ([], "plait round propose c")
    assert "plait round propose c" in campaign("campaign", "show", "c").out
    campaign("round", "show", "c", code=4)
    campaign("round", "approve", "c", code=4)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name: x\ndataset: d\nroundz: 3\n", "roundz"),
        ("name: x\n", "dataset"),
        ("name: x\ndataset: d\nbatch: {size: 0}\n", "batch.size"),
        ("name: 'x y'\ndataset: d\n", "name"),
        ("name: x\ndataset: d\nfinetune: {algorithm: magic}\n", "magic"),
        ("name: x\ndataset: d\nspace: {length: 9}\n", "length"),
        ("- 1\n", "mapping"),
        ("a: [", "YAML"),
    ],
)
def test_a_bad_configuration_is_refused_with_its_field(campaign, tmp_path, text, reason):
    config = tmp_path / "bad.yaml"
    config.write_text(text)
    assert reason in campaign("campaign", "create", config, code=3).err
    assert [c["name"] for c in campaign.json("campaign", "list")] == ["c"]


def test_proposing_prints_the_designs_and_the_next_step(batch):
    said = batch("round", "propose", "c").out
    assert "plait round approve c" in said
    assert said.splitlines()[1].split() == ["rank", "design", "sequence", "predicted", "std", "conservative", "source"]
    shown = batch.json("round", "show", "c", "--round", "1")
    assert shown["round"]["state"] == "proposed"
    assert [d["design_id"] for d in shown["designs"]] == [f"c-r1-{rank:03d}" for rank in range(1, 9)]
    assert all(d["sequence"] in said and re.fullmatch("A[ACGT]{7}", d["sequence"]) for d in shown["designs"])
    assert batch.json("round", "propose", "c")["designs"] == shown["designs"]
    batch("round", "show", "c", "--round", "2", code=4)


def test_the_loop(batch, tmp_path):
    for step in (["round", "export", "c", "--output", tmp_path / "o.csv"], ["round", "close", "c"]):
        batch(*step, code=4)
    approved = batch.json("round", "approve", "c", "--reason", "fine", "--actor", "Ada")
    assert (approved["round"]["state"], approved["next"]) == ("approved", "plait round export c --output order.csv")
    batch("round", "approve", "c", code=4)

    order = tmp_path / "order.csv"
    assert batch.json("round", "export", "c", "--output", order)["num_designs"] == 8
    digest = hashlib.sha256(order.read_bytes()).digest()
    assert "8 designs written" in batch("round", "export", "c", "--output", order).out
    assert hashlib.sha256(order.read_bytes()).digest() == digest
    rows = list(csv.DictReader(order.read_text().splitlines()))
    assert list(rows[0]) == ["design_id", "sequence", "predicted_mean", "predicted_std", "conservative", "rank"]

    values = [(r["design_id"], value_of(r["sequence"]), "ok") for r in rows]
    first = write_results(tmp_path / "1.csv", [*values[:4], (values[4][0], "", "failed")])
    second = write_results(tmp_path / "2.csv", values[5:7])
    part = batch.json("results", "import", "c", first)
    assert (part["round"]["state"], part["num_new"]) == ("measuring", 5)
    assert batch.json("results", "import", "c", first)["num_new"] == 0
    assert "2 new readings" in batch("results", "import", "c", second).out
    header, *lines = (line.split() for line in batch("round", "show", "c").out.splitlines()[1:10])
    assert header == ["rank", "design", "sequence", "predicted", "std", "conservative", "measured", "source"]
    measured = [f"{value:g}" for _, value, _ in values]
    assert [line[6] for line in lines] == [*measured[:4], "failed", *measured[5:7], "-"]

    closed = batch("round", "close", "c").out
    assert "1 well without a reading became failed" in closed
    versions = batch.json("data", "show", "d")["versions"]
    assert versions[1]["num_measurements"] == versions[0]["num_measurements"] + 6
    assert batch.json("campaign", "show", "c")["rounds"][0]["state"] == "closed"

    again = batch.json("round", "propose", "c")
    assert (again["round"]["number"], again["round"]["state"]) == (2, "proposed")
    assert again["round"]["dataset_version_id"] == versions[1]["id"]
    assert not {d["sequence"] for d in again["designs"]} & {r["sequence"] for r in rows}
    assert batch.json("round", "reject", "c", "--reason", "no")["round"]["state"] == "rejected"

    database = sqlite3.connect(batch.home / "plait.db")
    stored = [value for (value,) in database.execute("select value from measurement").fetchall()]
    database.close()
    assert all(value in stored for _, value, _ in values[:4])

    report = tmp_path / "r.html"
    written = batch.json("report", "c", "--output", report)
    assert len(written["rounds"]) == 2
    assert not re.search(r"(src|href)=.https?:", report.read_text())


def test_bad_results_are_named_row_by_row_and_nothing_is_stored(batch, tmp_path):
    batch("round", "approve", "c")
    batch("round", "export", "c", "--output", tmp_path / "order.csv")
    rows = [("c-r1-001", 1, "ok"), ("c-r1-002", "", "ok"), ("c-r9-001", 1, "ok"), ("c-r1-003", "x", "ok")]
    error = batch.json("results", "import", "c", write_results(tmp_path / "bad.csv", rows), code=3)["error"]
    assert [p["row"] for p in error["problems"]] == [3, 4, 5]
    assert batch.json("campaign", "show", "c")["rounds"][0]["state"] == "ordered"
    good = write_results(tmp_path / "good.csv", rows[:1])
    assert batch.json("results", "import", "c", good)["num_new"] == 1
    other = write_results(tmp_path / "other.csv", [("c-r1-001", 2, "ok")])
    [problem] = batch.json("results", "import", "c", other, code=3)["error"]["problems"]
    assert (problem["row"], problem["value"]) == (2, "2")
    assert "is registered as 1;" in problem["reason"]


def test_models_are_listed_promoted_and_sampled(batch, tmp_path):
    models = {m["name"]: m for m in batch.json("model", "list")}
    assert {"c-prior", "c-policy", "c-reward"} <= set(models)
    assert "champion" in batch.json("model", "promote", "c-policy", "--alias", "champion")["aliases"]
    assert batch.json("model", "show", "c-policy@champion")["id"] == models["c-policy"]["id"]
    assert models["c-policy"]["artifact_sha256"] in batch("model", "show", "c-policy").out

    lines = batch("sample", "--model", "c-policy@champion", "--n", 5, "--seed", 1).out.splitlines()
    assert len(lines) == 5
    assert all(re.fullmatch("A[ACGT]{7}", line) for line in lines)
    text, table = tmp_path / "designs.txt", tmp_path / "designs.csv"
    batch("sample", "--model", "c-policy", "--n", 5, "--seed", 1, "--output", text)
    batch("sample", "--model", "c-policy", "--n", 5, "--seed", 1, "--output", table)
    assert text.read_text().splitlines() == lines
    assert [row["sequence"] for row in csv.DictReader(table.read_text().splitlines())] == lines
    assert batch.json("sample", "--model", "c-prior", "--n", 2)["sampler"] == "ancestral"
    best = batch.json("sample", "--model", "c-policy", "--sampler", "best_of_n", "--set", "num_candidates=4", "--n", 2)
    assert len(best["sequences"]) == 2
    batch("sample", "--model", "c-reward", code=4)
    batch("sample", "--model", "c-policy", "--sampler", "nothing", code=3)
    batch("sample", "--model", "c-policy", "--set", "nothing", code=2)
    batch("sample", "--model", "c-policy", "--output", tmp_path / "no" / "folder.txt", code=3)
    os.mkfifo(tmp_path / "pipe")
    batch("sample", "--model", "c-policy", "--output", tmp_path / "pipe", code=3)
    assert (tmp_path / "pipe").is_fifo()  # not replaced by a file


def test_what_is_easily_overlooked_in_a_sample_is_said(batch, tmp_path):
    smc = ["sample", "--model", "c-policy", "--sampler", "smc", "--set", "temperature=0.01", "--n", 12]
    drawn = batch.json(*smc)
    num_different = len(set(drawn["sequences"]))
    assert num_different < 6
    assert any(drawn["log_weights"])
    said = batch(*smc)
    assert said.out.splitlines() == drawn["sequences"]
    assert f"note: only {num_different} of 12 designs differ" in said.err
    assert "note: the designs have weights" in said.err
    said = batch(*smc, "--output", tmp_path / "designs.csv")
    assert "designs differ" in said.err
    assert "weights" not in said.err
    assert batch(*smc, "--quiet").err == ""
    assert "note" not in batch("sample", "--model", "c-policy", "--n", 3).err


def test_several_assays_are_shown_side_by_side(campaign, readings, tmp_path):
    second = tmp_path / "second.csv"
    second.write_text(readings.read_text())
    campaign("data", "import", second, "--dataset", "e", *NEW)
    config = campaign.json("campaign", "show", "c")["config"] | {"name": "two", "assays": [{"dataset": "e"}]}
    config |= {"finetune": {"algorithm": "none"}, "filter": {"support_gate": False}}
    config["batch"] = {"size": 3, "num_candidates": 20, "exhaustive_limit": 0}
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(config))
    campaign("campaign", "create", tmp_path / "two.yaml")
    header, *lines, _ = campaign("round", "propose", "two").out.splitlines()[1:]
    names = ["rank", "design", "sequence", "d predicted", "e predicted", "objective", "feasibility"]
    assert re.split(" {2,}", header) == [*names, "source"]
    designs = campaign.json("round", "show", "two")["designs"]
    figures = [(d["predicted_mean"], d["details"]["assays"]["e"]["predicted_mean"]) for d in designs]
    assert [line.split()[3:5] for line in lines] == [[f"{own:.4g}", f"{other:.4g}"] for own, other in figures]

    campaign("round", "approve", "two")
    campaign("round", "export", "two", "--output", tmp_path / "order.csv")
    results = tmp_path / "results.csv"
    first, other = designs[0]["design_id"], designs[1]["design_id"]
    results.write_text(f"design_id,assay,replicate,value\n{first},d,1,1\n{first},d,2,2\n{other},e,1,3\n")
    campaign("results", "import", "two", results)
    header, *lines, _ = campaign("round", "show", "two").out.splitlines()[1:]
    assert re.split(" {2,}", header) == [*names, "d measured", "e measured", "source"]
    assert [line.split()[7:9] for line in lines] == [["1.5", "-"], ["-", "3"], ["-", "-"]]


def test_a_model_folder_is_imported_only_if_its_sums_match(batch, tmp_path):
    sha = batch.json("model", "show", "c-prior")["artifact_sha256"]
    folder = next(p for p in batch.home.rglob(sha) if p.is_dir())
    moved = tmp_path / "natural"
    moved.mkdir()
    for file in folder.iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    imported = batch.json("model", "import", moved)
    assert (imported["name"], imported["kind"], imported["artifact_sha256"]) == ("natural", "prior", sha)
    tensors = moved / "tensors.safetensors"
    content = bytearray(tensors.read_bytes())
    content[-1] ^= 1
    tensors.write_bytes(content)
    assert batch.json("model", "import", moved, code=5)["error"]["code"] == "corrupt_artifact"
    batch("model", "import", tmp_path / "nothing", code=4)


def test_a_prior_is_trained_by_itself_and_used_by_a_campaign(campaign, tmp_path):
    few = ["--set", "num_pretrain_steps=5", "--set", "num_steps=4", "--set", "width=8"]
    made = campaign.json("prior", "train", "--dataset", "d", "--name", "natural", *few)
    assert (made["name"], made["version"], made["kind"]) == ("natural", 1, "prior")
    assert campaign.json("prior", "train", "--dataset", "d", "--name", "natural", *few)["version"] == 1
    campaign("prior", "train", "--name", "natural", code=2)
    campaign("prior", "train", "--name", "natural", "--dataset", "d", "--set", "nonsense=1", code=3)
    config = tmp_path / "x.yaml"
    config.write_text(yaml.safe_dump({"name": "x", "dataset": "d", "prior": {"model": "natural@1"}}))
    assert any("natural@1" in note for note in campaign.json("campaign", "create", config)["notes"])


def test_a_corrupt_artifact_is_refused(batch):
    sha = batch.json("model", "show", "c-policy")["artifact_sha256"]
    folder = next(p for p in batch.home.rglob(sha) if p.is_dir())
    (folder / "tensors.safetensors").write_bytes(b"")
    assert batch.json("sample", "--model", "c-policy", code=5)["error"]["code"] == "corrupt_artifact"


def test_a_newer_registry_is_refused(cli):
    database = sqlite3.connect(cli.home / "plait.db")
    database.execute("update plait_alembic_version set version_num = 'from_the_future'")
    database.commit()
    database.close()
    error = cli.json("data", "list", code=4)["error"]
    assert error["hint"]


def test_a_simulated_lab_that_measures_other_sequences_is_refused(campaign):
    error = campaign.json("campaign", "run", "c", "--lab", "splice", code=4)["error"]
    assert "measures nothing of ANNNNNNN" in error["message"]
    assert campaign.json("campaign", "show", "c")["rounds"] == []


def test_a_batch_that_comes_out_smaller_is_said(campaign, tmp_path):
    config = campaign.json("campaign", "show", "c")["config"] | {"name": "far"}
    config["batch"] = {"size": 8, "num_candidates": 64, "min_distance": 7}
    (tmp_path / "far.yaml").write_text(yaml.safe_dump(config))
    campaign("campaign", "create", tmp_path / "far.yaml")
    answer = campaign("round", "propose", "far")
    number = len(campaign.json("round", "show", "far")["designs"])
    assert number < 8
    assert f"only {number} of 8" in answer.err
