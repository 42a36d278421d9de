import getpass
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from plait.design.errors import ConfigError
from plait.settings import SETTINGS_FILE, Settings, load_settings, redacted, save_settings


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("PLAIT_")]:
        monkeypatch.delenv(name)


def test_everything_lies_in_the_home_by_default(tmp_path):
    settings = load_settings(tmp_path)
    assert settings.home == tmp_path
    assert settings.database_url == f"sqlite:///{tmp_path}/plait.db"
    assert settings.mlflow_tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert settings.mlflow_artifacts == str(tmp_path / "mlflow-artifacts")
    assert settings.artifact_root == str(tmp_path / "artifacts")
    assert (settings.ray_address, settings.actor) == ("local", getpass.getuser())


def test_the_cache_is_the_users_and_shared_by_homes(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "ada"))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, says its specification
    assert load_settings(tmp_path).cache == tmp_path / "ada" / ".cache" / "plait"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert load_settings(tmp_path).cache == tmp_path / "caches" / "plait"
    monkeypatch.setenv("PLAIT_CACHE", "~/mine")
    assert load_settings(tmp_path).cache == tmp_path / "ada" / "mine"
    monkeypatch.setenv("PLAIT_CACHE", "relative")
    with pytest.raises(ConfigError, match=r"PLAIT_CACHE \('relative'\).*absolute path"):
        load_settings(tmp_path)


def test_home_is_argument_then_variable_then_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_settings().home == tmp_path / ".plait"
    monkeypatch.setenv("PLAIT_HOME", str(tmp_path / "variable"))
    assert load_settings().home == tmp_path / "variable"
    assert load_settings("argument").home == tmp_path / "argument"


def test_file_yields_to_environment_and_environment_to_arguments(tmp_path, monkeypatch):
    save_settings(tmp_path, actor="file", torch_threads=1, ray_num_cpus=1)
    monkeypatch.setenv("PLAIT_ACTOR", "environment")
    monkeypatch.setenv("PLAIT_TORCH_THREADS", "2")
    settings = load_settings(tmp_path, actor="argument")
    assert (settings.actor, settings.torch_threads, settings.ray_num_cpus) == ("argument", 2, 1)


def test_limits_are_checked_and_named(tmp_path, monkeypatch):
    settings = load_settings(tmp_path)
    assert (settings.max_workers, settings.worker_cpus, settings.worker_gpus) == (None, 1, 0)
    assert (settings.max_concurrent_trials, settings.max_campaigns) == (None, 1)
    monkeypatch.setenv("PLAIT_WORKER_GPUS", "0.5")
    assert load_settings(tmp_path, max_workers="3").max_workers == 3
    assert load_settings(tmp_path).worker_gpus == 0.5
    with pytest.raises(ConfigError, match=r"max_workers \('0'\).*worker_cpus \('-1'\)"):
        load_settings(tmp_path, max_workers="0", worker_cpus="-1")


@pytest.mark.parametrize(
    ("root", "kept"),
    [
        ("/data/plait", "/data/plait"),
        ("~/plait", str(Path.home() / "plait")),
        ("file:///data/plait", "/data/plait"),
        ("s3://bucket/plait/", "s3://bucket/plait"),
        ("memory://plait", "memory://plait"),
    ],
)
def test_artifacts_lie_in_a_folder_or_behind_a_url(tmp_path, root, kept):
    assert load_settings(tmp_path, artifact_root=root).artifact_root == kept
    assert load_settings(tmp_path, mlflow_artifacts=root).mlflow_artifacts == kept


def test_mlflow_s_server_may_keep_its_artifacts(tmp_path):
    assert load_settings(tmp_path, mlflow_artifacts="mlflow-artifacts:/plait/").mlflow_artifacts.endswith(":/plait")


