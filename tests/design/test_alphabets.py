import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plait.design.alphabets import DNA, PROTEIN, RNA, Alphabet, find_alphabet
from plait.design.errors import BadInputError


@pytest.mark.parametrize("alphabet", [DNA, RNA, PROTEIN, find_alphabet("custom:01")], ids=lambda a: a.name)
def test_encode_and_decode_are_inverse(alphabet):
    rng = np.random.default_rng(0)
    tokens = rng.integers(alphabet.size, size=(50, 7))
    sequences = alphabet.decode(tokens)
    np.testing.assert_array_equal(alphabet.encode(sequences), tokens)
    assert alphabet.decode(np.full((1, 2), alphabet.mask_token)) == ["??"]


def test_complement_pairs_letters():
    assert "".join(DNA.letters[t] for t in DNA.complement_tokens()) == "TGCA"
    assert "".join(RNA.letters[t] for t in RNA.complement_tokens()) == "UGCA"
    with pytest.raises(BadInputError, match="'protein' has no complement"):
        PROTEIN.complement_tokens()


@pytest.mark.parametrize(
    ("alphabet", "sequence", "words"),
    [
        (DNA, "ACgT", ["lower-case 'g'", "position 3"]),
        (DNA, "ACUT", ["'U' at position 3", "RNA letter", "--alphabet rna"]),
        (RNA, "ACGT", ["'T' at position 4", "DNA letter", "--alphabet dna"]),
        (DNA, "NACG", ["ambiguous 'N' at position 1", "ACGT"]),
        (DNA, "AC-G", ["'-' at position 3", "not one of ACGT"]),
        (DNA, "ACG ", ["' ' at position 4"]),
        (DNA, "ACG\t", [r"'\t' at position 4"]),
        (PROTEIN, "MKX", ["ambiguous 'X' at position 3"]),
        (PROTEIN, "MKé", ["'é' at position 3"]),
    ],
)
def test_problems_name_letter_and_position(alphabet, sequence, words):
    assert all(word in alphabet.problem_in(sequence) for word in words), alphabet.problem_in(sequence)
    with pytest.raises(BadInputError) as caught:
        alphabet.encode([alphabet.letters[: len(sequence)], sequence])
    assert [(p.row, p.value) for p in caught.value.problems] == [(2, sequence)]


def test_other_lengths_are_named():
    with pytest.raises(BadInputError) as caught:
        DNA.encode(["ACG", "AC", "ACG", "ACGT"])
    assert [(p.row, p.reason) for p in caught.value.problems] == [
        (2, "length 2, expected 3"),
        (4, "length 4, expected 3"),
    ]


@given(st.lists(st.text(max_size=6) | st.text("ACGT", min_size=3, max_size=3), max_size=5))
def test_any_text_is_encoded_or_named(sequences):
    if len({len(s) for s in sequences}) <= 1 and set("".join(sequences)) <= set("ACGT"):
        assert DNA.decode(DNA.encode(sequences)) == sequences
    else:
        with pytest.raises(BadInputError) as caught:
            DNA.encode(sequences)
        assert caught.value.problems


@pytest.mark.parametrize(
    "name", ["dna2", "", "DNA", "custom:", "custom:A", "custom:AA", "custom:ab", "custom:A B", "custom:A?"]
)
def test_unusable_names_are_refused_in_one_line(name):
    with pytest.raises(BadInputError) as caught:
        find_alphabet(name)
    assert "\n" not in caught.value.message
    assert "pydantic" not in caught.value.message


def test_alphabets_hash_pickle_and_travel_as_json():
    assert {DNA, RNA, Alphabet.model_validate_json(DNA.model_dump_json())} == {DNA, RNA}
    assert pickle.loads(pickle.dumps(DNA)) == DNA  # noqa: S301
    assert hash(DNA) == hash(DNA.model_copy(deep=True))


@pytest.mark.parametrize("wildcards", [{"N": "ACGX"}, {"NN": "A"}, {"N": ""}])
def test_wildcards_stand_for_letters(wildcards):
    with pytest.raises(ValueError, match="wildcard"):
        Alphabet(name="custom", letters="ACGT", wildcards=wildcards)
