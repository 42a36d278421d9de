import re
import signal
import socket
import time
import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families


def get(url):
    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310
        return answer.headers["Content-Type"], answer.read().decode()


def test_figures_are_printed(campaign):
    printed = campaign("metrics").out
    samples = {s.name: s.value for f in text_string_to_metric_families(printed) for s in f.samples}
    assert samples["plait_queue_length"] == 1
    assert campaign.json("metrics") == {"metrics": printed}


def test_figures_are_served_until_stopped(campaign):
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    process = campaign.start("metrics", "--listen", f"127.0.0.1:{port}")
    try:
        until = time.monotonic() + 60
        while True:
            try:
                kind, text = get(f"http://127.0.0.1:{port}/metrics")
                break
            except urllib.error.URLError:
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.1)
        assert kind == "text/plain; version=0.0.4; charset=utf-8"
        assert re.search(r'^plait_campaigns\{standing="active"\} 1$', text, re.MULTILINE)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(f"http://127.0.0.1:{port}/")
        campaign("metrics", "--listen", f"127.0.0.1:{port}", code=3)  # taken
    finally:
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in error


@pytest.mark.parametrize("listen", ["9464", "127.0.0.1", "127.0.0.1:no", "127.0.0.1:99999", ":9464"])
def test_an_address_is_checked(campaign, listen):
    assert "HOST:PORT" in campaign("metrics", "--listen", listen, code=2).err
