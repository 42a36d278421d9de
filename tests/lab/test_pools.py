import gzip
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from plait.design.alphabets import DNA, PROTEIN
from plait.design.constraints import MaxHomopolymer
from plait.design.errors import BadInputError, NotFoundError, RunFailedError
from plait.design.space import DesignSpace
from plait.lab.pool_chunks import CHUNK, SCORES, WorkFolder
from plait.lab.pools import CHUNK_ROWS, Request, cut, parse_pool

FOUR = DesignSpace.from_template(DNA, "NNNN")
TABLE = b"id,sequence\na,ACGT\nb,TTTT\n"
FASTA = b">a first\r\nAC\r\nGT\r\n\r\n>b\nTTTT"


@pytest.fixture
def request_for(tmp_path):
    def make(name, content, space=FOUR, **fields):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        asked = Request(str(path), "sequence", space.model_dump(mode="json"), str(tmp_path / "work"), ("mean",), False)
        return replace(asked, **fields)

    return make


def rows_of(asked):
    folder = WorkFolder(asked.folder)
    tables = [folder.read(CHUNK, number) for number in range(len(folder.pool().chunk_rows))]
    return pa.concat_tables(tables)


def silent(rows):
    pass


def parquet(table):
    sink = pa.BufferOutputStream()
    pa.parquet.write_table(table, sink)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.csv", TABLE),
        ("p.CSV", b"\xef\xbb\xbf" + TABLE.replace(b"\n", b"\r\n")),
        ("p.tsv", TABLE.replace(b",", b"\t") + b"\n\n"),
        ("p.csv", b'"id";"sequence"\n"a";"ACGT"\n\nb;TTTT'),
        ("p.csv.gz", gzip.compress(TABLE[:9]) + gzip.compress(TABLE[9:])),
        ("p.parquet", parquet(pa.table({"id": ["a", "b"], "sequence": ["ACGT", "TTTT"]}))),
        (
            "p.parquet",
            parquet(pa.table({"id": ["a", "b"], "sequence": pa.array(["ACGT", "TTTT"]).dictionary_encode()})),
        ),
    ],
)
def test_tables_of_every_kind_hold_the_same_rows(request_for, name, content):
    asked = request_for(name, content)
    pool = cut(asked, silent)
    assert (pool.chunk_rows, pool.num_rejected, pool.notes) == ((2,), 0, ())
    assert rows_of(asked).to_pylist() == [{"id": "a", "sequence": "ACGT"}, {"id": "b", "sequence": "TTTT"}]


@pytest.mark.parametrize(("name", "content"), [("p.fasta", FASTA), ("p.fa.gz", gzip.compress(FASTA))])
def test_fasta_records_may_span_lines(request_for, name, content):
    asked = request_for(name, content)
    cut(asked, silent)
    assert rows_of(asked).to_pylist() == [{"sequence": "ACGT", "name": "a first"}, {"sequence": "TTTT", "name": "b"}]


def test_na_is_a_peptide_and_what_looks_like_a_number_stays_text(request_for):
    asked = request_for("p.csv", b"sequence,id\nNA,007\n", DesignSpace.from_template(PROTEIN, "XX"))
    cut(asked, silent)
    assert rows_of(asked).to_pylist() == [{"sequence": "NA", "id": "007"}]


def test_columns_of_parquet_keep_their_types_but_not_their_metadata(request_for):
    field = pa.field("when", pa.int64(), metadata={"ARROW:extension:name": "ray.data.arrow_tensor"})
    schema = pa.schema([pa.field("sequence", pa.string()), field, ("deep", pa.list_(pa.int8()))], metadata={"a": "b"})
    asked = request_for("p.parquet", parquet(pa.table([["ACGT"], [3], [[1]]], schema=schema)))
    parse_pool(asked, silent)  # Ray, where a process has loaded it, tells pyarrow to obey such names
    read = rows_of(asked).schema
    assert (read.names, read.metadata) == (["sequence", "when"], None)
    assert (read.field("when").type, read.field("when").metadata) == (pa.int64(), None)


def test_every_bad_row_is_named_and_nothing_is_taken(request_for):
    lines = [
        b"id,sequence",
        b"a,ACGT",
        b"b,ACG",
        b"c,acgt",
        b"d",
        b"",
        b"e,",
        b"f,AC-T",
        b"\xff,ACGT",
        b"g,A\xc3\xa9T",
        b"h,ACGT",
    ]
    asked = request_for("p.csv", b"\n".join(lines))
    with pytest.raises(BadInputError, match="7 of 9 rows") as caught:
        parse_pool(asked, silent)
    told = {(p.row, p.column): p.reason for p in caught.value.problems}
    assert told == {
        (3, "sequence"): "length 3, expected 4",
        (4, "sequence"): "lower-case 'a' at position 1: write upper-case letters",
        (5, "(row)"): "1 cells, the header has 2",
        (7, "sequence"): "empty cell",
        (8, "sequence"): "'-' at position 3 is not one of ACGT",
        (9, "id"): "not UTF-8",
        (10, "sequence"): "'é' at position 2 is not one of ACGT",
    }
    assert WorkFolder(asked.folder).pool() is None


def test_bad_rows_may_be_left_out_and_are_written_down(request_for):
    asked = request_for("p.fasta", b">a\nACGT\n>=b\nACG\n>c\nTTTT\n>d\n", is_skipping=True)
    pool = cut(asked, silent)
    assert (pool.num_rows, pool.num_rejected) == (2, 2)
    assert rows_of(asked)["name"].to_pylist() == ["a", "c"]
    with WorkFolder(asked.folder).open_rejected("rb") as file:
        assert file.read().decode().splitlines() == [
            '"row","column","value","reason"',
            '3,"sequence","ACG","length 3, expected 4"',
            '7,"sequence","","empty cell"',
        ]


