"""`plait score`: a pool of sequences, parsed by one process, scored by many on Ray Data, joined in the input's order.

Unfinished work lies under the artifact root, by the hashes of model and input: the same call goes on with it. It takes
about the space of the input as plain text, and 12 bytes a row for the scores (4 more for each member).
"""

from __future__ import annotations

import fcntl
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from plait.design.errors import BadInputError, NotFoundError, UsageError, WrongStateError
from plait.design.records import Progress

if TYPE_CHECKING:
    from plait.bootstrap.home import Home
    from plait.campaign.pool_scoring import ScoringPlan
    from plait.execution.ray_data import Ended
    from plait.lab.pool_chunks import Pool, WorkFolder

BATCH_SIZE = 4096
READING, STARTING, SCORING, WRITING = "reading", "starting", "scoring", "writing"


@dataclass(frozen=True)
class PoolScores:
    """A pool that was scored.

    Attributes:
        model: NAME@VERSION.
        conservatism: Its kind, and how many standard deviations were subtracted.
        output: The file with the scores.
        num_rows: Rows in it.
        num_rejected: Rows that were left out, in the file `rejected`.
        num_resumed: Rows whose scores an earlier call left behind.
        seconds: Of reading, starting (until the first worker scores), scoring and writing.
        rate: Sequences scored by this call per second of scoring; 0 where none were.
        notes: What is worth knowing of the rows.
    """

    model: str
    conservatism: tuple[str, float]
    output: Path
    num_rows: int
    num_rejected: int
    rejected: Path | None
    num_resumed: int
    seconds: dict[str, float]
    rate: float
    notes: tuple[str, ...]


def score_pool(
    home: Home,
    source: str | Path,
    output: str | Path,
    *,
    model: str | None = None,
    conservatism: str | None = None,
    workers: int | None = None,
    batch_size: int = BATCH_SIZE,
    sequence_column: str = "sequence",
    members: bool = False,
    skip_bad_rows: bool = False,
) -> PoolScores:
    """Score every sequence of a file with a registered reward.

    Args:
        home: Holds the model.
        source: .csv, .tsv, .fasta or .fa (each also .gz), or .parquet.
        output: .parquet or .csv: the input's columns and mean, std (interval-calibrated) and conservative, in the
            assay's unit and direction.
        model: NAME, NAME@ALIAS or NAME@VERSION; the newest champion or newest reward by default.
        conservatism: KIND or KIND:SCALE; boot by default.
        workers: Processes; all CPUs of Ray by default, 0 scores in this process without Ray.
        batch_size: Sequences of one forward.
        sequence_column: Of a table.
        members: Add a column for each member's own prediction.
        skip_bad_rows: Leave bad rows out, and list them in OUTPUT.rejected.csv.

    Raises:
        NotFoundError: No such file or model.
        BadInputError: The input cannot be read or has bad rows, or the output cannot be written.
        WrongStateError: The model cannot score, or another process scores the same pool.
        UsageError: An argument out of bounds.
        RunFailedError: Scoring failed; what is finished stays.
    """
    from plait.campaign.fingerprints import digest
    from plait.campaign.pool_scoring import plan_scoring
    from plait.lab.pool_chunks import WorkFolder
    from plait.lab.pool_files import SEQUENCE, kind_of
    from plait.lab.pool_output import check_output

    source, output = Path(source).absolute(), Path(output).absolute()
    if batch_size < 1 or (workers is not None and workers < 0):
        raise UsageError("--batch-size is at least 1, --workers at least 0")
    check_output(output, source)
    if kind_of(source)[0] == "fasta":  # which has no other
        sequence_column = SEQUENCE
    plan = plan_scoring(home.ports, model, conservatism=conservatism, has_members=members, batch_size=batch_size)
    stamp, content = _stamp_of(source), _hash_of(source)
    key = "score-" + digest([plan.identity, content, source.name, sequence_column, skip_bad_rows])[:24]
    with _alone(home.ports.artifacts.scratch(key) / "lock"):
        folder = WorkFolder(home.ports.artifacts.shared(key))
        run = _Run(home, plan, folder, home.progress)
        try:
            pool = run.parse(source, stamp, sequence_column, skip_bad_rows)
        except (BadInputError, NotFoundError):
            home.ports.artifacts.drop_scratch(key)
            raise
        num_resumed = run.score(pool, workers)
        rejected = run.write(pool, output)
        home.ports.artifacts.drop_scratch(key)
    scored = pool.num_rows - num_resumed
    rate = scored / run.seconds[SCORING] if scored else 0.0
    how = (plan.kind, plan.scale)
    return PoolScores(
        plan.model, how, output, pool.num_rows, pool.num_rejected, rejected, num_resumed, run.seconds, rate, pool.notes
    )


