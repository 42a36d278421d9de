"""Pre-training, its early stopping, its checkpoints, and models on disk."""

import math

import pytest
import torch
from plait.design.alphabets import DNA, RNA
from plait.design.bundles import load_bundle, save_bundle
from plait.design.errors import BadInputError, ConfigError, CorruptArtifactError
from plait.design.space import DesignSpace
from plait.priors.masked_diffusion import Config, init, load, pretrain_init, pretrain_step
from pydantic import ValidationError
from torch import Generator

SPACE = DesignSpace.from_template(DNA, "NNNGYNN")
SMALL = Config(width=32, batch_size=64, num_pretrain_steps=600, validation_interval=25, patience=12)


def generator(seed=0):
    return Generator().manual_seed(seed)


def corpus(n, seed=0, is_patterned=True):
    """Sequences whose last two letters repeat the first two, or plain noise."""
    tokens = torch.randint(4, (n, 7), generator=generator(seed))
    tokens[:, 3] = 2
    tokens[:, 4] = 1 + 2 * (tokens[:, 4] > 1).long()
    if is_patterned:
        tokens[:, 5:] = tokens[:, :2]
    return tokens


def train(config, tokens, seed=0):
    state = pretrain_init(config, init(config, SPACE, generator(1)), tokens, generator(seed))
    infos = []
    while not state.is_finished:
        infos.append(pretrain_step(state))
    return state, infos


@pytest.mark.parametrize("backbone", ["mlp", "cnn"])
def test_untrained_is_uniform_over_allowed_letters(backbone):
    prior = init(Config(backbone=backbone, width=16), SPACE, generator())
    clean = prior.predict_clean(prior.init_state(2), 0)
    assert torch.allclose(clean, prior.network.allowed.float() / prior.network.allowed.sum(-1, keepdim=True))
    assert float(prior.elbo(corpus(1), generator(), 0)[0]) == pytest.approx(-5 * math.log(4) - math.log(2), rel=1e-5)


def test_pretraining_learns_the_pattern_and_keeps_it():
    state, infos = train(SMALL, corpus(400))
    assert infos[-1].loss < infos[0].loss - 0.2
    assert state.best_elbo > state.uniform_elbo + 0.2
    looks = [info.held_out_elbo for info in infos if not math.isnan(info.held_out_elbo)]
    assert state.best_elbo == max(looks)
    prior = state.best_prior()
    held = corpus(200, seed=9)
    gain = (
        prior.elbo(held, generator(), 0)[0].mean()
        - init(SMALL, SPACE, generator()).elbo(held, generator(), 0)[0].mean()
    )
    assert float(gain) > 1.5
    assert not any(p.requires_grad for p in prior.network.parameters())


def test_averaged_weights_of_a_short_run_are_not_the_initial_ones():
    state = pretrain_init(SMALL, init(SMALL, SPACE, generator(1)), corpus(200), generator())
    first = [p.clone() for p in state.average.network.parameters()]
    for _ in range(20):
        pretrain_step(state)
    moved, behind = (
        sum(
            float((a - b).detach().square().sum())
            for a, b in zip(state.average.network.parameters(), others, strict=True)
        )
        for others in (first, state.prior.network.parameters())
    )
    assert behind < moved


def test_the_cnn_learns_too():
    state, _ = train(
        SMALL.model_copy(update={"backbone": "cnn", "learning_rate": 3e-3, "num_pretrain_steps": 300}), corpus(400)
    )
    assert state.best_elbo > state.uniform_elbo + 0.1


def test_noise_falls_back_to_uniform():
    state, _ = train(SMALL.model_copy(update={"patience": 4}), corpus(300, is_patterned=False))
    assert state.step == 4 * SMALL.validation_interval
    assert state.best_elbo == state.uniform_elbo
    tokens = corpus(5)
    bound, _ = state.best_prior().elbo(tokens, generator(), 0)
    assert torch.allclose(bound, torch.full((5,), -5 * math.log(4) - math.log(2)))


def test_held_out_sequences_are_not_trained_on_and_do_not_depend_on_the_worker():
    tokens = torch.cat([corpus(100), corpus(100)])
    one, two = (pretrain_init(SMALL, init(SMALL, SPACE, generator(1)), tokens, generator(seed)) for seed in (1, 2))
    assert torch.equal(one.held_out, two.held_out)
    assert torch.equal(one.held_out_masks, two.held_out_masks)
    assert not (one.corpus[:, None] == one.held_out[None]).all(-1).any()


def test_two_workers_equal_one_with_both_batches():
    tokens = corpus(200)
    states = [pretrain_init(SMALL, init(SMALL, SPACE, generator(1)), tokens, generator(seed)) for seed in (1, 2)]
    gradients = []

    def record(parameters):
        gradients.append([p.grad.clone() for p in parameters])

    for state in states:
        pretrain_step(state, record)
    means = [torch.stack(pair).mean(0) for pair in zip(*gradients, strict=True)]

    def average(parameters):
        for parameter, mean in zip(parameters, means, strict=True):
            parameter.grad.copy_(mean)

    joined = [pretrain_init(SMALL, init(SMALL, SPACE, generator(1)), tokens, generator(seed)) for seed in (1, 2)]
    for state in joined:
        pretrain_step(state, average)
    weights = [list(s.prior.network.parameters()) for s in joined]
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))

    both = pretrain_init(SMALL, init(SMALL, SPACE, generator(1)), tokens, generator())
    losses = []
    for seed in (1, 2):
        draw = generator(seed)
        chosen = torch.randint(len(both.corpus), (64,), generator=draw)
        sizes = both.prior.draw_sizes(64, draw)
        losses.append(-both.prior.log_likelihood(both.corpus[chosen], both.prior.draw_masks(sizes, draw)) / sizes)
    torch.cat(losses).mean().backward()
    for parameter, mean in zip(both.prior.network.parameters(), means, strict=True):
        assert torch.allclose(parameter.grad, mean, atol=1e-6)


