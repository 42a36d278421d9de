import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from plait.design.alphabets import DNA
from plait.design.errors import ConfigError
from plait.design.space import DesignSpace
from plait.rewards.base import Prediction
from plait.rewards.conservatism import ConservativeReward, require_differentiable
from plait.rewards.multi_objective import DOMINATED, RHO, MultiObjective, Part
from plait.rewards.uncertainty import bootstrap_spread, elliptical
from torch.nn import functional

SPACE = DesignSpace.from_template(DNA, "NNN")
LETTER = DesignSpace.from_template(DNA, "N")


@dataclass(frozen=True)
class Additive:
    """Members (m, L, V) float64 that add up one weight per letter, then bend; mean and spread are known by hand."""

    weights: torch.Tensor
    space: DesignSpace = SPACE
    unit: str = "a.u."
    scale: float = 1.0
    is_differentiable: bool = True

    def predict(self, x):
        simplex = x if x.is_floating_point() else functional.one_hot(x, 4).double()
        total = torch.einsum("nlv,mlv->mn", simplex, self.weights)
        return Prediction(total + 0.1 * total.sin(), torch.full((len(total),), 1 / len(total), dtype=simplex.dtype))


@dataclass(frozen=True)
class Table:
    """Mean and std of the four designs A, C, G, T."""

    mean: tuple[float, ...]
    std: tuple[float, ...] = (1.0,) * 4
    space: DesignSpace = LETTER
    unit: str = "a.u."
    scale: float = 1.0
    is_differentiable: bool = False

    def predict(self, x):
        mean = torch.tensor(self.mean, dtype=torch.float64)[x[:, 0]]
        std = torch.tensor(self.std, dtype=torch.float64)[x[:, 0]]
        return Prediction(torch.stack([mean - std, mean + std]), torch.tensor([0.5, 0.5], dtype=torch.float64))


FOUR = torch.arange(4)[:, None]


def part(name="a", mean=(0.0, 1.0, 2.0, 3.0), weight=1.0, centre=0.0, unit=1.0, scale=0.0, std=(1.0,) * 4, **more):
    reward = Table(mean, std)
    uncertainty = bootstrap_spread.fit(None, reward, None) if scale else None
    return Part(name, ConservativeReward(reward, uncertainty, scale, unit), weight, centre, **more)