class _Run:
    """The three steps over one work folder, each of which finds what is done already."""

    def __init__(self, home: Home, plan: ScoringPlan, folder: WorkFolder, progress: Progress) -> None:
        self._home, self._plan, self._folder, self._progress = home, plan, folder, progress
        self.seconds: dict[str, float] = {}

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[step] = time.perf_counter() - started

    def parse(self, source: Path, stamp: tuple[int, int], column: str, is_skipping: bool) -> Pool:
        """The parsed pool of a file that has not changed since its stamp was taken."""
        from plait.lab.pools import Request, parse_pool

        with self._timed(READING):
            self._progress(READING, 0, 0, "")
            if (pool := self._folder.pool()) is None:
                reserved = [*self._plan.columns, *(["sequence"] if column != "sequence" else [])]
                space = self._plan.space.model_dump(mode="json")
                request = Request(str(source), column, space, self._folder.root, tuple(reserved), is_skipping)
                pool = parse_pool(request, lambda rows: self._progress(READING, rows, 0, ""))
            self._progress(READING, pool.num_rows, pool.num_rows, "")
        if _stamp_of(source) != stamp:
            raise BadInputError(f"{source} changed while it was read", hint="run again")
        return pool

    def score(self, pool: Pool, workers: int | None) -> int:
        """Score what has no scores yet; how many rows had them."""
        finished = self._folder.finished()
        left = [number for number in range(len(pool.chunk_rows)) if number not in finished]
        resumed = done = sum(pool.chunk_rows[number] for number in finished)
        self.seconds |= {STARTING: 0.0, SCORING: 0.0}
        called = time.perf_counter()
        self._progress(SCORING, done, pool.num_rows, "")
        for ended in self._processed(left, workers):
            now = time.perf_counter()
            if done == resumed:
                self.seconds[STARTING] = now - ended.seconds - called
            done += pool.chunk_rows[ended.number]
            self.seconds[SCORING] = now - called - self.seconds[STARTING]
            rate = (done - resumed) / self.seconds[SCORING]
            message = f"{rate:,.0f} sequences/s, {(pool.num_rows - done) / rate:,.0f} s left"
            self._progress(SCORING, done, pool.num_rows, message)
        return resumed

    def _processed(self, chunks: list[int], workers: int | None) -> Iterator[Ended]:
        from plait.execution.ray_data import Ended, process_chunks

        load = partial(open_scorer, self._plan, self._folder)
        if workers != 0:
            say = partial(self._progress, SCORING, 0, 0)
            yield from process_chunks(self._home.settings, load, chunks, num_workers=workers, say=say)
        elif chunks:
            process = load()
            for number in chunks:
                started = time.perf_counter()
                process(number)
                yield Ended(number, time.perf_counter() - started)

    def write(self, pool: Pool, output: Path) -> Path | None:
        """Join the chunks; the file of rejected rows, if there are any."""
        from plait.lab.pool_output import copy_rejected, join_chunks

        rejected = None
        with self._timed(WRITING):
            join_chunks(self._folder, pool, output, lambda rows: self._progress(WRITING, rows, pool.num_rows, ""))
            if pool.num_rejected:
                rejected = output.with_name(f"{output.name}.rejected.csv")
                copy_rejected(self._folder, rejected)
        return rejected


def open_scorer(plan: ScoringPlan, folder: WorkFolder) -> Callable[[int], None]:
    """What a worker calls once: loads the model; what it returns scores one chunk and writes its scores."""
    import pyarrow as pa

    from plait.lab.pool_checks import SequenceCheck
    from plait.lab.pool_chunks import CHUNK, SCORES
    from plait.lab.pool_files import SEQUENCE

    score, letters = plan.load(), SequenceCheck(plan.space)

    def process(number: int) -> None:
        cells = folder.read(CHUNK, number, [SEQUENCE]).column(SEQUENCE).combine_chunks()
        scores = score(letters.tokens(cells))
        folder.write(SCORES, number, pa.table([pa.array(row) for row in scores], names=list(plan.columns)))

    return process


def _stamp_of(path: Path) -> tuple[int, int]:
    """What changes when a file is written to."""
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {path}") from error
    return status.st_size, status.st_mtime_ns


def _hash_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror}") from error


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock that ends with this process, however it ends.

    Raises:
        WrongStateError: Another process holds it.
    """
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WrongStateError(
                "another process scores the same pool with the same model", hint="wait for it to end"
            ) from None
        yield
