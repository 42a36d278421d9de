import json
import math
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from plait.campaign import catalog
from plait.design.errors import BadInputError, ConfigError, CorruptArtifactError, RunFailedError, UsageError
from plait.rewards import black_box
from plait.rewards.black_box import BlackBox, Config
from plait.rewards.conservatism import ConservativeReward, require_differentiable
from plait.rewards.scorers import HttpScorer, SubprocessScorer, make_scorers
from plait.settings.scorers import HttpSettings, SubprocessSettings
from torch.nn import functional


class Recording:
    """A scorer that remembers what it was asked: GC content."""

    def __init__(self, answer=None):
        self.batches, self.answer = [], answer

    @property
    def asked(self):
        return [sequence for batch in self.batches for sequence in batch]

    def __call__(self, sequences):
        self.batches.append(list(sequences))
        return [gc(s) for s in sequences] if self.answer is None else self.answer(sequences)


def gc(sequence):
    return 10.0 + 3.0 * sum(letter in "CG" for letter in sequence) / len(sequence)


def fitted(dataset, scorer, **config):
    return black_box.fit(Config(scorer="mine", **config), dataset, torch.Generator(), {"mine": scorer})


def boxed(dataset, scorer, **config):
    return BlackBox(dataset.space, "a.u.", 1.0, scorer, Config(scorer="mine", **config))


# the reward -----------------------------------------------------------------------------------------------------------
def test_it_is_an_algorithm_of_its_room():
    assert catalog.find("rewards", "black_box") is black_box
    assert "multi_objective" not in catalog.algorithms("rewards")
    assert "scorers" not in catalog.algorithms("rewards")


def test_the_spread_is_the_error_against_the_readings(dataset):
    reward = fitted(dataset, Recording())
    prediction = reward.predict(torch.as_tensor(dataset.tokens[:7]))
    scores = np.array([gc(s) for s in dataset.space.decode(dataset.tokens)])
    rmse = math.sqrt(((scores - dataset.values) ** 2).mean())
    assert prediction.members.shape == (2, 7)
    assert prediction.mean.tolist() == pytest.approx(scores[:7].tolist(), rel=1e-6)
    assert prediction.std.tolist() == pytest.approx([rmse] * 7, rel=1e-4)
    assert reward.scale == pytest.approx(dataset.values.std())
    assert (reward.unit, reward.calibration.num_held_out) == (dataset.unit, len(dataset))
    assert reward.calibration.rmse == pytest.approx(rmse, rel=1e-5)
    assert 0.5 < reward.calibration.interval_scale < 2  # the stated spread is about right, not 1e-6
    assert reward.calibration.coverage_90 > 0.8


def test_each_distinct_sequence_is_asked_for_once_in_batches(dataset):
    scorer = Recording()
    reward = boxed(dataset, scorer, batch_size=4)
    tokens = torch.as_tensor(dataset.tokens[:10])
    twice = reward.predict(torch.cat([tokens, tokens]))
    assert [len(batch) for batch in scorer.batches] == [4, 4, 2]
    assert twice.members.shape == (1, 20)
    assert torch.equal(twice.mean[:10], twice.mean[10:])
    assert torch.equal(reward.predict(tokens).mean, twice.mean[:10])
    assert len(scorer.asked) == len(set(scorer.asked)) == 10
    assert reward.predict(tokens[:0]).members.shape == (1, 0)


def test_the_memory_is_bounded_and_keeps_what_was_used_last(dataset):
    scorer = Recording()
    reward = boxed(dataset, scorer, cache_size=2)
    a, b, c = (torch.as_tensor(dataset.tokens[i : i + 1]) for i in range(3))
    for x in (a, b, a, c, a, b):
        reward.predict(x)
    assert len(scorer.asked) == 4  # b was dropped for c, a stayed
    assert reward.predict(torch.as_tensor(dataset.tokens[:9])).mean.tolist() == pytest.approx(
        [gc(s) for s in dataset.space.decode(dataset.tokens[:9])]
    )


def test_what_was_answered_before_a_failure_is_kept(dataset):
    scorer = Recording()
    reward = boxed(dataset, scorer, batch_size=3)
    scorer.answer = lambda batch: [1.0] * len(batch) if len(scorer.batches) == 1 else [math.nan] * len(batch)
    tokens = torch.as_tensor(dataset.tokens[:6])
    with pytest.raises(RunFailedError):
        reward.predict(tokens)
    scorer.answer = None
    reward.predict(tokens)
    assert scorer.batches[-1] == dataset.space.decode(dataset.tokens[3:6])


