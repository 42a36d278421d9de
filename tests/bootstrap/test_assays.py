"""Several assays in one campaign, from its creation to its closed rounds, on a home of its own; nothing is trained."""

import json

import numpy as np
import plait
import pytest
from plait.campaign.proposing import _next_round, open_turn
from plait.campaign.records import Design, RoundState
from plait.design.errors import BadInputError, ConfigError, NotFoundError, WrongStateError
from plait.interfaces.cli.main import main

CONFIG = {"name": "c", "dataset": "psi", "assays": [{"dataset": "kd"}, {"dataset": "tm"}]}
ASSAYS, GOALS = ("psi", "kd", "tm"), ("maximize", "minimize", "maximize")
IDS = [f"c-r1-{rank:03d}" for rank in (1, 2, 3)]
BATCH = ("AAAAAA", "CCCCCC", "GGGGGG")


def write_table(path, sequences, values):
    rows = [f"{s},{v!r}" for s, v in zip(sequences, values, strict=True)]
    path.write_text("sequence,value\n" + "\n".join(rows) + "\n")
    return path


def sequences_of(seed, num=80, length=6, letters="ACGT"):
    rng = np.random.default_rng(seed)
    made = dict.fromkeys("".join(rng.choice(list(letters), length)) for _ in range(num))
    return [s for s in made if s not in BATCH]


@pytest.fixture
def home(tmp_path):
    """A home with the datasets psi, kd and tm over six letters of DNA."""
    with plait.open(tmp_path / "home", create=True, actor="ada") as opened:
        for seed, (name, goal) in enumerate(zip(ASSAYS, GOALS, strict=True)):
            sequences = sequences_of(seed)
            table = write_table(tmp_path / f"{name}.csv", sequences, [seed + s.count("G") / 4 for s in sequences])
            opened.data.import_(table, dataset=name, alphabet="dna", unit=f"{name} unit", goal=goal)
        yield opened


@pytest.fixture
def ordered(home):
    """A campaign of three assays, "c", whose first round of three designs is ordered."""
    home.campaign.create(CONFIG)
    start_round(home, 1, BATCH)
    return home


def start_round(home, number, batch, name="c"):
    """A round as `propose`, `approve` and `export` leave it, without its trainings."""
    with home.registry.begin() as uow:
        assert _next_round(uow, home.ports, name).number == number
        designs = [
            Design(f"{name}-r{number}-{rank:03d}", name, number, rank, sequence, 1.0, 0.5, 0.5, "policy")
            for rank, sequence in enumerate(batch, start=1)
        ]
        uow.add_designs(name, number, designs)
        for state in (RoundState.PROPOSED, RoundState.APPROVED, RoundState.ORDERED):
            uow.move_round(name, number, state, "ada")


def results(tmp_path, *rows, header="design_id,assay,value,status"):
    path = tmp_path / "results.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def cli(home, capsys, *arguments, code=0):
    assert main(["--home", str(home.path), *map(str, arguments)]) == code
    return capsys.readouterr().out


def test_a_campaign_fixes_the_version_of_every_assay(home, tmp_path):
    made = home.campaign.create(CONFIG)
    home.data.import_(
        write_table(tmp_path / "more.csv", ["AAAAAC"], [1.0]),
        dataset="kd",
        alphabet="dna",
        unit="kd unit",
        goal="minimize",
        append=True,
    )
    assert made.assays == ASSAYS
    assert [a.version_id for a in made.further] == [home.data.show(name)[0].id for name in ("kd", "tm")]
    assert any("further assay kd (kd unit, version 1)" in note for note in made.notes)
    assert [a["dataset"] for a in home.campaign.show("c")["further"]] == ["kd", "tm"]
    assert home.campaign.create({"name": "single", "dataset": "psi"}).further == ()


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("missing", NotFoundError, "no dataset 'other'"),
        ("rna", ConfigError, "other is written in rna, psi in dna"),
        ("long", ConfigError, "other has 7 letters, psi has 6"),
        ("outside", ConfigError, "only 0 distinct sequences of other lie in the space GNNNNN"),
    ],
)
def test_a_further_assay_over_other_sequences_is_refused(home, tmp_path, kind, error, words):
    config = {"name": "c", "dataset": "psi", "assays": [{"dataset": "other"}]}
    if kind != "missing":
        sequences = sequences_of(9, length=7 if kind == "long" else 6, letters="ACU" if kind == "rna" else "ACT")
        table = write_table(tmp_path / "o.csv", sequences, [float(i) for i in range(len(sequences))])
        home.data.import_(table, dataset="other", alphabet="rna" if kind == "rna" else "dna", unit="au")
    if kind == "outside":
        inside = ["G" + s[1:] for s in sequences_of(3, num=200)]
        table = write_table(tmp_path / "p.csv", dict.fromkeys(inside), [float(i) for i in range(len(set(inside)))])
        home.data.import_(table, dataset="wide", alphabet="dna", unit="au")
        config |= {"dataset": "wide", "space": {"template": "GNNNNN"}}
    with pytest.raises(error, match=words):
        home.campaign.create(config)
    assert home.campaign.list() == []