def test_a_position_that_allows_fewer_letters_is_asked_and_constraints_are_a_note(request_for):
    space = DesignSpace.from_template(DNA, "NNGT", [MaxHomopolymer(length=2)])
    asked = request_for("p.csv", b"sequence\nACGT\nGGGT\n", space)
    assert cut(asked, silent).notes == ("1 of the first 2 rows break a constraint of the model's space",)
    with pytest.raises(BadInputError) as caught:
        cut(request_for("q.csv", b"sequence\nACGT\nACTT\n", space), silent)
    assert [(p.row, p.reason) for p in caught.value.problems] == [(3, "'T' at position 3: allowed G")]


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("p.csv", b"sequence,id\n", "holds no sequence"),
        ("p.csv", b"", "is empty"),
        ("p.fasta", b"", "holds no sequence"),
        ("p.fasta", b"ACGT\n", "is no FASTA"),
        ("p.parquet", parquet(pa.table({"sequence": pa.array([], pa.string())})), "holds no sequence"),
        ("p.parquet", parquet(pa.table({"sequence": [1, 2]})), "holds no text"),
        ("p.parquet", b"PAR1 and nothing else", "cannot be read"),
        ("p.csv", gzip.compress(TABLE), "is not what its name says"),
        ("p.csv.gz", gzip.compress(TABLE)[:-12], "cannot be read"),
        ("p.xlsx", b"PK", "is of no known kind"),
        ("p.csv", b"seq,id\nACGT,1\n", "has no column 'sequence'; there are 'seq', 'id'"),
        ("p.csv", b"sequence,a,a\nACGT,1,2\n", "names a column twice"),
        ("p.csv", b"sequence,mean\nACGT,1\n", "has a column 'mean' of its own"),
        ("p.csv", b'sequence,id\nACGT,"1\nACGT,2\nACGT,3"\n', "spans several lines"),
    ],
)
def test_files_that_are_refused_say_why(request_for, name, content, why):
    with pytest.raises(BadInputError, match=why):
        cut(request_for(name, content), silent)


def test_a_work_folder_may_lie_behind_a_url(request_for):
    asked = request_for("p.csv", TABLE + b"c,ACG\n", folder="memory://pools/one", is_skipping=True)
    folder = WorkFolder(asked.folder)
    assert folder.pool() is None
    assert folder.finished() == set()
    pool = cut(asked, silent)
    assert folder.pool() == pool
    assert folder.read(CHUNK, 0, ["sequence"]).to_pydict() == {"sequence": ["ACGT", "TTTT"]}
    folder.write(SCORES, 0, pa.table({"mean": [1.0, 2.0]}))
    assert folder.finished() == {0}
    with folder.open_rejected("rb") as file:
        assert file.read().endswith(b'4,"sequence","ACG","length 3, expected 4"\n')


def test_a_file_that_is_not_there(request_for):
    with pytest.raises(NotFoundError, match="there is no file"):
        cut(request_for("p.csv", None), silent)


def test_the_process_that_reads_says_what_it_does(request_for):
    told = []
    assert parse_pool(request_for("p.csv", TABLE), told.append).chunk_rows == (2,)
    assert told == [2]


def test_a_work_folder_that_cannot_be_written_is_no_mistake_of_the_file(request_for, tmp_path):
    (tmp_path / "work").write_text("a file is in the way")
    with pytest.raises(RunFailedError, match="cannot be written"):
        parse_pool(request_for("p.csv", TABLE), silent)


def test_rows_keep_order_and_number_over_blocks_and_chunks(request_for):
    num = 200_000  # some 9 MB: two blocks of text, seven chunks
    letters = np.array(list("ACGT"))[np.random.default_rng(0).integers(0, 4, (num, 4))]
    rows = [f"{i}{'.' * 30},{''.join(row)}" for i, row in enumerate(letters)]
    rows[10] = rows[190_000] = "cut"
    rows[190_001] = "x,ACGN"
    asked = request_for("p.csv", "\n".join(["id,sequence", *rows]).encode(), is_skipping=True)
    told = []
    pool = cut(asked, told.append)
    assert pool.chunk_rows == (*[CHUNK_ROWS] * 6, num - 3 - 6 * CHUNK_ROWS)
    assert told == sorted(told)
    assert told[-1] == num
    kept = [row.split(",") for i, row in enumerate(rows) if i not in (10, 190_000, 190_001)]
    read = rows_of(asked)
    assert list(zip(read["id"].to_pylist(), read["sequence"].to_pylist(), strict=True)) == [tuple(row) for row in kept]
    with WorkFolder(asked.folder).open_rejected("rb") as file:
        assert [line.split(b",")[0] for line in file.read().splitlines()] == [b'"row"', b"12", b"190002", b"190003"]


def test_fasta_over_blocks_is_the_same_fasta(request_for):
    num = 210_000
    text = "".join(f">{i}{'-' * 30}\nAC\nG{'ACGT'[i % 4]}\n" for i in range(num))
    asked = request_for("p.fa", text.encode())
    cut(asked, silent)
    read = rows_of(asked)
    assert read["sequence"].to_pylist() == [f"ACG{'ACGT'[i % 4]}" for i in range(num)]
    assert read["name"].to_pylist() == [f"{i}{'-' * 30}" for i in range(num)]


def test_the_process_that_reads_knows_no_ray():
    heavy = "{'ray', 'torch', 'pandas'} & set(sys.modules)"
    script = f"import sys, plait.lab.pools; sys.exit(str({heavy}) if {heavy} else 0)"
    subprocess.run([sys.executable, "-c", script], check=True)