def test_both_strands_have_one_score(symmetric):
    scorer = Recording(lambda sequences: [float(s.count("A")) for s in sequences])  # differs between strands
    tokens = torch.as_tensor(symmetric.tokens[:8])
    twin = 3 - tokens.flip(1)
    reward = boxed(symmetric, scorer)
    assert torch.equal(reward.predict(tokens).mean, reward.predict(twin).mean)
    assert len(scorer.asked) == 8


def test_lower_may_be_better(dataset):
    turned = replace(dataset, values=-dataset.values)
    reward = fitted(turned, Recording(), goal="minimize")
    assert float(reward.predict(torch.as_tensor(dataset.tokens[:1])).mean[0]) < 0
    assert reward.calibration.spearman > 0.5
    with pytest.raises(ConfigError, match="counts the other way") as caught:
        fitted(turned, Recording())
    assert "minimize" in caught.value.hint


def test_a_simplex_and_gradient_methods_are_refused(dataset):
    reward = fitted(dataset, Recording())
    with pytest.raises(UsageError, match="not a simplex"):
        reward.predict(functional.one_hot(torch.as_tensor(dataset.tokens[:2]), 4).float())
    with pytest.raises(ConfigError, match="not differentiable"):
        require_differentiable(ConservativeReward(reward, None, 0.0, 1.0), "braid")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda s: [1.0] * (len(s) - 1), r"'mine' gave 4 scores for 5 sequences from {first} on"),
        (lambda s: [1.0, math.nan, 1.0, 1.0, 1.0], "gave 'nan' for {second}: not a finite number"),
        (lambda s: [1.0, math.inf, 1.0, 1.0, 1.0], "gave 'inf' for {second}"),
        (lambda s: [1.0, 1e300, 1.0, 1.0, 1.0], "for {second}"),
        (lambda s: [1.0, None, 1.0, 1.0, 1.0], "gave 'None' for {second}"),
        (lambda s: [1.0, "2.0", 1.0, 1.0, 1.0], "gave '2.0' for {second}"),
        (lambda s: [1.0, True, 1.0, 1.0, 1.0], "gave 'True' for {second}"),
        (lambda s: None, "failed on 5 sequences from {first} on: TypeError"),
        (lambda s: 1 / 0, "failed on 5 sequences from {first} on: ZeroDivisionError"),
    ],
)
def test_a_bad_answer_names_the_sequence(dataset, answer, message):
    first, second = dataset.space.decode(dataset.tokens[:2])
    with pytest.raises(RunFailedError, match=message.format(first=first, second=second)):
        boxed(dataset, Recording(answer)).predict(torch.as_tensor(dataset.tokens[:5]))


def test_numbers_of_numpy_and_torch_are_numbers(dataset):
    tokens = torch.as_tensor(dataset.tokens[:3])
    for answer in (np.arange(3.0), np.arange(3, dtype=np.float32), torch.arange(3), (0, 1, 2)):
        assert boxed(dataset, lambda s, a=answer: a).predict(tokens).mean.tolist() == [0.0, 1.0, 2.0]


def test_a_bundle_holds_the_name_and_never_the_command(dataset, tmp_path):
    command = (sys.executable, "-c", "import sys; print('\\n'.join(str(l.count('G')) for l in sys.stdin))")
    reward = fitted(dataset, SubprocessScorer(SubprocessSettings(command=command)))
    digest = reward.save(tmp_path / "bundle")
    assert not [f for f in (tmp_path / "bundle").iterdir() if b"python" in f.read_bytes() or b"count" in f.read_bytes()]
    scorer = Recording(lambda s: [float(x.count("G")) for x in s])
    again = black_box.load(tmp_path / "bundle", {"mine": scorer})
    tokens = torch.as_tensor(dataset.tokens[:5])
    torch.testing.assert_close(again.predict(tokens).members, reward.predict(tokens).members)
    assert (again.config, again.calibration, again.scale) == (reward.config, reward.calibration, reward.scale)
    assert again.save(tmp_path / "again") == digest
    with pytest.raises(ConfigError, match="no scorer 'mine'") as caught:
        black_box.load(tmp_path / "bundle", {"other": scorer, "third": scorer})
    assert "other, third" in caught.value.hint
    (tmp_path / "bundle" / "model.json").write_text("{}")
    with pytest.raises(CorruptArtifactError):
        black_box.load(tmp_path / "bundle", {"mine": scorer})


