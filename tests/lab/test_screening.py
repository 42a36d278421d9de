import hashlib
import json

import numpy as np
import pytest
from plait.design.alphabets import DNA
from plait.design.errors import BadInputError
from plait.lab.screening import DenyListScreener, translate

RNG = np.random.default_rng(5)
LISTED = DNA.decode(RNG.integers(4, size=(1, 60)))[0]
FLANKS = DNA.decode(RNG.integers(4, size=(2, 15)))
PEPTIDE = "MWHKCFYDQENR"
DNA_OF = "ATGTGGCACAAGTGCTTCTACGACCAGGAGAACCGC"
CODONS = dict(zip(PEPTIDE, (DNA_OF[i : i + 3] for i in range(0, 36, 3)), strict=True))


def twin_of(sequence):
    return sequence[::-1].translate(str.maketrans("ACGT", "TGCA"))


def screener(tmp_path, *entries, **fields):
    path = tmp_path / "deny.json"
    head = {"name": "team", "version": "3", "date": "2026-01-31", "source": "our biosafety officer"}
    path.write_text(
        json.dumps({**head, "entries": [{"id": "e1", "reason": "test entry", **e} for e in entries], **fields})
    )
    return DenyListScreener(path)


def cleared(screen, *sequences, alphabet="dna"):
    return [verdict[0] for verdict in screen.screen(sequences, alphabet)]


def test_a_shared_stretch_is_refused_on_both_strands_wherever_it_lies(tmp_path):
    screen = screener(tmp_path, {"kind": "dna", "sequence": LISTED})
    hits = [f"{FLANKS[0]}{LISTED[i : i + 30]}{FLANKS[1]}" for i in (0, 13, 30)]
    assert cleared(screen, *hits, *map(twin_of, hits)) == [False] * 6
    assert cleared(screen, *[hit.replace("T", "U") for hit in hits], alphabet="rna") == [False] * 3
    other = "A" if LISTED[9] != "A" else "C"
    near = other + LISTED[10:39]
    assert cleared(screen, near, FLANKS[0] + FLANKS[1], LISTED[9] + near[1:]) == [True, True, False]
    is_cleared, reason = screen.screen([hits[0]], "dna")[0]
    assert (is_cleared, reason) == (False, "matches 'e1' of team 3: test entry")


def test_an_entry_shorter_than_the_window_matches_as_a_whole(tmp_path):
    screen = screener(tmp_path, {"kind": "dna", "sequence": "ACGTTGCA"}, {"kind": "dna", "sequence": "GGNNRTCA"})
    assert cleared(screen, "TTACGTTGCATT", "TTACGTTGCTTT") == [False, True]
    assert cleared(screen, "AGGACATCAA", "AGGACCTCAA", twin_of("AGGACATCAA")) == [False, True, False]


@pytest.mark.parametrize("frame", [0, 1, 2])
def test_a_protein_entry_is_found_in_all_six_frames(tmp_path, frame):
    screen = screener(tmp_path, {"kind": "protein", "sequence": PEPTIDE})
    coding = "A" * frame + "".join(CODONS[residue] for residue in PEPTIDE[1:11]) + "TT"
    changed = coding.replace(CODONS["K"], "GGG")
    assert cleared(screen, coding, twin_of(coding), changed) == [False, False, True]
    assert cleared(screen, f"AA{PEPTIDE[1:11]}AA", f"AA{PEPTIDE[1:10]}AA", alphabet="protein") == [False, True]


def test_a_hash_stands_for_its_letters(tmp_path):
    digest = hashlib.sha256(LISTED[:40].encode()).hexdigest()
    screen = screener(tmp_path, {"kind": "dna", "sha256": digest, "length": 40})
    assert cleared(screen, f"GG{LISTED[:40]}", twin_of(LISTED[:45]), LISTED[:39]) == [False, False, True]


def test_what_cannot_be_judged_is_not_cleared():
    screen = DenyListScreener()
    assert cleared(screen, "ACGN", "", "acgt", "ACGU", "ACGT") == [False, False, False, False, True]
    assert cleared(screen, "ACGT", "ACGU", alphabet="rna") == [False, True]
    assert cleared(screen, "ACGT", alphabet="klingon") == [False]
    assert screen.screen(["0101"], "custom")[0] == (
        True,
        "custom alphabet: deny-lists speak of dna, rna and protein only",
    )


def test_the_shipped_list_says_how_much_it_knows(tmp_path):
    shipped = DenyListScreener()
    assert shipped.num_entries == 0
    assert shipped.screen(["ACGT"], "dna") == [(True, "matches none of 0 entries")]
    own = screener(tmp_path, {"kind": "dna", "sequence": "ACGTTGCA"})
    assert own.num_entries == 1
    assert own.name == shipped.name == "plait-deny-list"
    assert own.version.startswith(f"{shipped.version}+team-3-")
    assert own.version != screener(tmp_path, {"kind": "dna", "sequence": "ACGTTGCT"}).version


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"kind": "dna"}, "either a sequence, or sha256 and length"),
        ({"kind": "dna", "sequence": "ACGT", "length": 4}, "either a sequence, or sha256 and length"),
        ({"kind": "dna", "sha256": "0" * 64}, "either a sequence, or sha256 and length"),
        ({"kind": "dna", "sequence": "ACGU"}, "letters that are not dna: U"),
        ({"kind": "dna", "sequence": "ACG"}, "entries.0.sequence"),
        ({"kind": "rna", "sequence": "ACGT"}, "entries.0.kind"),
        ({"kind": "dna", "sequence": "ACGT", "note": "x"}, "entries.0.note"),
    ],
)
def test_a_malformed_list_stops_everything(tmp_path, entry, words):
    with pytest.raises(BadInputError) as caught:
        screener(tmp_path, entry)
    assert words in caught.value.message


def test_an_unreadable_list_stops_everything(tmp_path):
    for content in (b"", b"{", b"[]", b"\xff", b"null"):
        (tmp_path / "deny.json").write_bytes(content)
        with pytest.raises(BadInputError, match="cannot be used"):
            DenyListScreener(tmp_path / "deny.json")
    with pytest.raises(BadInputError, match="cannot be used"):
        DenyListScreener(tmp_path / "nothing.json")
    with pytest.raises(BadInputError, match="cannot be used"):
        DenyListScreener(tmp_path)


def test_the_genetic_code():
    assert translate("ATGTGGAGATTTTAAC") == "MWRF*"
    assert sorted(map(translate, ["TAA", "TAG", "TGA"])) == ["*"] * 3
    assert [translate(codon) for codon in CODONS.values()] == list(PEPTIDE)
