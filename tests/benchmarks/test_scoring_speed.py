import numpy as np
import torch
from plait.benchmarks import scoring_speed
from plait.rewards import ensemble


def test_the_plain_loop_says_what_the_model_says(tmp_path):
    bundle, pool = scoring_speed.make_model("mlp", tmp_path), scoring_speed.make_pool(20, tmp_path / "pool.csv")
    header, *sequences = pool.read_text().split()
    assert (header, len(sequences), {len(s) for s in sequences}) == ("sequence", 20, {scoring_speed.LENGTH})
    scoring_speed._load(bundle)
    model = ensemble.load(bundle)
    expected = model.predict(torch.from_numpy(model.space.encode(sequences)))
    scores = scoring_speed._score("".join(sequences).encode())
    np.testing.assert_allclose(scores[0], expected.mean.numpy(), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(scores[2], (expected.mean - 0.5 * expected.std).numpy(), rtol=1e-5, atol=1e-7)