def test_a_resumed_run_equals_an_unbroken_one():
    tokens = corpus(200)
    whole = pretrain_init(SMALL, init(SMALL, SPACE, generator(1)), tokens, generator(2))
    for _ in range(30):
        pretrain_step(whole)
    broken = pretrain_init(SMALL, init(SMALL, SPACE, generator(1)), tokens, generator(2))
    for _ in range(13):
        pretrain_step(broken)
    resumed = pretrain_init(SMALL, init(SMALL, SPACE, generator(5)), tokens, generator(7))
    resumed.load_state_dict(broken.state_dict())
    for _ in range(17):
        pretrain_step(resumed)
    for a, b in zip(whole.average.network.parameters(), resumed.average.network.parameters(), strict=True):
        assert torch.equal(a, b)
    assert whole.best_elbo == resumed.best_elbo


def test_save_and_load(tmp_path):
    state, _ = train(SMALL.model_copy(update={"num_pretrain_steps": 50}), corpus(200))
    prior = state.best_prior()
    first = prior.save(tmp_path / "a")
    assert prior.save(tmp_path / "b") == first
    again = load(tmp_path / "a")
    assert again.space == SPACE
    assert again.num_steps == prior.num_steps
    assert torch.equal(again.log_letters(prior.init_state(3)), prior.log_letters(prior.init_state(3)))
    assert again.save(tmp_path / "c") == first


@pytest.mark.parametrize("name", ["tensors.safetensors", "model.json", "manifest.json"])
def test_a_changed_or_missing_file_is_refused(tmp_path, name):
    init(SMALL, SPACE, generator()).save(tmp_path)
    path = tmp_path / name
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(CorruptArtifactError):
        load(tmp_path)
    path.unlink()
    with pytest.raises(CorruptArtifactError):
        load(tmp_path)


def test_a_bundle_of_something_else_is_refused(tmp_path):
    prior = init(SMALL, SPACE, generator())
    prior.save(tmp_path / "good")
    save_bundle(tmp_path / "reward", "reward", {}, {})
    tensors = {"backbone.enter.weight": torch.zeros(3).numpy()}
    save_bundle(tmp_path / "shapes", "prior", prior.description(), tensors)
    save_bundle(tmp_path / "fields", "prior", {"algorithm": "masked_diffusion"}, {})
    _, own = load_bundle(tmp_path / "good")
    for steps in (0, -4, 10**9, "x", None):
        save_bundle(tmp_path / f"steps {steps}", "prior", prior.description() | {"num_steps": steps}, own)
    for name in ("reward", "shapes", "fields", "nowhere", *(path.name for path in tmp_path.glob("steps *"))):
        with pytest.raises(CorruptArtifactError):
            load(tmp_path / name)


def test_contradictions_are_named():
    with pytest.raises(ConfigError, match="fixed"):
        init(Config(), DesignSpace.from_template(RNA, "GGG"), generator())
    with pytest.raises(ConfigError, match="even"):
        init(Config(kernel=4), SPACE, generator())
    with pytest.raises(ValidationError):
        Config(learning_rate=0)
    prior = init(SMALL, SPACE, generator())
    with pytest.raises(BadInputError, match="distinct"):
        pretrain_init(SMALL, prior, corpus(1).repeat(100, 1), generator())
    with pytest.raises(BadInputError, match="does not fit"):
        pretrain_init(SMALL, prior, torch.zeros((100, 7), dtype=torch.long), generator())


@pytest.mark.parametrize(("length", "steps"), [(9, 9), (16, 16), (50, 32), (200, 128)])
def test_default_steps_follow_the_length(length, steps):
    assert init(Config(width=8), DesignSpace.from_template(DNA, "N" * length), generator()).num_steps == steps


def test_a_restricted_one_by_one_prior_saves_and_loads(tmp_path):
    prior = init(
        Config(width=8, unmasking="one_by_one", num_steps=4), DesignSpace.from_template(DNA, "NNNN"), generator()
    )
    smaller = prior.restrict(DesignSpace.from_template(DNA, "NANN"))
    smaller.save(tmp_path)
    assert load(tmp_path).num_steps == smaller.num_steps == 3
    assert prior.settings["num_steps"] == 4


def test_a_prior_can_be_restricted_to_a_smaller_space(tmp_path):
    state, _ = train(SMALL.model_copy(update={"num_pretrain_steps": 100}), corpus(200))
    prior = state.average
    smaller = prior.restrict(DesignSpace.from_template(DNA, "NAAGCNR"))
    start = smaller.init_state(1)
    assert start.tolist() == [[4, 0, 0, 2, 1, 4, 4]]
    wide, narrow = prior.log_letters(start)[0, 6].exp(), smaller.log_letters(start)[0, 6].exp()
    assert torch.allclose(narrow[[0, 2]], wide[[0, 2]] / wide[[0, 2]].sum())
    assert narrow[[1, 3]].tolist() == [0, 0]
    smaller.save(tmp_path)
    assert torch.equal(load(tmp_path).log_letters(start), smaller.log_letters(start))
    assert prior.init_state(1).tolist() == [[4, 4, 4, 2, 4, 4, 4]]
    for template, alphabet in (("NNNGNNN", DNA), ("NNNGYN", DNA), ("NNNGYNN", RNA), ("AAAGCAA", DNA)):
        with pytest.raises(ConfigError):
            prior.restrict(DesignSpace.from_template(alphabet, template))
