"""How close sampling and pre-training come to the time of their forwards: `python -m plait.benchmarks.sampling_speed`.

Sampling: time of the ancestral sampler / (rows it forwarded x time of one row in one plain forward of the same batch).
Pre-training: time of one update / time of a bare forward and backward of the same network on the same batch.
One CPU thread, so that the ratio does not measure the scheduler.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator

from plait.design.alphabets import DNA
from plait.design.space import DesignSpace
from plait.priors import masked_diffusion
from plait.priors.masked_diffusion import Config
from plait.samplers import ancestral

CASES = {
    "mlp 256x2, L=9, 9 steps": (9, 640, Config(num_steps=9)),
    "cnn 20 convolutions x 128, L=50, 128 steps": (
        50,
        32,
        Config(backbone="cnn", width=128, kernel=9, dilations=(1, 1, 4, 16, 64), depth=4, num_steps=128, batch_size=32),
    ),
}


@dataclass(frozen=True)
class Speed:
    """One row of the table.

    Attributes:
        sampling: Seconds for the batch.
        rows: Share of rows forwarded, of batch size x steps.
        sampling_ratio: Sampling time over the time of its forwards.
        update: Seconds per pre-training update.
        update_ratio: Update time over a bare forward and backward.
    """

    sampling: float
    rows: float
    sampling_ratio: float
    update: float
    update_ratio: float


def measure(length: int, batch: int, config: Config, repeats: int = 4) -> Speed:
    """The speed of a model over DNA of `length`, sampling `batch` designs at a time."""
    space = DesignSpace.from_template(DNA, "N" * length)
    prior = masked_diffusion.init(config, space, Generator().manual_seed(0))
    sampler = ancestral.prepare(ancestral.Config(), prior, None, None, Generator())
    before = prior.rows_forwarded
    sampling = _seconds(lambda: ancestral.sample(sampler, batch, Generator().manual_seed(1)), repeats)
    rows = (prior.rows_forwarded - before) / (repeats + 1)
    state = prior.one_hot(prior.init_state(batch))
    with torch.no_grad():
        forward = _seconds(lambda: prior.network(state), 10 * repeats) / batch
    corpus = torch.randint(4, (1000, length), generator=Generator().manual_seed(2))
    training = masked_diffusion.pretrain_init(config, prior, corpus, Generator().manual_seed(3))
    update = _seconds(lambda: masked_diffusion.pretrain_step(training), 5 * repeats)
    letters = prior.one_hot(prior.init_state(config.batch_size))

    def bare() -> None:
        prior.network(letters).sum().backward()

    ideal = _seconds(bare, 5 * repeats)
    return Speed(sampling, rows / (batch * prior.num_steps), sampling / (rows * forward), update, update / ideal)


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print(f"{'model':<44}{'sampling':>10}{'rows':>7}{'ratio':>7}{'update':>10}{'ratio':>7}")
    for name, (length, batch, config) in CASES.items():
        s = measure(length, batch, config)
        print(
            f"{name:<44}{s.sampling:>8.3f} s{s.rows:>7.0%}{s.sampling_ratio:>7.2f}"
            f"{1000 * s.update:>7.1f} ms{s.update_ratio:>7.2f}",
            flush=True,
        )


def _seconds(action: Callable[[], object], repeats: int) -> float:
    """Shortest time of an action after one warm-up: other work on the machine can only add to it."""
    action()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    main()