def test_a_fit_refuses_an_unknown_name_and_too_few_items(dataset):
    with pytest.raises(ConfigError, match="no scorer 'mine'") as caught:
        black_box.fit(Config(scorer="mine"), dataset, torch.Generator(), {})
    assert "settings.yaml" in caught.value.hint
    with pytest.raises(BadInputError, match="3 items are too few"):
        fitted(dataset.take(np.arange(3)), Recording())


@pytest.mark.parametrize("settings", [{"scorer": "a b"}, {"scorer": "os.system('x')"}, {"command": ["x"]}])
def test_a_campaign_can_only_name_a_scorer(settings):
    with pytest.raises(ConfigError, match=r"rewards\.black_box settings"):
        catalog.configure("rewards", "black_box", settings)


# programs -------------------------------------------------------------------------------------------------------------
def program(code, *arguments, **settings):
    return SubprocessScorer(SubprocessSettings(command=(sys.executable, "-c", code, *arguments), **settings))


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition, seconds=10.0):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    return condition()


COUNT = "import sys\nfor line in sys.stdin: print(line.count('G') / 2)"


def test_a_program_scores_line_by_line_and_can_be_pickled():
    scorer = pickle.loads(pickle.dumps(program(COUNT)))  # noqa: S301
    assert scorer(["GGA", "AAA", "GCG"]) == [1.0, 0.0, 1.0]
    many = ["ACGT" * 50] * 5_000  # more than a pipe holds in either direction
    assert scorer(many) == [25.0] * 5_000


def test_no_shell_reads_the_command():
    scorer = program("import sys; print(len(sys.argv[1]))", "$HOME; echo 1")
    assert scorer(["A"]) == [float(len("$HOME; echo 1"))]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; sys.exit('the table is missing')", "ended with status 1: the table is missing"),
        ("print(1.0)", "wrote 1 lines for 2 sequences"),
        ("print('1.0\\nhigh')", "wrote 'high' for GG: not a number"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "status -15"),
    ],
)
def test_a_program_that_fails_says_why(code, message):
    with pytest.raises(RunFailedError, match=message):
        program(code)(["AA", "GG"])


def test_a_program_that_is_not_there():
    with pytest.raises(RunFailedError, match="no-such-program cannot be started: No such file"):
        SubprocessScorer(SubprocessSettings(command=("no-such-program",)))(["A"])


