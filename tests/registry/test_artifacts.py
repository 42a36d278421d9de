"""Artifacts on a disk and behind a URL: the same contract, on a real folder and on a server that speaks S3."""

import itertools
import os
import pickle
import shutil
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from plait.design.bundles import MANIFEST, TENSORS, load_bundle, save_bundle
from plait.design.errors import CorruptArtifactError, NotFoundError, RunFailedError
from plait.registry.artifacts import LocalArtifacts
from plait.registry.remote_artifacts import RemoteArtifacts, open_artifacts
from s3fs import S3FileSystem


@pytest.fixture
def bundle(tmp_path):
    save_bundle(tmp_path / "bundle", "reward", {"algorithm": "x"}, {"w": np.arange(4.0)})
    return tmp_path / "bundle"


@pytest.fixture(params=["disk", "s3"])
def root(request, tmp_path):
    return str(tmp_path / "root") if request.param == "disk" else request.getfixturevalue("s3")


@pytest.fixture
def store(root, tmp_path):
    return open_artifacts(root, tmp_path / "cache")


def elsewhere(store, tmp_path):
    """The same store as another machine sees it, by what travels to it."""
    other = pickle.loads(pickle.dumps(store))  # noqa: S301
    if isinstance(other, RemoteArtifacts):
        other._copies = tmp_path / "another machine"
    return other


def test_what_is_kept_on_one_machine_is_read_on_another(store, bundle, tmp_path):
    sha, document = store.put(bundle), store.put_json({"a": [1, 0.1, None]})
    assert (store.put(bundle), store.put_json({"a": [1, 0.1, None]})) == (sha, document)
    there = elsewhere(store, tmp_path)
    description, tensors = load_bundle(there.path(sha))
    assert description["algorithm"] == "x"
    assert tensors["w"].tolist() == [0, 1, 2, 3]
    assert there.get_json(document) == {"a": [1, 0.1, None]}


def test_kept_lists_and_drop_removes(store, bundle, tmp_path):
    assert list(store.kept()) == []
    sha, document = store.put(bundle), store.put_json([1, 2])
    kept = {item.sha256: item for item in store.kept()}
    assert set(kept) == {sha, document}
    assert kept[document].num_bytes == len("[1,2]")
    assert kept[sha].num_bytes == sum(file.stat().st_size for file in bundle.iterdir())
    assert all(abs(datetime.now(UTC) - item.kept_at) < timedelta(minutes=5) for item in kept.values())
    for name in (sha, document, sha):
        store.drop(name)
    assert list(store.kept()) == []
    for machine in (store, elsewhere(store, tmp_path)):
        with pytest.raises(CorruptArtifactError):
            machine.path(sha)
        with pytest.raises(CorruptArtifactError, match="is missing"):
            machine.get_json(document)


def test_what_is_kept_again_is_new_again(store, root, bundle, tmp_path):
    """Whoever removes what is old and unused must not meet a stage that has just found it there."""
    names = [store.put(bundle), store.put_json([1])]
    if root.startswith("s3"):
        first = {item.sha256: item.kept_at for item in store.kept()}
        time.sleep(1.1)  # the server counts seconds
    else:
        first = dict.fromkeys(names, datetime(2020, 1, 1, tzinfo=UTC))
        for name in (names[0], f"{names[1]}.json"):
            os.utime(tmp_path / "root" / "kept" / name, (first[names[0]].timestamp(),) * 2)
        assert {item.kept_at for item in store.kept()} == set(first.values())
    assert [store.put(bundle), store.put_json([1])] == names
    assert all(item.kept_at > first[item.sha256] for item in store.kept())


def test_unfinished_work_is_listed_while_checkpoints_come_and_go(tmp_path):
    store, over = LocalArtifacts(tmp_path), threading.Event()

    def train():
        for number in itertools.count():
            if over.is_set():
                return
            shutil.rmtree(store.scratch("c") / str(number - 2), ignore_errors=True)
            folder = store.scratch("c") / str(number) / "part"
            folder.mkdir(parents=True)
            (folder / "state").write_text("x")

    thread = threading.Thread(target=train)
    thread.start()
    try:
        until = time.monotonic() + 1
        while time.monotonic() < until:
            assert {work.key for work in store.unfinished()} <= {"c"}
    finally:
        over.set()
        thread.join()


def test_what_is_not_whole_is_not_kept(store, bundle):
    (bundle / TENSORS).write_bytes(b"torn")
    with pytest.raises(CorruptArtifactError):
        store.put(bundle)
    assert list(store.kept()) == []
    with pytest.raises(CorruptArtifactError, match="is not a SHA-256"):
        store.path("../../etc")


def test_unfinished_work_has_one_place_until_it_is_dropped(store, root):
    folder, place = store.scratch("c/1"), store.shared("c/1")
    assert folder == store.scratch("c/1")
    assert place == store.shared("c/1")
    (folder / "state").write_text("x")
    if root.startswith("s3"):
        assert place == f"{root}/scratch/c_1"
        S3FileSystem().pipe_file(f"{place}/checkpoint", b"x")
    else:
        assert place == str(folder)
    store.drop_scratch("c/1")
    store.drop_scratch("c/1")
    assert not folder.exists()
    if root.startswith("s3"):
        assert not S3FileSystem().exists(place)


