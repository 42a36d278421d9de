"""Ensemble prediction against a Python loop over members, grouped convolutions and vmap."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from plait.design.alphabets import DNA
from plait.design.space import DesignSpace
from plait.rewards import ensemble
from plait.rewards._networks import MemberNetwork, WideConvolution
from plait.rewards.ensemble import Config, Ensemble, Family

BATCHES = (8, 32, 128, 512, 2048, 4096)
LENGTH = 50
MEMBERS = 5
WAYS = ("loop", "grouped", "vmap")


def untrained(families: tuple[Family, ...], length: int, device: str) -> Ensemble:
    """An ensemble of 5 members per family over DNA with random weights: what it costs does not depend on them."""
    space = DesignSpace.from_template(DNA, "N" * length)
    config = Config(families=families, members=MEMBERS)
    networks = nn.ModuleDict({f: ensemble._build(f, config, space, Generator().manual_seed(0)) for f in families})
    weights = torch.full((len(families) * MEMBERS,), 1.0 / (len(families) * MEMBERS))
    return Ensemble(config, space, "", networks.to(device).eval().requires_grad_(False), weights, 0.0, 1.0)


def table(device: str, repeats: int = 7) -> None:
    """Milliseconds of each way and batch, the shortest of the repeats taken in turn."""
    print(f"ensemble prediction, {MEMBERS} members, L = {LENGTH}, {device}, milliseconds")
    print(f"{'family':<18}{'batch':>6}{'ours':>9}" + "".join(f"{way:>9}" for way in WAYS) + f"{'ours / best':>13}")
    families: tuple[Family, ...] = ("wide_conv", "positional_conv", "mlp")
    for family in families:
        model = untrained((family,), LENGTH, device)
        for batch in BATCHES:
            tokens = torch.randint(4, (batch, LENGTH), generator=Generator().manual_seed(1)).to(device)
            taken = _times(model, family, tokens, repeats)
            ours = taken.pop("ours")
            cells = "".join(f"{1000 * taken[way]:>9.2f}" if way in taken else f"{'-':>9}" for way in WAYS)
            print(f"{family:<18}{batch:>6}{1000 * ours:>9.2f}{cells}{ours / min(taken.values()):>13.2f}", flush=True)


def _times(model: Ensemble, family: Family, tokens: Tensor, repeats: int) -> dict[str, float]:
    network = model._families()[0]
    ways: dict[str, Callable[[Tensor], Tensor]] = {"loop": _loop(network), "vmap": _vmap(network)}
    if isinstance(network, WideConvolution):
        ways["grouped"] = _grouped(network)
    expected = model.predict(tokens).members
    for way in ways.values():
        torch.testing.assert_close(way(_letters(tokens)), expected, rtol=1e-3, atol=1e-4)
    actions = {name: partial(_of_letters, way, tokens) for name, way in ways.items()}
    actions["ours"] = partial(_of_tokens, model, tokens)
    best = dict.fromkeys(actions, float("inf"))
    with torch.no_grad():
        for _ in range(repeats):
            for name, action in actions.items():
                best[name] = min(best[name], _seconds(action, tokens.device.type))
    return best


def _of_tokens(model: Ensemble, tokens: Tensor) -> Tensor:
    return model.predict(tokens).members


def _of_letters(way: Callable[[Tensor], Tensor], tokens: Tensor) -> Tensor:
    return way(_letters(tokens))


def _letters(tokens: Tensor) -> Tensor:
    return functional.one_hot(tokens, DNA.size).float()


def _seconds(action: Callable[[], Tensor], device: str) -> float:
    """Mean time of as many calls as a tenth of a second holds, at most 20."""
    if device != "cpu":
        torch.cuda.synchronize()
    clock = time.process_time if device == "cpu" else time.perf_counter
    calls, start = 0, clock()
    while calls < 20 and clock() - start < 0.1:
        action()
        calls += 1
    if device != "cpu":
        torch.cuda.synchronize()
    return (clock() - start) / calls


def _member_weights(network: MemberNetwork) -> list[dict[str, Tensor]]:
    """Each member's weights as layers of its own would hold them."""
    members = []
    for i in range(network.members):
        weights = {"out.weight": network.read_out[i].T, "out.bias": network.offset[i, 0]}
        for k, (weight, bias) in enumerate(zip(network.head.weights, network.head.biases, strict=True)):  # type: ignore[union-attr, arg-type]
            weights[f"{k}.weight"], weights[f"{k}.bias"] = weight[i].T.contiguous(), bias[i, 0]
        if isinstance(network, WideConvolution):
            kernel = network.kernel.view(network.width, -1, network.members, network.filters)[:, :, i]
            weights["conv.weight"] = kernel.permute(2, 1, 0).contiguous()
            weights["conv.bias"] = network.kernel_bias.view(network.members, -1)[i]
        members.append(weights)
    return members


def _member(weights: dict[str, Tensor], x: Tensor, is_positional: bool) -> Tensor:
    """One member as a plain network: predictions (n,) of letters (n, L, V)."""
    hidden = x.flatten(1)
    if "conv.weight" in weights:
        mapped = functional.relu(
            functional.conv1d(x.transpose(1, 2), weights["conv.weight"], weights["conv.bias"], padding="same")
        )
        pooled = torch.cat([mapped.amax(2), mapped.mean(2)], 1)
        hidden = torch.cat([pooled, hidden], 1) if is_positional else pooled
    for k in range(2):
        hidden = functional.relu(functional.linear(hidden, weights[f"{k}.weight"], weights[f"{k}.bias"]))
    return functional.linear(hidden, weights["out.weight"], weights["out.bias"])[:, 0]


def _is_positional(network: MemberNetwork) -> bool:
    return type(network).__name__ == "PositionalConvolution"


def _loop(network: MemberNetwork) -> Callable[[Tensor], Tensor]:
    members, is_positional = _member_weights(network), _is_positional(network)
    return lambda x: torch.stack([_member(weights, x, is_positional) for weights in members])


def _vmap(network: MemberNetwork) -> Callable[[Tensor], Tensor]:
    members, is_positional = _member_weights(network), _is_positional(network)
    stacked = {name: torch.stack([weights[name] for weights in members]) for name in members[0]}
    batched = torch.func.vmap(_member, in_dims=(0, None, None))
    return lambda x: batched(stacked, x, is_positional)


def _grouped(network: WideConvolution) -> Callable[[Tensor], Tensor]:
    """All members as groups of one convolution; later layers are batched products."""
    members, is_positional = _member_weights(network), _is_positional(network)
    stacked = {name: torch.stack([weights[name] for weights in members]) for name in members[0]}
    kernel, bias, m = stacked["conv.weight"].flatten(0, 1), stacked["conv.bias"].flatten(), network.members

    def run(x: Tensor) -> Tensor:
        wide = x.transpose(1, 2).repeat(1, m, 1)
        mapped = functional.relu(functional.conv1d(wide, kernel, bias, padding="same", groups=m)).view(
            len(x), m, -1, x.shape[1]
        )
        hidden = torch.cat([mapped.amax(3), mapped.mean(3)], 2).transpose(0, 1)
        if is_positional:
            hidden = torch.cat([hidden, x.flatten(1).expand(m, -1, -1)], 2)
        for k in range(2):
            hidden = functional.relu(
                torch.baddbmm(stacked[f"{k}.bias"][:, None], hidden, stacked[f"{k}.weight"].transpose(1, 2))
            )
        return torch.baddbmm(stacked["out.bias"][:, None], hidden, stacked["out.weight"].transpose(1, 2))[..., 0]

    return run
