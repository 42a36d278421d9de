"""`plait score` beside a plain loop: `python -m plait.benchmarks.scoring_speed [--rows N] [--processes N]`.

Both read the same CSV file, score it with the same ensemble of 20 convolutions at L = 50 in as many processes of one
thread each, and write a Parquet file. The plain loop is pyarrow and multiprocessing, nothing checked, nothing kept. A
rate is rows / seconds of reading, scoring and writing; what processes take to start is told apart, and the ratio with
it included as well. `--model mlp` scores with one small network, so that a large pool measures memory: the highest
resident set of `plait score`, its workers not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import torch
from numpy.typing import NDArray
from torch import Generator, nn

from plait.design.alphabets import DNA
from plait.design.space import DesignSpace
from plait.rewards import ensemble
from plait.rewards.ensemble import Config, Ensemble, Family

LENGTH, BATCH = 50, 4096
MODELS: dict[str, tuple[Family, int]] = {"convolutions": ("wide_conv", 20), "mlp": ("mlp", 1)}


@dataclass(frozen=True)
class Taken:
    """Seconds that one way took, and the highest resident set of its main process in bytes."""

    starting: float
    working: float
    resident: int = 0


def make_model(name: str, folder: Path) -> Path:
    """A bundle with random weights: what scoring costs does not depend on them."""
    family, members = MODELS[name]
    space = DesignSpace.from_template(DNA, "N" * LENGTH)
    config = Config(families=(family,), members=members)
    networks = nn.ModuleDict({family: ensemble._build(family, config, space, Generator().manual_seed(0))})
    weights = torch.full((members,), 1.0 / members)
    Ensemble(config, space, "", networks.eval().requires_grad_(False), weights, 0.0, 1.0).save(folder / name)
    return folder / name


def make_pool(num: int, path: Path) -> Path:
    """A CSV file of `num` random sequences."""
    rng = np.random.default_rng(0)
    letters = np.frombuffer(DNA.letters.encode(), dtype=np.uint8)
    with path.open("wb") as file:
        file.write(b"sequence\n")
        for start in range(0, num, 1_000_000):
            rows = np.full((min(1_000_000, num - start), LENGTH + 1), ord("\n"), dtype=np.uint8)
            rows[:, :LENGTH] = letters[rng.integers(0, len(letters), (len(rows), LENGTH))]
            file.write(rows.tobytes())
    return path


def by_plait(home: Path, pool: Path, output: Path, processes: int) -> Taken:
    """`plait score` in a process of its own."""
    line = [sys.executable, "-c", _MEASURED, "--home", home, "--quiet", "--json", "score", "--input", pool]
    started = time.perf_counter()
    done = subprocess.run(  # noqa: S603
        [*map(str, line), "--output", str(output), "--workers", str(processes)],
        check=True,
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - started
    told = json.loads(done.stdout)["seconds"]
    working = told["reading"] + told["scoring"] + told["writing"]
    return Taken(seconds - working, working, 1024 * int(done.stderr.split()[-1]))


_MEASURED = (
    "import resource, sys; from plait.interfaces.cli.main import main; code = main(sys.argv[1:]); "
    "sys.stderr.write(f' {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}'); sys.exit(code)"
)

_model: Ensemble | None = None


def _load(bundle: Path) -> None:
    global _model
    torch.set_num_threads(1)
    _model = ensemble.load(bundle)


def _score(cells: bytes) -> NDArray[np.float32]:
    assert _model is not None  # noqa: S101
    token_of = np.zeros(256, dtype=np.int64)
    token_of[list(DNA.letters.encode())] = range(DNA.size)
    tokens = torch.from_numpy(token_of[np.frombuffer(cells, dtype=np.uint8)].reshape(-1, LENGTH))
    with torch.inference_mode():
        prediction = _model.predict(tokens)
        return torch.stack([prediction.mean, prediction.std, prediction.mean - 0.5 * prediction.std]).numpy()


def _wait(_: int) -> None:
    time.sleep(0.5)


def by_loop(bundle: Path, pool: Path, output: Path, processes: int) -> Taken:
    """Read, encode, predict, write."""
    started = time.perf_counter()
    with get_context("spawn").Pool(processes, _load, (bundle,)) as workers:
        workers.map(_wait, range(processes), chunksize=1)
        ready = time.perf_counter()
        table = pa.csv.read_csv(pool)
        cells = table.column("sequence").combine_chunks().buffers()[2].to_pybytes()
        size = BATCH * LENGTH
        batches = (cells[start : start + size] for start in range(0, len(cells), size))
        scores = np.concatenate(list(workers.imap(_score, batches)), axis=1)
        for name, column in zip(("mean", "std", "conservative"), scores, strict=True):
            table = table.append_column(name, pa.array(column))
        pa.parquet.write_table(table, output, compression="zstd", use_dictionary=False)
        ended = time.perf_counter()
    return Taken(ready - started, ended - ready)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print rates and ratios."""
    parser = argparse.ArgumentParser(prog="python -m plait.benchmarks.scoring_speed")
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--model", choices=MODELS, default="convolutions")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--no-loop", action="store_true", help="only plait score: the loop holds the pool in memory")
    given = parser.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(prefix="plait-scoring-speed-") as name:
        folder = Path(name)
        bundle, pool = make_model(given.model, folder), make_pool(given.rows, folder / "pool.csv")
        plait = [sys.executable, "-m", "plait.interfaces.cli", "--home", str(folder / "home"), "--quiet"]
        for line in (["init"], ["model", "import", str(bundle)]):
            subprocess.run([*plait, *line], check=True, stdout=subprocess.DEVNULL)  # noqa: S603
        print(f"{given.rows:,} sequences of {LENGTH} letters, {given.model}, {given.processes} processes of one thread")
        ratios = []
        for _ in range(given.repeats):
            loop = None if given.no_loop else by_loop(bundle, pool, folder / "loop.parquet", given.processes)
            ours = by_plait(folder / "home", pool, folder / "plait.parquet", given.processes)
            if loop is not None:
                _print("plain loop", given.rows, loop)
                ratios.append(loop.working / ours.working)
            _print("plait score", given.rows, ours)
            if loop is not None:
                whole = (loop.starting + loop.working) / (ours.starting + ours.working)
                print(f"ratio of rates {ratios[-1]:.3f}, starts included {whole:.3f}", flush=True)
        if len(ratios) > 1:
            print(f"median ratio {float(np.median(ratios)):.3f}")


def _print(way: str, rows: int, taken: Taken) -> None:
    memory = f", {taken.resident / 2**20:,.0f} MB at most in the driver" if taken.resident else ""
    rate = rows / taken.working
    print(f"{way:<12}{rate:>10,.0f}/s{taken.working:>9.1f} s + {taken.starting:.1f} s start{memory}", flush=True)


if __name__ == "__main__":
    main()
