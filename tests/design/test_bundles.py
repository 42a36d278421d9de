import hashlib
import json

import numpy as np
import pytest
from plait.design.bundles import DESCRIPTION, MANIFEST, TENSORS, bundle_hash, load_bundle, save_bundle
from plait.design.errors import CorruptArtifactError

TENSOR = np.arange(6, dtype=np.float32).reshape(2, 3)


def saved(directory):
    save_bundle(directory, "prior", {"width": 3}, {"w": TENSOR, "a": TENSOR.T})
    return directory


def test_what_is_saved_is_loaded(tmp_path):
    description, tensors = load_bundle(saved(tmp_path / "m"), "prior")
    assert description == {"kind": "prior", "width": 3}
    np.testing.assert_array_equal(tensors["w"], TENSOR)
    np.testing.assert_array_equal(tensors["a"], TENSOR.T)


def test_the_hash_is_that_of_the_content(tmp_path):
    one = save_bundle(tmp_path / "1", "prior", {"b": 1, "a": 2}, {"x": TENSOR, "y": TENSOR})
    same = save_bundle(tmp_path / "2", "prior", {"a": 2, "b": 1}, {"y": TENSOR, "x": TENSOR})
    other = save_bundle(tmp_path / "3", "prior", {"a": 2, "b": 1}, {"y": TENSOR, "x": TENSOR + 1})
    assert one == same == bundle_hash(tmp_path / "1")
    assert other != one


@pytest.mark.parametrize("name", [TENSORS, DESCRIPTION, MANIFEST])
def test_a_changed_file_is_refused(tmp_path, name):
    path = saved(tmp_path / "m") / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptArtifactError):
        load_bundle(tmp_path / "m")


@pytest.mark.parametrize("name", [TENSORS, DESCRIPTION, MANIFEST])
def test_a_missing_or_truncated_file_is_refused(tmp_path, name):
    path = saved(tmp_path / "m") / name
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CorruptArtifactError):
        load_bundle(tmp_path / "m")
    path.unlink()
    with pytest.raises(CorruptArtifactError):
        load_bundle(tmp_path / "m")


@pytest.mark.parametrize("manifest", ["[]", "1", '{"model.json": 1}', "[" * 100_000, "{"])
def test_a_foreign_manifest_is_refused(tmp_path, manifest):
    (saved(tmp_path / "m") / MANIFEST).write_text(manifest)
    with pytest.raises(CorruptArtifactError):
        load_bundle(tmp_path / "m")


@pytest.mark.parametrize("description", ["[1]", "not json"])
def test_a_foreign_description_is_refused_even_with_matching_sums(tmp_path, description):
    path = saved(tmp_path / "m")
    (path / DESCRIPTION).write_text(description)
    sums = {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in (TENSORS, DESCRIPTION)}
    (path / MANIFEST).write_text(json.dumps(sums))
    with pytest.raises(CorruptArtifactError):
        load_bundle(path, "prior")


def test_another_kind_is_refused_and_a_description_cannot_change_it(tmp_path):
    save_bundle(tmp_path / "m", "reward", {"kind": "prior"}, {"w": TENSOR})
    with pytest.raises(CorruptArtifactError, match="holds a reward, not a prior"):
        load_bundle(tmp_path / "m", "prior")
    with pytest.raises(CorruptArtifactError, match="no model folder"):
        bundle_hash(tmp_path / "nothing")


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    save_bundle(tmp_path / "m", "prior", {}, {"w": TENSOR, "v": np.array([1.0, np.nan], dtype=np.float32)})
    with pytest.raises(CorruptArtifactError, match="not finite"):
        load_bundle(tmp_path / "m")