def test_a_simulated_lab_is_refused_with_several_assays(home):
    home.campaign.create(CONFIG)
    with pytest.raises(WrongStateError, match=r"3 assays \(psi, kd, tm\); a simulated lab measures one") as caught:
        home.campaign.run("c", lab="splice")
    assert "without --lab" in caught.value.hint
    assert home.campaign.show("c")["rounds"] == []


def test_a_round_is_measured_when_every_assay_has_answered(ordered, tmp_path):
    part = [f"{IDS[0]},{assay},1.5,ok" for assay in ASSAYS] + [f"{i},psi,{k},ok" for k, i in enumerate(IDS[1:])]
    state, num_new, _ = ordered.results.import_("c", results(tmp_path, *part))
    assert (str(state.state), num_new) == ("measuring", 5)
    assert ordered.results.import_("c", results(tmp_path, *part))[1] == 0
    rest = [f"{IDS[1]},kd,,failed", f"{IDS[2]},kd,7,ok", f"{IDS[1]},tm,8,ok"]
    assert str(ordered.results.import_("c", results(tmp_path, *rest))[0].state) == "measuring"
    state, num_new, _ = ordered.results.import_("c", results(tmp_path, f"{IDS[2]},tm,9,ok"))
    assert (str(state.state), num_new) == ("measured", 1)
    closed, version, num_open = ordered.round.close("c")
    assert num_open == dict.fromkeys(ASSAYS, 0)
    before = {name: ordered.data.show(name)[0] for name in ASSAYS}
    after = {name: ordered.data.show(name)[1] for name in ASSAYS}
    gained = {name: after[name].num_measurements - before[name].num_measurements for name in ASSAYS}
    assert gained == {"psi": 3, "kd": 2, "tm": 3}
    assert (version.id, closed.next_version_id) == (after["psi"].id, after["psi"].id)
    assert [a.next_version_id for a in closed.further] == [after["kd"].id, after["tm"].id]
    with ordered.registry.begin() as uow:
        kd = uow.readings(after["kd"].id)
    assert (kd.sequences[-2:], kd.values[-2:].tolist()) == ((BATCH[0], BATCH[2]), [1.5, 7.0])


def test_open_wells_of_every_assay_fail_at_an_early_close(ordered, tmp_path, capsys):
    rows = [f"{IDS[0]},psi,1,ok", f"{IDS[1]},psi,2,ok", f"{IDS[0]},kd,3,ok", f"{IDS[1]},kd,,failed"]
    ordered.results.import_("c", results(tmp_path, *rows))
    said = cli(ordered, capsys, "round", "close", "c")
    for words in (
        "1 well without a reading in psi",
        "1 well without a reading in kd",
        "3 wells without a reading in tm",
    ):
        assert words in said
    assert f"psi version 2: {ordered.data.show('psi')[0].num_measurements + 2} readings" in said
    assert [len(ordered.data.show(name)) for name in ASSAYS] == [2, 2, 1]  # nothing was measured in tm
    shown = json.loads(cli(ordered, capsys, "round", "show", "c", "--json"))
    failed = [(r["design_id"], r["assay"]) for r in shown["results"] if r["value"] is None]
    assert sorted(failed) == sorted(
        [(IDS[1], "kd"), (IDS[2], "psi"), (IDS[2], "kd"), *((design_id, "tm") for design_id in IDS)]
    )
    assert [a["next_version_id"] for a in shown["round"]["further"]] == [
        ordered.data.show("kd")[1].id,
        ordered.data.show("tm")[0].id,
    ]


