import json
from dataclasses import replace

import pytest
from plait.benchmarks.cells import TaskLaboratory, alphabet_name, failed, from_document, make_cell, to_document
from plait.benchmarks.tasks import find_task
from plait.campaign.config import parse_config
from plait.design.alphabets import find_alphabet
from plait.design.space import DesignSpace

TASK = find_task("splice6")


def test_the_small_suite_cuts_and_the_others_do_not():
    real, small = (parse_config(make_cell(TASK, "ppo", 2, suite).config) for suite in ("real", "small"))
    assert (real.rounds, small.rounds) == (3, 1)
    assert real.seed == small.seed == 2
    assert real.finetune.settings == {}
    assert small.finetune.settings["num_updates"] < 100
    assert parse_config(make_cell(TASK, "ppo", 2, "small", rounds=2).config).rounds == 2


def test_the_key_tells_configurations_apart_and_knows_the_defaults():
    cell = make_cell(TASK, "ppo", 0, "real")
    assert cell.key == make_cell(TASK, "ppo", 0, "real").key
    assert cell.key == replace(cell, config={**cell.config, "filter": {"support_gate": True}}).key
    others = [
        make_cell(TASK, "ppo", 1, "real"),
        make_cell(TASK, "braid", 0, "real"),
        make_cell(TASK, "ppo", 0, "small"),
        make_cell(find_task("splice"), "ppo", 0, "real"),
    ]
    assert len({cell.key, *(other.key for other in others)}) == 5


def test_a_failed_row_comes_back_from_json_as_it_was():
    cell = make_cell(TASK, "ppo", 0, "small")
    row = failed(cell, "the lamp is broken", 1.5, 300.0)
    assert from_document(json.loads(json.dumps(to_document(cell, row)))) == row
    assert row.final is None


@pytest.mark.parametrize("name", ["dna", "protein", "custom:0123"])
def test_alphabets_are_found_by_their_name(name):
    assert find_alphabet(alphabet_name(find_alphabet(name))) == find_alphabet(name)


def test_the_lab_of_a_task_covers_its_space_and_no_other():
    laboratory = TaskLaboratory(TASK, 0)
    space = TASK.space
    assert laboratory.covers(space)
    other_letter = tuple("C" if letters == "G" else letters for letters in space.allowed)
    elsewhere = space.model_copy(update={"allowed": other_letter})
    longer = DesignSpace(alphabet=space.alphabet, allowed=("ACGT",) * 10)
    assert not laboratory.covers(elsewhere)
    assert not laboratory.covers(longer)
    assert laboratory.measure(space.decode(TASK.everything()[0][:3])) == TASK.measure(
        space.decode(TASK.everything()[0][:3]), 0
    )


def test_what_cannot_be_listed_has_no_table_of_truths():
    assert TaskLaboratory(find_task("ehrlich-s4-l50"), 0).truth() == {}
    truth = TaskLaboratory(TASK, 0).truth()
    assert len(truth) == len(TASK.everything()[0])
