import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plait.design.alphabets import DNA, PROTEIN
from plait.design.errors import BadInputError
from plait.design.space import DesignSpace
from plait.lab.corpus import read_corpus

SPACE = DesignSpace.from_template(DNA, "NGY")


def write(tmp_path, content):
    path = tmp_path / "corpus.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    "content",
    [
        b"AGC\nTGT\nAGC\n",
        b"\xef\xbb\xbfAGC\r\n\r\nTGT\r\nAGC",
        b"sequence\nAGC\nTGT\nAGC\n",
        b"name\tsequence\na\tAGC\nb\tTGT\nc\tAGC\n",
        b">one\nAGC\n>two\nTG\nT\n>three\nAGC\n",
    ],
)
def test_lines_fasta_and_tables(tmp_path, content):
    path = write(tmp_path, content)
    assert read_corpus(path, SPACE) == read_corpus(path, DNA, 3) == read_corpus(path, DNA) == ["AGC", "TGT", "AGC"]


@pytest.mark.parametrize(
    ("content", "row", "words"),
    [
        ("AGC\n\nAGX\n", 3, "'X' at position 3"),
        ("AGC\nAGCC\n", 2, "length 4, expected 3"),
        ("AGC\nAAC\n", 2, "'A' at position 2: allowed G"),
        (">a\nAGC\n>b\n\n>c\nAGT\n", 3, "empty cell"),
        ("sequence,n\nAGC,1\nagc,2\n", 3, "lower-case"),
    ],
)
def test_bad_sequences_are_named_by_line(tmp_path, content, row, words):
    with pytest.raises(BadInputError) as caught:
        read_corpus(write(tmp_path, content), SPACE)
    assert [(p.row, p.column) for p in caught.value.problems] == [(row, "sequence")]
    assert words in caught.value.problems[0].reason


def test_without_a_space_the_usual_length_is_taken(tmp_path):
    with pytest.raises(BadInputError) as caught:
        read_corpus(write(tmp_path, "NA\nNA\nMKT\n"), PROTEIN)
    assert [(p.row, p.reason) for p in caught.value.problems] == [(3, "length 3, most rows have 2")]
    with pytest.raises(BadInputError, match="no column 'sequence'"):
        read_corpus(write(tmp_path, "name,letters\na,AGC\n"), DNA)
    with pytest.raises(BadInputError, match="is empty"):
        read_corpus(write(tmp_path, " \n"), DNA)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(st.binary(max_size=40) | st.text('ACG>\n\t,;" x', max_size=30).map(str.encode))
def test_any_bytes_are_read_or_refused(tmp_path, content):
    try:
        sequences = read_corpus(write(tmp_path, content), SPACE)
    except BadInputError:
        return
    assert SPACE.is_feasible(SPACE.encode(sequences)).all()
