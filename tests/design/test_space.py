import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plait.design.alphabets import DNA, PROTEIN, find_alphabet
from plait.design.constraints import EditDistance, ForbiddenMotif, GcWindow, MaxHomopolymer
from plait.design.errors import BadInputError
from plait.design.space import DesignSpace, Violation
from pydantic import ValidationError

templates = st.text("ACGTRYSWKMBDHVN", min_size=1, max_size=5)


def twin_of(sequence):
    return sequence[::-1].translate(str.maketrans("ACGT", "TGCA"))


@given(templates)
def test_a_template_says_which_letters_may_stand_where(template):
    space = DesignSpace.from_template(DNA, template)
    expected = ["".join(s) for s in itertools.product(*(sorted(DNA.wildcards[c]) for c in template))]
    listed = [s for tokens in space.enumerate(chunk=7) for s in space.decode(tokens)]
    assert listed == expected
    assert (space.template, space.length, space.size) == (template, len(template), len(expected))
    assert DesignSpace.model_validate_json(space.model_dump_json()) == space
    assert hash(pickle.loads(pickle.dumps(space))) == hash(space)  # noqa: S301


def test_the_splice_template():
    space = DesignSpace.from_template(DNA, "NNNGYNNNN")
    assert space.size == 32_768 == sum(len(tokens) for tokens in space.enumerate())
    assert space.allowed[3:5] == ("G", "CT")
    assert space.free_positions().tolist() == [0, 1, 2, 4, 5, 6, 7, 8]
    assert space.allowed_mask().sum() == 4 * 7 + 1 + 2


def test_brackets_are_a_choice_in_any_alphabet():
    space = DesignSpace.from_template(find_alphabet("custom:012"), "[01]2[012]")
    assert space.allowed == ("01", "2", "012")
    assert DesignSpace.from_template(space.alphabet, space.template) == space


@pytest.mark.parametrize(
    ("alphabet", "template", "words"),
    [
        (DNA, "", "it is empty"),
        (DNA, "NNuN", "'u' at position 3"),
        (DNA, "N[CG]NZ", "'Z' at position 4"),
        (DNA, "N[]", r"'\[' at position 2"),
        (DNA, "N[AX]", "position 2 allows 'AX'"),
        (DNA, "N[AA]", "position 2 allows 'AA'"),
        (PROTEIN, "MXO", "'O' at position 3"),
    ],
)
def test_unreadable_templates_are_named(alphabet, template, words):
    with pytest.raises(BadInputError, match=words) as caught:
        DesignSpace.from_template(alphabet, template)
    assert "\n" not in caught.value.message


def test_strand_symmetry_needs_a_symmetric_template():
    assert DesignSpace.from_template(DNA, "NRYN", strand_symmetric=True).strand_symmetric
    with pytest.raises(BadInputError, match="reverse complement"):
        DesignSpace.from_template(DNA, "NNNGYNNNN", strand_symmetric=True)
    with pytest.raises(BadInputError, match="no complement"):
        DesignSpace.from_template(PROTEIN, "XX", strand_symmetric=True)


def test_constraints_that_cannot_be_judged_are_refused_at_construction():
    with pytest.raises(BadInputError, match="gc_window"):
        DesignSpace.from_template(PROTEIN, "XXX", [GcWindow(minimum=0.2)])
    with pytest.raises(BadInputError, match="parent has 2 letters"):
        DesignSpace.from_template(DNA, "NNN", [EditDistance(parent="AC", maximum=1)])
    with pytest.raises(BadInputError, match="'X' at position 2"):
        DesignSpace.from_template(DNA, "NNN", [ForbiddenMotif(motifs=("AXA",))])
    with pytest.raises(ValidationError, match="at least one position"):
        DesignSpace(alphabet=DNA, allowed=())


@given(st.lists(st.text("ACGT", min_size=4, max_size=4), min_size=1, max_size=20))
def test_canonical_is_idempotent_and_merges_exactly_the_two_strands(sequences):
    space = DesignSpace.from_template(DNA, "NNNN", strand_symmetric=True)
    merged = space.decode(space.canonical(space.encode(sequences)))
    assert merged == [min(s, twin_of(s)) for s in sequences]
    assert space.decode(space.canonical(space.encode(merged))) == merged
    plain = DesignSpace.from_template(DNA, "NNNN")
    assert plain.decode(plain.canonical(plain.encode(sequences))) == sequences


def test_enumerate_lists_one_strand_of_feasible_items():
    space = DesignSpace.from_template(DNA, "NNNN", [MaxHomopolymer(length=2)], strand_symmetric=True)
    listed = [s for tokens in space.enumerate(chunk=50) for s in space.decode(tokens)]
    every = map("".join, itertools.product("ACGT", repeat=4))
    assert listed == [s for s in every if s <= twin_of(s) and not any(c * 3 in s for c in "ACGT")]


def test_violations_name_item_position_rule_and_reason():
    space = DesignSpace.from_template(DNA, "NNG", [MaxHomopolymer(length=2)])
    tokens = DNA.encode(["ACG", "ACT", "GGG"])
    assert space.violations(tokens) == [
        Violation(1, 3, "template", "'T', allowed G"),
        Violation(2, 1, "max_homopolymer", "more than 2 'G' in a row"),
    ]
    assert space.is_feasible(tokens).tolist() == [True, False, False]


def test_encode_names_every_sequence_outside():
    space = DesignSpace.from_template(DNA, "NNG")
    with pytest.raises(BadInputError) as caught:
        space.encode(["ACG", "ACT", "AAG", "CCA"])
    assert [(p.row, p.reason) for p in caught.value.problems] == [
        (2, "'T' at position 3: allowed G"),
        (4, "'A' at position 3: allowed G"),
    ]
    with pytest.raises(BadInputError) as caught:
        space.encode(["ACG", "AC"])
    assert [p.row for p in caught.value.problems] == [2]
    assert space.encode([]).shape == (0, 3)
    assert space.canonical(np.zeros((0, 3), dtype=np.int64)).shape == (0, 3)


def test_enumerate_lists_what_is_feasible_at_any_chunk():
    space = DesignSpace.from_template(DNA, "N" * 8, [GcWindow(minimum=0.4, maximum=0.6), MaxHomopolymer(length=3)])
    assert sum(len(tokens) for tokens in space.enumerate()) == sum(
        len(tokens[space.is_feasible(tokens)]) for tokens in DesignSpace.from_template(DNA, "N" * 8).enumerate(10_000)
    )