@pytest.mark.parametrize(
    ("root", "part"),
    [
        ("relative", "is relative; give an absolute path or a URL"),
        ("file://relative", "is relative"),
        ("s3://", "names no bucket"),
        ("s3://key:geheim@bucket/x", "may not hold credentials"),
        ("s3://bucket/x?secret=geheim", "may not hold credentials or options"),
        ("nonsense://bucket/x", "fsspec does not know"),
        ("oci://bucket/x", "needs a driver that is not installed; run: pip install 'ocifs'"),
    ],
)
def test_a_root_that_cannot_be_used_says_what_to_do(tmp_path, root, part):
    with pytest.raises(ConfigError, match=part) as caught:
        load_settings(tmp_path, artifact_root=root)
    assert "geheim" not in str(caught.value.to_json())


def test_ray_address_of_the_shell_is_not_joined_silently(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "ray://stranger:10001")
    assert load_settings(tmp_path).ray_address == "local"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("databse_url: sqlite:////x.db", "databse_url in .*is no setting; known are database_url"),
        ("ray_num_cpus: many", "ray_num_cpus in .*'many'"),
        ("ray_num_cpus: 0", "ray_num_cpus.*'0'"),
        ("database_url: sqlite:///plait.db", "four slashes"),
        ("database_url: mysql://u:geheim@host/x", "another database"),
        ("database_url: nothing", "is no URL"),
        ("home: /elsewhere\nmlflow_artifacts: relative", "mlflow_artifacts.*absolute path"),
        ("log_level: loud", "log_level"),
        ('actor: "a\\nb"', "printable"),
        ("- a list", "settings.yaml cannot be read"),
        ("a: [", "settings.yaml cannot be read"),
        ("[" * 5_000, "settings.yaml cannot be read"),
    ],
)
def test_bad_file_names_field_value_and_remedy(tmp_path, text, part):
    (tmp_path / SETTINGS_FILE).write_text(text)
    with pytest.raises(ConfigError, match=part) as caught:
        load_settings(tmp_path)
    assert "geheim" not in str(caught.value.to_json())


def test_bad_variable_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PLAIT_RAY_NUM_CPUS", "x")
    with pytest.raises(ConfigError, match=r"PLAIT_RAY_NUM_CPUS \('x'\)"):
        load_settings(tmp_path)


def test_saved_file_is_private_and_keeps_what_was_there(tmp_path):
    save_settings(tmp_path / "home", actor="ada")
    file = save_settings(tmp_path / "home", database_url="postgresql://u:geheim@host/x")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    settings = load_settings(tmp_path / "home")
    assert (settings.actor, settings.database_url) == ("ada", "postgresql://u:geheim@host/x")
    assert "geheim" not in repr(settings)
    assert "geheim" not in str(settings)
    save_settings(tmp_path / "home", actor=None)
    assert load_settings(tmp_path / "home").actor == getpass.getuser()
    assert [p.name for p in (tmp_path / "home").iterdir()] == [SETTINGS_FILE]


def test_nothing_is_saved_when_a_value_is_bad(tmp_path):
    with pytest.raises(ConfigError):
        save_settings(tmp_path / "home", database_url="sqlite:///relative.db")
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:geheim@host:5432/db",
        "postgresql+psycopg://user:ge@heim/geheim@host/db",
        "postgresql://host/db?user=u&password=geheim",
        "cannot reach postgresql://:geheim@host/db",
    ],
)
def test_redacted_hides_the_password_and_nothing_else(url):
    assert "geheim" not in redacted(url)
    assert "host" in redacted(url)
    assert redacted("sqlite:////a/b.db") == "sqlite:////a/b.db"


def test_settings_cannot_be_changed_and_import_is_light(tmp_path):
    with pytest.raises(ValueError, match="frozen"):
        load_settings(tmp_path).actor = "x"
    assert isinstance(load_settings(tmp_path), Settings)
    code = (
        "import sys, plait.settings; assert not {'torch', 'ray', 'mlflow', 'pandas', 'sqlalchemy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)