def additive_parts(scale=0.7):
    draws = torch.randn(2, 4, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rewards = [Additive(member) for member in draws]
    conservative = [ConservativeReward(r, bootstrap_spread.fit(None, r, None), scale, 2.0) for r in rewards]
    return (Part("a", conservative[0], 2.0, 0.5, 1.0, 1.7), Part("b", conservative[1], 1.0, -0.5))


def test_weighted_sum_by_hand():
    first = part("a", weight=3.0, centre=1.0, unit=2.0, scale=1.0, std=(0.5, 0.5, 1.0, 2.0))
    second = part("b", (4.0, 4.0, 0.0, 0.0), weight=1.0, centre=2.0, unit=0.5, scale=1.0)
    joined = MultiObjective((first, second), "weighted_sum")
    values = [[(m - s - 1) / 2, (o - 1 - 2) / 0.5] for m, s, o in ((0, 0.5, 4), (1, 0.5, 4), (2, 1, 0), (3, 2, 0))]
    torch.testing.assert_close(joined.values(FOUR), torch.tensor(values, dtype=torch.float64))
    found = joined(FOUR)
    assert found.conservative.tolist() == pytest.approx([0.75 * a + 0.25 * b for a, b in values])
    assert found.std.tolist() == pytest.approx([0.75 * s / 2 + 0.25 * 2 for s in (0.5, 0.5, 1.0, 2.0)])
    torch.testing.assert_close(found.conservative, found.mean - joined.scale * found.std)
    assert (joined.assay_std, joined.scale, joined.has_uncertainty) == (1.0, 1.0, True)


def test_chebyshev_by_hand():
    joined = MultiObjective((part("a", weight=1.0), part("b", (5.0, 3.0, 2.0, 0.0), weight=3.0)), "chebyshev")
    assert joined.ideal.tolist() == [3.0, 3.0]
    measured = np.array([[4.0, np.nan], [1.0, 2.5]])
    joined = replace(joined, measured=measured)
    assert joined.ideal.tolist() == [5.0, 3.5]
    points = [(0.0, 5.0), (1.0, 3.0), (2.0, 2.0), (3.0, 0.0)]
    expected = [min(0.5 * (a - 5), 1.5 * (b - 3.5)) + RHO * (0.25 * a + 0.75 * b) for a, b in points]
    assert joined(FOUR).conservative.tolist() == pytest.approx(expected)


def test_hypervolume_by_hand():
    """Front (1, 3), (3, 1) above the reference (0.8, 0.8); the design (2, 2) adds the unit square, (0, 5) nothing."""
    parts = (part("a", (0.0, 1.0, 2.0, 4.0)), part("b", (5.0, 3.0, 2.0, 4.0)))
    measured = np.array([[1.0, 3.0], [3.0, 1.0], [0.0, 0.0], [np.nan, 9.0]])
    joined = MultiObjective(parts, "hypervolume", measured=measured)
    assert joined.front.tolist() == [[1.0, 3.0], [3.0, 1.0]]
    ordering = MultiObjective(parts, "chebyshev", measured=measured)(FOUR).conservative
    gains = (joined(FOUR).conservative - DOMINATED * ordering) ** 2
    held = 2 * 2.2 * 0.2 - 0.04
    assert gains.tolist() == pytest.approx([0.0, 0.0, 1.0, 3.2**2 - held], abs=1e-9)
    alone = MultiObjective(parts, "hypervolume")(FOUR).conservative  # nothing measured: the box above the mean reading
    ordering = MultiObjective(parts, "chebyshev")(FOUR).conservative
    assert (alone - DOMINATED * ordering).tolist() == pytest.approx([0.0, 3**0.5, 2.0, 4.0])


def test_dominated_designs_are_still_ordered():
    parts = (part("a", (0.0, 1.0, 2.0, 1.5)), part("b", (0.0, 1.0, 2.0, 1.5)))
    value = MultiObjective(parts, "hypervolume", measured=np.array([[9.0, 9.0]]))(FOUR).conservative
    assert value.argsort().tolist() == [0, 1, 3, 2]


@pytest.mark.parametrize("scalarisation", ["weighted_sum", "chebyshev", "hypervolume"])
def test_std_is_the_fall_when_every_part_falls_by_one(scalarisation):
    stds = (0.3, 0.1, 0.5, 1.0)
    joined = MultiObjective((part("a", std=stds, scale=1.0), part("b", std=stds, scale=1.0)), scalarisation)
    found = joined(FOUR)
    assert bool((found.std > 0).all())
    torch.testing.assert_close(found.mean - found.std, found.conservative)
    single = MultiObjective((part("a", std=stds, scale=1.0),), "weighted_sum")(FOUR)
    assert single.std.tolist() == pytest.approx(stds)


@pytest.mark.parametrize("scalarisation", ["weighted_sum", "chebyshev"])
def test_gradients_are_finite_differences(scalarisation):
    joined = MultiObjective(additive_parts(), scalarisation, 0.8)
    logits = torch.randn(5, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: joined(x.softmax(-1)).conservative, (logits,))
    assert torch.autograd.gradcheck(lambda x: joined.feasibility(x.softmax(-1)), (logits,))


def test_tokens_and_their_simplex_have_one_value():
    joined = MultiObjective(additive_parts(), "chebyshev")
    tokens = torch.randint(4, (9, 3), generator=torch.Generator().manual_seed(2))
    simplex = functional.one_hot(tokens, 4).double()
    torch.testing.assert_close(joined(tokens).conservative, joined(simplex).conservative)


def test_a_gradient_method_refuses_hypervolume_and_black_boxes():
    require_differentiable(MultiObjective(additive_parts(), "chebyshev"), "braid")
    for joined in (MultiObjective(additive_parts(), "hypervolume"), MultiObjective((part("a"),), "weighted_sum")):
        with pytest.raises(ConfigError, match="braid follows the gradient"):
            require_differentiable(joined, "braid")


def test_thresholds_by_hand():
    limited = part("b", (2.0, 3.0, 4.0, -50.0), weight=0.0, std=(0.5,) * 4, threshold=2.0, interval_scale=2.0)
    joined = MultiObjective((part("a"), limited), "weighted_sum", 0.25)
    cumulative = [0.5, 0.8413447460685429, 0.9772498680518208]
    assert joined.feasibility(FOUR)[:3].tolist() == pytest.approx(cumulative)
    found = joined(FOUR)
    assert found.conservative[:3].tolist() == pytest.approx([i + 0.25 * math.log(p) for i, p in enumerate(cumulative)])
    assert found.mean.tolist() == [0.0, 1.0, 2.0, 3.0]
    far = -(52.0**2) / 2 - math.log(52.0 * math.sqrt(2 * math.pi))  # the tail's expansion: P = 1e-590 underflows
    assert float(found.conservative[3]) == pytest.approx(3 + 0.25 * far, rel=1e-5)
    assert joined.values(FOUR).shape == (4, 1)
    both = MultiObjective((part("a", threshold=1.0), limited), "weighted_sum")
    assert both.feasibility(FOUR)[1].item() == pytest.approx(0.5 * cumulative[1])


def test_a_threshold_is_judged_by_the_models_spread_not_by_the_penalty(dataset, model):
    tokens = torch.as_tensor(dataset.tokens[:8])
    bonus = elliptical.fit(dataset, model, None)
    unit = float(dataset.values.std())
    goal = Part("a", ConservativeReward(model, bonus, 1.0, unit), 1.0, float(dataset.values.mean()), 11.5, 1.3)
    joined = MultiObjective((goal,), "weighted_sum", 1.0)
    said = model.predict(tokens)
    expected = torch.special.ndtr((said.mean - 11.5) / (1.3 * said.std))
    torch.testing.assert_close(joined.feasibility(tokens), expected)
    plain = goal.objective(tokens)
    value = (plain.conservative - goal.centre) / unit + torch.special.log_ndtr((said.mean - 11.5) / (1.3 * said.std))
    torch.testing.assert_close(joined(tokens).conservative, value)
    torch.testing.assert_close(joined(tokens).std, plain.std / unit, rtol=1e-4, atol=1e-6)


def test_a_hopeless_design_still_has_a_gradient():
    """In float32, up to 10,000 standard deviations below the threshold, where P itself is 0."""
    goal = part("a", threshold=0.0)
    mean = torch.tensor([-1e4, -1e3, -40.0, 0.0, 40.0], requires_grad=True)
    log_p = goal.log_feasibility(Prediction(torch.stack([mean - 1, mean + 1]), torch.tensor([0.5, 0.5])))
    assert log_p.dtype == torch.float32
    torch.autograd.backward(log_p.sum())
    assert mean.grad.tolist() == pytest.approx([1e4, 1e3, 40.02, 0.7979, 0.0], rel=1e-3)


def test_chebyshev_finds_what_no_weighted_sum_can():
    """The front (0, 1), (1, 0), (0.4, 0.4) is not convex: its middle lies below the line through its ends."""
    first, second = (0.0, 1.0, 0.4, 0.3), (1.0, 0.0, 0.4, 0.3)
    winners = {"weighted_sum": set(), "chebyshev": set()}
    for scalarisation, found in winners.items():
        for share in np.linspace(0.02, 0.98, 49).tolist():
            parts = (part("a", first, weight=share), part("b", second, weight=1 - share))
            found.add(int(MultiObjective(parts, scalarisation)(FOUR).conservative.argmax()))
    assert winners == {"weighted_sum": {0, 1}, "chebyshev": {0, 1, 2}}


@pytest.mark.parametrize("scalarisation", ["weighted_sum", "chebyshev", "hypervolume"])
def test_no_scalarisation_prefers_a_dominated_design(scalarisation):
    rng = np.random.default_rng(0)
    for _ in range(50):
        low = rng.normal(size=(2, 4)) * 2
        low[:, 3] = low[:, 2] + np.abs(rng.normal(size=2)) + 1e-3
        parts = tuple(part(name, tuple(row.tolist())) for name, row in zip("ab", low, strict=True))
        value = MultiObjective(parts, scalarisation, measured=rng.normal(size=(5, 2)))(FOUR).conservative
        assert float(value[3]) > float(value[2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": -1.0}, "weight of assay 'a' is -1.0"),
        ({"weight": math.nan}, "weight"),
        ({"interval_scale": -0.1}, "interval_scale"),
        ({"threshold": math.inf}, "threshold"),
        ({"centre": math.nan}, "centre"),
        ({"unit": 0.0}, "standard deviation is 0.0"),
    ],
)
def test_a_part_refuses_numbers_out_of_bounds(change, message):
    with pytest.raises(ConfigError, match=message):
        part(**change)


def test_assays_that_cannot_be_joined_are_refused():
    with pytest.raises(ConfigError, match="no assay has a positive weight"):
        MultiObjective((part("a", weight=0.0, threshold=1.0),), "weighted_sum")
    with pytest.raises(ConfigError, match="no assay"):
        MultiObjective((), "weighted_sum")
    with pytest.raises(ConfigError, match="different names"):
        MultiObjective((part("a"), part("a")))
    with pytest.raises(ConfigError, match="one design space"):
        MultiObjective((part("a"), additive_parts()[1]))
    with pytest.raises(ConfigError, match="caution and optimism"):
        MultiObjective((part("a", scale=1.0), part("b", scale=-1.0)))
    with pytest.raises(ConfigError, match="feasibility_weight"):
        MultiObjective((part("a"),), feasibility_weight=-1.0)
    with pytest.raises(ConfigError, match="measured has shape"):
        MultiObjective((part("a"), part("b")), measured=np.zeros((3, 3)))


def test_parts_of_different_caution_say_their_mean():
    joined = MultiObjective((part("a", scale=1.0, weight=3.0), part("b", scale=0.0, weight=1.0)))
    assert joined.scale == pytest.approx(0.75)
    assert not joined.has_uncertainty
