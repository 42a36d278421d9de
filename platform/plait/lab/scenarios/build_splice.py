"""Builds data/splice.csv.gz from two pinned wheels; the scenario reads only that file.

    pip download --no-deps mavenn==1.1.4 logomaker==0.8.7
    python -m plait.lab.scenarios.build_splice mavenn-1.1.4-py3-none-any.whl logomaker-0.8.7-py3-none-any.whl

data/SOURCE.md says what the columns are and whose they are.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import zipfile
from pathlib import Path

import pandas as pd

from plait.design.errors import CorruptArtifactError

MAVENN_SHA256 = "b54077ee40a94892ace26b609b1b6778bc906e14483d7e74f8258c9731871e57"
LOGOMAKER_SHA256 = "8a65a5e5136a08823d199fbb5a9443674062a1c223236301accde19b0e401762"
REPLICATE_FILES = ("mavenn/examples/datasets/mpsa_data.csv.gz", "mavenn/examples/datasets/mpsa_replicate_data.csv.gz")
CORPUS_FILE = "logomaker/examples/datafiles/ss_sequences.txt"
SITE = "[ACGT]{3}G[CT][ACGT]{4}"


def read_member(wheel: Path, sha256: str, member: str) -> bytes:
    """One file of a wheel whose SHA-256 is the pinned one.

    Raises:
        CorruptArtifactError: It is not.
    """
    content = wheel.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise CorruptArtifactError(f"{wheel} is not the pinned wheel", hint=f"its SHA-256 must be {sha256}")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.read(member)


def build(mavenn: Path, logomaker: Path) -> bytes:
    """The data file: sequence, replicate_1, replicate_2 (log10 PSI, empty where not measured), is_natural (0 or 1)."""
    columns = []
    for number, member in enumerate(REPLICATE_FILES, start=1):
        raw = pd.read_csv(io.BytesIO(gzip.decompress(read_member(mavenn, MAVENN_SHA256, member))))
        raw.index = pd.Index(raw["x"].str.replace("U", "T"), name="sequence")
        columns.append(raw["y"].rename(f"replicate_{number}"))
    corpus = pd.read_csv(io.BytesIO(read_member(logomaker, LOGOMAKER_SHA256, CORPUS_FILE)), sep="\t", comment="#")
    natural = corpus["sequence"].str.replace("U", "T")
    natural = natural[natural.str.fullmatch(SITE)]
    table = pd.concat([*columns, pd.Series(1, index=pd.Index(natural, name="sequence"), name="is_natural")], axis=1)
    table["is_natural"] = table["is_natural"].fillna(0).astype(int)
    text = table.sort_index().to_csv(float_format="%.4f", lineterminator="\n")
    return gzip.compress(text.encode(), compresslevel=9, mtime=0)


def main() -> None:
    """Write the data file beside this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mavenn", type=Path, help="mavenn-1.1.4-py3-none-any.whl")
    parser.add_argument("logomaker", type=Path, help="logomaker-0.8.7-py3-none-any.whl")
    arguments = parser.parse_args()
    target = Path(__file__).parent / "data" / "splice.csv.gz"
    target.write_bytes(build(arguments.mavenn, arguments.logomaker))


if __name__ == "__main__":
    main()
