"""`plait doctor` and settings that are given on the line."""

from pathlib import Path

from plait.settings import save_settings


def test_doctor_tells_each_check_and_ends_with_5_where_one_failed(cli):
    told = cli.json("doctor", "--only", "home", "--only", "screening")["checks"]
    assert [(check["name"], check["status"]) for check in told] == [("home", "ok"), ("screening", "warning")]
    said = cli("doctor", "--only", "screening").out.splitlines()
    assert said[0].split() == ["check", "status", "found"]
    assert said[3:5] == ["What to do", f"screening: {told[1]['advice']}"]
    failed = cli.json("--home", cli.home / "none", "doctor", "--only", "home", code=5)["checks"]
    assert failed[0]["status"] == "failed"
    assert cli.json("doctor", "--only", "nonsense", code=2)["error"]["hint"].startswith("checks are packages, home")


def test_a_setting_on_the_line_wins_over_environment_and_file(cli, tmp_path, monkeypatch):
    def root(*options):
        [check] = cli.json(*options, "doctor", "--only", "artifacts")["checks"]
        return Path(check["found"].partition(",")[0]).relative_to(tmp_path)

    save_settings(cli.home, artifact_root=str(tmp_path / "file"))
    assert root() == Path("file")
    monkeypatch.setenv("PLAIT_ARTIFACT_ROOT", str(tmp_path / "environment"))
    assert root() == Path("environment")
    assert root("--override", f"artifact_root={tmp_path}/line") == Path("line")
    twice = ["--override", f"artifact_root={tmp_path}/line", "--override", f"artifact_root={tmp_path}/end"]
    assert root(*twice) == Path("end")


def test_a_setting_on_the_line_that_cannot_be_used_is_named(cli):
    listing = ["data", "list"]
    assert "worker_cpus ('many')" in cli("--override", "worker_cpus=many", *listing, code=3).err
    assert "names are database_url" in cli("--override", "progress=1", *listing, code=2).err
    assert "takes NAME=VALUE" in cli("--override", "worker_cpus", *listing, code=2).err
    assert "give --home" in cli("--override", "home=/x", *listing, code=2).err
    assert "settings.yaml" in cli("--override", "scorers={}", *listing, code=2).err
    refused = cli("--override", "artifact_root=s3://u:geheim@h/x", *listing, code=3).err
    assert "artifact_root" in refused
    assert "geheim" not in refused
