"""Plait's methods against plain forms of the published loops: `python -m plait.benchmarks.method_speed [--part NAME]`.

The network is the published one: 20 convolutions, 128 wide, 128 steps, random weights. Each ratio is taken in one run,
same weights, same batch, the variants in turn, the shortest of the repeats. On a CPU the seconds are those that one
thread was at work, so that other work on the machine counts little:

    ratio         plain loop, network as published (padded Conv1d layers) / ours
    ratio (loop)  the same plain loop over Plait's own forward of that network / ours: what the method alone gains

Fine-tuning runs each update in a process of its own and reads its peak memory, less what was held before the update.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor

from plait.benchmarks import _ensemble_speed, _published_loops
from plait.benchmarks._published_loops import Network, conv1d_network
from plait.design.alphabets import DNA
from plait.design.space import DesignSpace
from plait.finetune import drakes
from plait.priors import masked_diffusion
from plait.priors._masking import MaskedDiffusion
from plait.rewards.conservatism import ConservativeReward
from plait.samplers import ancestral, svdd_pm

NUM_STEPS = 128
NUM_SOFT = 50
KL_WEIGHT = 0.01
TEMPERATURE = 0.1
OURS: dict[str, dict[str, object]] = {
    "float32": {"activation_checkpointing": False},
    "float32, recomputed": {"activation_checkpointing": True},
    "bfloat16": {"activation_checkpointing": False, "precision": "bfloat16"},
    "bfloat16, recomputed": {"activation_checkpointing": True, "precision": "bfloat16"},
}
PLAIN = "plain"
PLAIN_LOOP = "plain loop, our forward"


@dataclass(frozen=True)
class Setting:
    """What all variants share.

    Attributes:
        length: Positions of the designs, DNA.
        batch: Designs at a time.
        device: Where everything lies.
        seed: Of all random numbers.
    """

    length: int
    batch: int
    device: str = "cpu"
    seed: int = 0

    def generator(self) -> Generator:
        """A new one, on the device."""
        return Generator(self.device).manual_seed(self.seed)

    def prior(self) -> MaskedDiffusion:
        """The published backbone with random weights, far from the uniform law."""
        config = masked_diffusion.Config(
            backbone="cnn", width=128, kernel=9, dilations=(1, 1, 4, 16, 64), depth=4, num_steps=NUM_STEPS
        )
        space = DesignSpace.from_template(DNA, "N" * self.length)
        prior = masked_diffusion.init(config, space, Generator().manual_seed(self.seed))
        leave = prior.network.get_parameter("backbone.leave.weight")
        torch.nn.init.normal_(leave, 0, 0.1, generator=Generator().manual_seed(self.seed))
        prior.network.to(self.device).requires_grad_(False)
        return prior

    def objective(self) -> ConservativeReward:
        """The mean of five convolutional members."""
        reward = _ensemble_speed.untrained(("wide_conv",), self.length, self.device)
        return ConservativeReward(reward, None, 0.0, 1.0)


def finetune(batch: int, repeats: int, device: str) -> None:
    """One DRAKES update, L = 200, the last 50 steps soft, the KL of all steps in the loss."""
    names = [PLAIN, PLAIN_LOOP, *OURS]
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for _ in range(repeats):
        for name in names:
            results[name].append(tuple(json.loads(_in_a_process(name, batch, device).stdout)))
    print(f"fine-tune step, L = 200, batch {batch}, {device}, shortest of {repeats}")
    print(f"{'':<28}{'seconds':>10}{'ratio':>8}{'(loop)':>8}{'MiB':>10}{'less by':>9}")
    seconds = {name: min(s for s, _ in found) for name, found in results.items()}
    memory = {name: min(m for _, m in found) for name, found in results.items()}
    for name in names:
        print(
            f"{name:<28}{seconds[name]:>10.2f}{seconds[PLAIN] / seconds[name]:>8.2f}"
            f"{seconds[PLAIN_LOOP] / seconds[name]:>8.2f}{memory[name]:>10.0f}{memory[PLAIN] / memory[name]:>9.1f}",
            flush=True,
        )


def update(name: str, batch: int, device: str) -> tuple[float, float]:
    """Seconds of one update, and its peak memory in MiB beyond what was held before it."""
    setting = Setting(200, batch, device)
    act = _plain_update(setting, name) if name in (PLAIN, PLAIN_LOOP) else _our_update(setting, OURS[name])
    _warm_up(setting, act)
    before = _peak(device)
    start = _now(device)
    act()
    return _now(device) - start, _peak(device) - before


def _plain_update(setting: Setting, name: str) -> Callable[[], object]:
    prior, objective = setting.prior(), setting.objective()
    policy = prior.clone(is_trainable=True)
    networks: list[Network] = [
        conv1d_network(model.network) if name == PLAIN else model.network for model in (policy, prior)
    ]
    optimiser = torch.optim.Adam(policy.network.parameters(), lr=1e-4)
    start = prior.one_hot(prior.init_state(setting.batch))

    def act() -> None:
        loss = _published_loops.drakes_loss(
            networks[0],
            networks[1],
            lambda designs: objective(designs).conservative,
            start,
            NUM_STEPS,
            NUM_SOFT,
            KL_WEIGHT,
            setting.generator(),
        )
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(policy.network.parameters(), 1.0)
        optimiser.step()

    return act


def _our_update(setting: Setting, settings: dict[str, object]) -> Callable[[], object]:
    config = drakes.Config.model_validate(
        {"batch_size": setting.batch, "num_soft_steps": NUM_SOFT, "kl_weight": KL_WEIGHT, "learning_rate": 1e-4}
        | settings
    )
    state = drakes.init(config, setting.prior(), setting.objective(), None, setting.generator())
    return lambda: drakes.step(state)


def _warm_up(setting: Setting, act: Callable[[], object]) -> None:
    """Let the libraries take what they need once: a small network on a CPU, where memory is never given back."""
    if setting.device == "cpu":
        prior = Setting(20, 2).prior()
        prior.network.requires_grad_(True)
        torch.autograd.backward(prior.network(prior.one_hot(prior.init_state(2))).exp().square().sum())
    else:
        act()
        torch.cuda.reset_peak_memory_stats()


def _peak(device: str) -> float:
    if device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return torch.cuda.max_memory_allocated() / 2**20


def largest_batch(device: str) -> None:
    """The largest batch, a power of two, of which one update fits into the device's memory."""
    print(f"{'largest batch of one update, L = 200':<40}")
    for name in (PLAIN, *OURS):
        batch = 1
        while batch < 2**14 and _fits(name, 2 * batch, device):
            batch *= 2
        print(f"{name:<28}{batch:>10}", flush=True)