SLEEPER = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, file=open(sys.argv[1], "w"), flush=True)
print("waiting for the table", file=sys.stderr, flush=True)
time.sleep(60)
"""


def test_at_the_timeout_the_program_and_its_children_end(tmp_path):
    file = tmp_path / "pid"
    with pytest.raises(RunFailedError, match=r"longer than 1\.5 s for 1 sequences: waiting for the table"):
        program(SLEEPER, str(file), timeout_s=1.5)(["A"])
    assert wait_for(lambda: not is_alive(int(file.read_text())))


def test_on_interrupt_the_program_and_its_children_end(tmp_path):
    file = tmp_path / "pid"
    code = (
        "import sys\nfrom plait.rewards.scorers import SubprocessScorer\n"
        "from plait.settings.scorers import SubprocessSettings\n"
        f"SubprocessScorer(SubprocessSettings(command=(sys.executable, '-c', {SLEEPER!r}, {str(file)!r})))(['A'])"
    )
    caller = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    assert wait_for(lambda: file.exists() and file.read_text().strip(), 60)
    caller.send_signal(signal.SIGINT)
    _, said = caller.communicate(timeout=30)
    assert "KeyboardInterrupt" in said
    assert wait_for(lambda: not is_alive(int(file.read_text())))


# servers --------------------------------------------------------------------------------------------------------------
@pytest.fixture
def server():
    """A server that answers from a list of (status, headers, body); body None scores by length."""

    class Handler(BaseHTTPRequestHandler):
        plan, seen = [], []

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.seen.append((self.path, dict(self.headers), body))
            status, headers, answer = self.plan.pop(0) if self.plan else (200, {}, None)
            if status == 0:
                return  # hang up without an answer
            if status == -1:
                time.sleep(1.0)
            scores = json.dumps({"scores": [len(s) for s in body["sequences"]]}) if answer is None else answer
            self.send_response(max(status, 200))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(scores.encode())

        def log_message(self, *arguments):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.url = f"http://127.0.0.1:{running.server_port}/v1"
    running.plan, running.seen = Handler.plan, Handler.seen
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


def client(server, **settings):
    return HttpScorer(HttpSettings(**{"url": server.url, "backoff_s": 0.01, "timeout_s": 10} | settings))


def test_a_server_scores_and_gets_the_secret_from_the_environment(server, monkeypatch):
    scorer = pickle.loads(pickle.dumps(client(server, headers={"Authorization": "SCORES_TOKEN"})))  # noqa: S301
    with pytest.raises(ConfigError, match="variable SCORES_TOKEN, which is not set"):
        scorer(["A"])
    monkeypatch.setenv("SCORES_TOKEN", "geheim\r\nX: y")
    with pytest.raises(ConfigError, match="cannot be a header") as caught:
        scorer(["A"])
    assert "geheim" not in str(caught.value.to_json())
    assert server.seen == []
    monkeypatch.setenv("SCORES_TOKEN", "Bearer geheim")
    assert scorer(["A", "CGT"]) == [1, 3]
    path, headers, body = server.seen[0]
    assert (path, headers["Authorization"], body) == ("/v1", "Bearer geheim", {"sequences": ["A", "CGT"]})
    assert b"geheim" not in pickle.dumps(scorer)


def test_a_busy_or_lost_server_is_asked_again(server):
    server.plan += [(503, {}, "busy"), (429, {"Retry-After": "0"}, "busy"), (0, {}, "")]
    assert client(server)(["AC"]) == [2]
    assert len(server.seen) == 4
    server.plan += [(503, {}, "busy")] * 3
    with pytest.raises(RunFailedError, match=r"is busy \(status 503\) \(3 times\)"):
        client(server, num_retries=2)(["AC"])


def test_retry_after_is_kept(server):
    server.plan.append((429, {"Retry-After": "1"}, "busy"))
    start = time.monotonic()
    assert client(server)(["AC"]) == [2]
    assert time.monotonic() - start >= 1


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ((500, {}, "out of memory"), "answered 500: out of memory"),
        ((200, {}, "<html>"), "no list of scores but b'<html>'"),
        ((200, {}, '{"scores": 3}'), "no list of scores"),
        ((200, {}, "[1.0]"), "no list of scores"),
        ((307, {"Location": "http://127.0.0.1:9/elsewhere"}, ""), "answered 307"),
        ((302, {"Location": "http://127.0.0.1:9/elsewhere"}, ""), "answered 302"),
    ],
)
def test_a_server_that_answers_something_else(server, plan, message):
    server.plan.append(plan)
    with pytest.raises(RunFailedError, match=message):
        client(server)(["AC"])
    assert len(server.seen) == 1


def test_a_silent_server_is_given_up(server):
    server.plan.append((-1, {}, None))
    with pytest.raises(RunFailedError, match=r"was silent for 0\.2 s"):
        client(server, timeout_s=0.2)(["AC"])


def test_a_server_that_is_not_there(server):
    nowhere = HttpSettings(url="http://127.0.0.1:9/v1", num_retries=1, backoff_s=0.01)
    with pytest.raises(RunFailedError, match=r"cannot be reached: .*refused.*\(2 times\)"):
        HttpScorer(nowhere)(["A"])


def test_what_a_home_describes_becomes_scorers(dataset, server):
    described = {
        "count": SubprocessSettings(command=(sys.executable, "-c", COUNT)),
        "server": HttpSettings(url=server.url),
    }
    scorers = make_scorers(described, {})
    assert {name: scorer(["GGA"]) for name, scorer in scorers.items()} == {"count": [1.0], "server": [3]}
    reward = BlackBox(dataset.space, "", 1.0, scorers["server"], Config(scorer="server"))
    assert reward.predict(torch.as_tensor(dataset.tokens[:2])).mean.tolist() == [10.0, 10.0]
