import pytest
from hypothesis import given
from hypothesis import strategies as st
from plait.design.alphabets import DNA, IUPAC_DNA, PROTEIN
from plait.design.constraints import EditDistance, ForbiddenMotif, GcWindow, MaxHomopolymer
from plait.design.errors import BadInputError
from pydantic import ValidationError

batches = st.integers(1, 9).flatmap(
    lambda length: st.lists(st.text("ACGT", min_size=length, max_size=length), min_size=1, max_size=6)
)
motifs = st.lists(st.text("ACGTRYSWKMBDHVN", min_size=1, max_size=4), min_size=1, max_size=3)


def reverse_complement(sequence):
    return "".join({"A": "T", "C": "G", "G": "C", "T": "A"}[letter] for letter in reversed(sequence))


def occurrences(sequence, motif):
    """Starts (from 1) of a motif, letter by letter."""
    return [
        start + 1
        for start in range(len(sequence) - len(motif) + 1)
        if all(sequence[start + i] in IUPAC_DNA[code] for i, code in enumerate(motif))
    ]


def check(rule, sequences, expected):
    """`expected(sequence)` gives the positions (from 1) that break the rule."""
    tokens = DNA.encode(sequences)
    positions = [sorted({p for i, p, _ in rule.violations(tokens, DNA) if i == item}) for item in range(len(sequences))]
    assert positions == [sorted(set(expected(sequence))) for sequence in sequences]
    assert rule.is_satisfied(tokens, DNA).tolist() == [not found for found in positions]


@given(batches, st.integers(1, 10) | st.none(), st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted))
def test_gc_window(sequences, window, bounds):
    def expected(sequence):
        width = min(window or len(sequence), len(sequence))
        shares = [sum(c in "GC" for c in sequence[i : i + width]) / width for i in range(len(sequence) - width + 1)]
        return [i + 1 for i, share in enumerate(shares) if not bounds[0] - 1e-9 <= share <= bounds[1] + 1e-9]

    check(GcWindow(minimum=bounds[0], maximum=bounds[1], window=window), sequences, expected)


@given(batches, st.integers(1, 4))
def test_max_homopolymer(sequences, length):
    def expected(sequence):
        starts = [i for i in range(len(sequence)) if i == 0 or sequence[i] != sequence[i - 1]]
        ends = [*starts[1:], len(sequence)]
        return [start + 1 for start, end in zip(starts, ends, strict=True) if end - start > length]

    check(MaxHomopolymer(length=length), sequences, expected)


@given(batches, motifs, st.booleans())
def test_forbidden_motif(sequences, motifs, both_strands):
    def expected(sequence):
        found = [p for motif in motifs for p in occurrences(sequence, motif)]
        if both_strands:
            twin = reverse_complement(sequence)
            found += [len(sequence) - p - len(m) + 2 for m in motifs for p in occurrences(twin, m)]
        return found

    check(ForbiddenMotif(motifs=tuple(motifs), both_strands=both_strands), sequences, expected)


@given(batches, st.data(), st.integers(0, 4))
def test_edit_distance(sequences, data, maximum):
    parent = data.draw(st.text("ACGT", min_size=len(sequences[0]), max_size=len(sequences[0])))

    def expected(sequence):
        changed = [i + 1 for i, (a, b) in enumerate(zip(sequence, parent, strict=True)) if a != b]
        return changed[maximum : maximum + 1]

    check(EditDistance(parent=parent, maximum=maximum), sequences, expected)


def test_the_other_strand_is_named():
    rule = ForbiddenMotif(motifs=("GGTCTC",))
    tokens = DNA.encode(["AGGTCTCA", "AGAGACCA"])
    assert rule.violations(tokens, DNA) == [
        (0, 2, "motif GGTCTC"),
        (1, 2, "motif GGTCTC on the other strand"),
    ]


def test_rules_that_make_no_sense_are_refused():
    tokens = PROTEIN.encode(["MKT"])
    with pytest.raises(BadInputError, match="gc_window needs dna or rna"):
        GcWindow(minimum=0.4).violations(tokens, PROTEIN)
    with pytest.raises(BadInputError, match="'U' at position 2"):
        ForbiddenMotif(motifs=("AUG",)).violations(DNA.encode(["ACGT"]), DNA)
    with pytest.raises(BadInputError, match="lower-case 'a' at position 1"):
        EditDistance(parent="aCGT", maximum=1).violations(DNA.encode(["ACGT"]), DNA)
    with pytest.raises(BadInputError, match="parent has 3 letters, designs have 4"):
        EditDistance(parent="ACG", maximum=1).violations(DNA.encode(["ACGT"]), DNA)
    for wrong in (lambda: GcWindow(minimum=0.6, maximum=0.4), lambda: MaxHomopolymer(length=0)):
        with pytest.raises(ValidationError):
            wrong()