def _fits(name: str, batch: int, device: str) -> bool:
    return _in_a_process(name, batch, device, is_checked=False).returncode == 0


def _in_a_process(name: str, batch: int, device: str, is_checked: bool = True) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", __spec__.name, "--update", name, "--batch", str(batch), "--device", device]
    return subprocess.run(command, check=is_checked, capture_output=True, text=True)  # noqa: S603


def sampling(batch: int, repeats: int, device: str) -> None:
    """Ancestral sampling, L = 50."""
    setting = Setting(50, batch, device)
    prior = setting.prior()
    state = ancestral.prepare(ancestral.Config(), prior, None, None, setting.generator())
    start = prior.one_hot(prior.init_state(batch))

    def plain(network: Network) -> Tensor:
        return _published_loops.ancestral(network, start, NUM_STEPS, setting.generator())

    print(f"sampling, L = 50, batch {batch}, {device}, shortest of {repeats}")
    _compare(setting, prior, plain, lambda: ancestral.sample(state, batch, setting.generator()).num_forwards, repeats)


def svdd(batch: int, repeats: int, device: str) -> None:
    """SVDD-PM with 10 proposals, L = 50; the reward is an ensemble of five convolutional networks."""
    setting = Setting(50, batch, device)
    prior, objective = setting.prior(), setting.objective()
    config = svdd_pm.Config(num_proposals=10, temperature=TEMPERATURE)
    state = svdd_pm.prepare(config, prior, objective, None, setting.generator())
    start = prior.one_hot(prior.init_state(batch))

    def values(designs: Tensor) -> Tensor:
        return objective(designs).conservative

    def plain(network: Network) -> Tensor:
        return _published_loops.svdd_pm(network, values, start, NUM_STEPS, 10, TEMPERATURE, setting.generator())

    print(f"SVDD-PM, 10 proposals, L = 50, batch {batch}, {device}, shortest of {repeats}")
    _compare(setting, prior, plain, lambda: svdd_pm.sample(state, batch, setting.generator()).num_forwards, repeats)