def test_closing_says_as_json_what_every_assay_gained(ordered, tmp_path, capsys):
    ordered.results.import_("c", results(tmp_path, f"{IDS[0]},kd,3,ok"))
    closed = json.loads(cli(ordered, capsys, "round", "close", "c", "--json"))
    assert closed["num_failed_open_wells"] == 8
    assert closed["num_failed_open_wells_by_assay"] == {"psi": 3, "kd": 2, "tm": 3}
    assert (closed["dataset_version"]["dataset"], closed["dataset_version"]["number"]) == ("psi", 1)
    assert [(v["dataset"], v["number"]) for v in closed["further_versions"]] == [("kd", 2), ("tm", 1)]


def test_the_next_round_learns_from_what_every_assay_measured(ordered, tmp_path):
    ordered.results.import_("c", results(tmp_path, *(f"{IDS[0]},{assay},1.5,ok" for assay in ASSAYS)))
    closed, version, _ = ordered.round.close("c")
    start_round(ordered, 2, ("TTTTTT",))
    first, second = ordered.campaign.show("c")["rounds"]
    with ordered.registry.begin() as uow:
        turn = open_turn(ordered.ports, uow, "c", uow.rounds("c")[1], {})
    assert [(a.version.dataset, a.goal) for a in turn.assays] == list(zip(ASSAYS, GOALS, strict=True))
    assert [BATCH[0] in a.readings.sequences for a in turn.assays] == [True] * 3
    assert second["dataset_version_id"] == version.id
    assert [a["version_id"] for a in second["further"]] == [a.next_version_id for a in closed.further]
    assert first["dataset_version_id"] != second["dataset_version_id"]
    with pytest.raises(BadInputError):
        ordered.results.import_("c", results(tmp_path, f"{IDS[1]},kd,1,ok"))  # of round 1, which is closed


def test_bad_files_are_refused_whole(ordered, tmp_path):
    with pytest.raises(BadInputError, match="has no column 'assay'") as caught:
        ordered.results.import_("c", results(tmp_path, f"{IDS[0]},1", header="design_id,value"))
    assert "psi or kd or tm" in caught.value.hint
    rows = [f"{IDS[0]},psi,1,ok", f"{IDS[0]},ki,1,ok", f"{IDS[0]},kd,x,ok", f"{IDS[0]},psi,2,ok"]
    with pytest.raises(BadInputError) as caught:
        ordered.results.import_("c", results(tmp_path, *rows))
    assert [(p.row, p.column) for p in caught.value.problems] == [(3, "assay"), (4, "value"), (5, "design_id")]
    assert ordered.results.list("c") == []
    ordered.results.import_("c", results(tmp_path, f"{IDS[0]},psi,1,ok"))
    ordered.results.import_("c", results(tmp_path, f"{IDS[0]},kd,2,ok"))  # another assay is no contradiction
    with pytest.raises(BadInputError) as caught:
        ordered.results.import_("c", results(tmp_path, f"{IDS[0]},kd,1,ok"))
    assert "in kd is registered as 2;" in caught.value.problems[0].reason


def test_a_round_without_a_reading_is_not_closed(ordered):
    with pytest.raises(WrongStateError, match="no readings yet"):
        ordered.round.close("c")
    assert ordered.campaign.show("c")["rounds"][0]["state"] == "ordered"


def test_campaigns_side_by_side_on_one_dataset_lose_no_readings(home, tmp_path):
    before = home.data.show("psi")[0]
    for name, sequence in (("one", "AAAAAA"), ("two", "CCCCCC")):
        home.campaign.create({"name": name, "dataset": "psi"})
        start_round(home, 1, [sequence], name)
        table = results(tmp_path, f"{name}-r1-001,1.5", header="design_id,value")
        home.results.import_(name, table)
    for name in ("one", "two"):
        home.round.close(name)
    latest = home.data.show("psi")[-1]
    assert (latest.number, latest.num_measurements) == (3, before.num_measurements + 2)
    with home.registry.begin() as uow:
        assert set(uow.readings(latest.id).sequences) >= {"AAAAAA", "CCCCCC"}
        assert uow.rounds("two")[0].next_version_id == latest.id