def test_unfinished_work_is_listed_wherever_it_is(store, root):
    from fsspec.core import url_to_fs

    (store.scratch("c-1-finetune") / "here").write_bytes(b"x" * 10)
    files, place = url_to_fs(store.shared("c-1-finetune"))
    files.pipe_file(f"{place}/there", b"x" * 20)
    found = list(store.unfinished())
    assert {work.key for work in found} == {"c-1-finetune"}
    assert sum(work.num_bytes for work in found) == 30
    store.drop_scratch(found[0].key)
    assert list(store.unfinished()) == []


def test_a_root_may_be_called_anything(s3, tmp_path):
    store = open_artifacts(f"{s3}/scratch/kept/x", tmp_path / "cache")
    S3FileSystem().pipe_file(f"{store.shared('c/1')}/scratch/kept", b"x")
    assert [(work.key, work.num_bytes) for work in store.unfinished()] == [("c_1", 1)]
    document = store.put_json([1])
    assert [item.sha256 for item in store.kept()] == [document]


def test_a_bad_copy_is_fetched_again(s3, bundle, tmp_path):
    store = open_artifacts(s3, tmp_path / "cache")
    sha, document = store.put(bundle), store.put_json([1])
    (store.path(sha) / TENSORS).write_bytes(b"torn")
    (store.path(sha).parent / f"{document}.json").write_bytes(b"[2]")
    assert load_bundle(store.path(sha))[1]["w"].tolist() == [0, 1, 2, 3]
    assert store.get_json(document) == [1]
    (store.path(sha) / MANIFEST).unlink()
    load_bundle(store.path(sha))


@pytest.mark.parametrize("name", [TENSORS, MANIFEST])
def test_an_object_that_was_changed_or_lost_is_named(s3, bundle, tmp_path, name):
    store = open_artifacts(s3, tmp_path / "cache")
    sha, document = store.put(bundle), store.put_json([1])
    there = elsewhere(store, tmp_path)
    S3FileSystem().pipe_file(f"{s3}/kept/{sha}/{name}", b"{}")
    S3FileSystem().pipe_file(f"{s3}/kept/{document}.json", b"[2]")
    with pytest.raises(CorruptArtifactError, match=f"{sha} differs from its recorded SHA-256"):
        there.path(sha)
    with pytest.raises(CorruptArtifactError, match=f"{document}.json differs"):
        there.get_json(document)
    S3FileSystem().rm_file(f"{s3}/kept/{sha}/{name}")
    with pytest.raises(CorruptArtifactError, match="is missing"):
        there.path(sha)


def test_a_bundle_without_its_manifest_is_not_there_and_is_kept_again(s3, bundle, tmp_path):
    store = open_artifacts(s3, tmp_path / "cache")
    sha = store.put(bundle)
    S3FileSystem().rm_file(f"{s3}/kept/{sha}/{MANIFEST}")  # as if the machine had died before its last object
    S3FileSystem().pipe_file(f"{s3}/kept/{sha}/{TENSORS}", b"torn")
    assert list(store.kept()) == []
    assert store.put(bundle) == sha
    load_bundle(elsewhere(store, tmp_path).path(sha))


def test_a_missing_bucket_says_so(s3, bundle, tmp_path):
    store = open_artifacts("s3://nobody-made-this/x", tmp_path / "cache")
    for keep in (lambda: store.put(bundle), lambda: store.put_json([1])):
        with pytest.raises(NotFoundError, match="nobody-made-this/x does not exist") as caught:
            keep()
        assert "bucket" in caught.value.hint


def test_a_server_that_is_gone_is_no_stack_trace_and_tells_no_secret(s3, bundle, tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
    S3FileSystem.clear_instance_cache()
    store = open_artifacts(s3, tmp_path / "cache")
    with pytest.raises(RunFailedError, match="cannot be used") as caught:
        store.put(bundle)
    assert "geheim" not in str(caught.value.to_json())
    S3FileSystem.clear_instance_cache()


def test_copies_that_cannot_be_kept_are_kept_for_the_process(s3, bundle, tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    store = open_artifacts(s3, tmp_path / "file")
    load_bundle(store.path(store.put(bundle)))
    assert "copies of artifacts are kept for this process only" in caplog.text


def test_a_full_disk_leaves_nothing_half_written(tmp_path, bundle, monkeypatch):
    """A real limit of the operating system on the size of a file, in a process of its own."""
    store = LocalArtifacts(tmp_path / "root")
    save_bundle(tmp_path / "large", "reward", {}, {"w": np.zeros(100_000)})
    code = (
        "import resource, signal, sys; from pathlib import Path; from plait.registry.artifacts import LocalArtifacts;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000));"
        "store = LocalArtifacts(Path(sys.argv[1]));"
        "put = {'bundle': lambda: store.put(Path(sys.argv[2])), 'json': lambda: store.put_json(['x' * 30_000])};\n"
        "try: put[sys.argv[3]]()\nexcept OSError as error: print(error.strerror)"
    )
    for what in ("bundle", "json"):
        call = [sys.executable, "-c", code, str(store.root), str(tmp_path / "large"), what]
        assert "File too large" in subprocess.run(call, check=True, capture_output=True, text=True).stdout
    assert list((store.root / "kept").iterdir()) == []