def _compare(
    setting: Setting,
    prior: MaskedDiffusion,
    plain: Callable[[Network], object],
    ours: Callable[[], int],
    repeats: int,
) -> None:
    """Both plain loops and ours in turn; ours once more with a clock around the network."""
    actions: dict[str, Callable[[], object]] = {
        PLAIN: partial(plain, conv1d_network(prior.network)),
        PLAIN_LOOP: partial(plain, prior.network),
        "ours": ours,
    }
    seconds = _seconds(actions, repeats, setting.device)
    shares, forward = [], prior.network.forward
    for _ in range(repeats):
        clock = _Clock(forward, setting.device)
        prior.network.forward = clock  # type: ignore[method-assign, assignment]
        start = _now(setting.device)
        rows = ours()
        shares.append(1 - clock.seconds / (_now(setting.device) - start))
    prior.network.forward = forward  # type: ignore[method-assign]
    print(f"{'':<28}{'seconds':>10}{'ratio':>8}{'(loop)':>8}{'rows forwarded':>17}{'outside the network':>21}")
    for name, taken in seconds.items():
        end = f"{rows:>17}{min(shares):>21.1%}" if name == "ours" else ""
        print(
            f"{name:<28}{taken:>10.2f}{seconds[PLAIN] / taken:>8.2f}{seconds[PLAIN_LOOP] / taken:>8.2f}{end}",
            flush=True,
        )


class _Clock:
    """A function that adds up its own time."""

    def __init__(self, function: Callable[[Tensor], Tensor], device: str) -> None:
        self.function, self.device, self.seconds = function, device, 0.0

    def __call__(self, x: Tensor) -> Tensor:
        start = _now(self.device)
        result = self.function(x)
        self.seconds += _now(self.device) - start
        return result


def _seconds(actions: dict[str, Callable[[], object]], repeats: int, device: str) -> dict[str, float]:
    """Shortest time of each action, taken in turn: other work on the machine can only add to it."""
    best = dict.fromkeys(actions, float("inf"))
    for _ in range(repeats):
        for name, action in actions.items():
            start = _now(device)
            action()
            best[name] = min(best[name], _now(device) - start)
    return best


def _now(device: str) -> float:
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["finetune", "sampling", "svdd", "ensemble"], help="default: all")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--batch", type=int, help="default: 4 (finetune), 32 and 128 (sampling), 8 (svdd)")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--update", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.update:
        print(json.dumps(update(given.update, given.batch, given.device)))
        return
    if given.part in (None, "finetune"):
        finetune(given.batch or 4, given.repeats, given.device)
        if given.device != "cpu":
            largest_batch(given.device)
    if given.part in (None, "sampling"):
        for batch in [given.batch] if given.batch else [32, 128]:
            sampling(batch, given.repeats, given.device)
    if given.part in (None, "svdd"):
        svdd(given.batch or 8, given.repeats, given.device)
    if given.part in (None, "ensemble"):
        _ensemble_speed.table(given.device)


if __name__ == "__main__":
    main()
