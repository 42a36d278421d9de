import pytest
from plait.design.errors import ConfigError
from plait.settings import SETTINGS_FILE, load_settings, save_settings
from plait.settings.scorers import HttpSettings, SubprocessSettings

FILE = """
scorers:
  folding: {kind: subprocess, command: [fold, --quiet], timeout_s: 30}
  server.1: {kind: http, url: "https://scores.example.org/v1", headers: {Authorization: SCORES_TOKEN}}
"""


def test_scorers_stand_in_the_homes_file(tmp_path):
    (tmp_path / SETTINGS_FILE).write_text(FILE)
    settings = load_settings(tmp_path)
    assert settings.scorers == {
        "folding": SubprocessSettings(command=("fold", "--quiet"), timeout_s=30),
        "server.1": HttpSettings(url="https://scores.example.org/v1", headers={"Authorization": "SCORES_TOKEN"}),
    }
    assert "fold" not in repr(settings)
    save_settings(tmp_path, actor="ada", scorers={"other": {"kind": "subprocess", "command": ["x"]}})
    assert list(load_settings(tmp_path).scorers) == ["other"]
    assert load_settings(tmp_path / "new").scorers == {}


@pytest.mark.parametrize("variable", ["PLAIT_SCORERS", "plait_scorers"])
def test_the_environment_may_not_name_programs(tmp_path, monkeypatch, variable):
    monkeypatch.setenv(variable, '{"a": {"kind": "subprocess", "command": ["rm"]}}')
    with pytest.raises(ConfigError, match="PLAIT_SCORERS is set"):
        load_settings(tmp_path)


@pytest.mark.parametrize(
    ("scorer", "part"),
    [
        ("{kind: subprocess, command: []}", "a: subprocess: command: .*at least 1"),
        ("{kind: subprocess, command: [./fold]}", "relative to wherever Plait runs"),
        ('{kind: subprocess, command: ["fold", "a\\0b"]}', "NUL"),
        ("{kind: subprocess, command: fold}", "command"),
        ("{kind: subprocess, command: [fold], timeout_s: 0}", "timeout_s"),
        (
            "{kind: subprocess, command: [fold], shell: true}",
            "shell: is no key here; known are kind, command, timeout_s",
        ),
        (
            "{kind: http, url: 'http://host', header: {A: geheim}}",
            "header: is no key here; known are kind, url, timeout_s",
        ),
        ("{kind: python, command: [os.system]}", "'python' found using 'kind'"),
        ("{command: [fold]}", "kind"),
        ("{kind: http, url: 'file:///etc/passwd'}", "no web address"),
        ("{kind: http, url: 'http:///x'}", "no web address"),
        ('{kind: http, url: "http://host/a b"}', "no web address"),
        ("{kind: http, url: 'https://user:geheim@host/x'}", "holds credentials"),
        ("{kind: http, url: 'http://host', headers: {Authorization: Bearer geheim}}", "headers: Authorization"),
        ("{url: 'http://host', headers: {Authorization: geheim}}", "kind"),
        ('{kind: http, url: "http://host", headers: {"X: geheim\\r\\nY": TOKEN}}', "headers"),
        ("{kind: http, url: 'http://host', num_retries: 99}", "num_retries"),
    ],
)
def test_a_bad_scorer_is_refused_and_no_secret_shown(tmp_path, scorer, part):
    (tmp_path / SETTINGS_FILE).write_text(f"scorers:\n  a: {scorer}\n")
    with pytest.raises(ConfigError, match=part) as caught:
        load_settings(tmp_path)
    assert "not shown" not in caught.value.message
    if "X: geheim" not in scorer:  # a header's name is no secret
        assert "geheim" not in str(caught.value.to_json())


def test_a_scorers_name_is_one_word(tmp_path):
    (tmp_path / SETTINGS_FILE).write_text("scorers:\n  'a; b': {kind: subprocess, command: [fold]}\n")
    with pytest.raises(ConfigError, match="pattern"):
        load_settings(tmp_path)
