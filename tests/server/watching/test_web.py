"""Page, JSON and metrics on the loopback address: escaped, bounded, and for this machine alone."""

import base64
import hashlib
import json
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest

from medformer.errors import ConfigError
from server.watching.exposition import exposition
from server.watching.facts import Status
from server.watching.look import look
from server.watching.page import POLICY, page_of
from server.watching.recorder import Recorder
from server.watching.web import FRESH_SECONDS, serve
from tests.helpers.watched import (
    NAMES,
    at_work,
    make_consortium,
    make_run,
    new_key,
    receipt,
    trained,
)
from tests.server.watching.test_recorder import train

HOSTILE = '<script>alert(1)</script>"\\\n}\x00'
HELP = re.compile(r"# HELP (fedmedformer_[a-z_]+) [^\n]+")
TYPE = re.compile(r"# TYPE (fedmedformer_[a-z_]+) (gauge|counter)")
LABEL = r'[a-z]+="(?:[^"\\\n]|\\["\\n])*"'
SAMPLE = re.compile(rf"(fedmedformer_[a-z_]+)\{{{LABEL}(?:,{LABEL})*\}} -?[0-9.e+-]+")


@pytest.fixture(scope="module")
def status(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Status]:
    """Return the facts of a run in its third round."""
    folder = make_consortium(tmp_path_factory.mktemp("w"), {name: new_key() for name in NAMES})
    out = make_run(folder)
    with at_work(out):
        recorder = Recorder(out, NAMES)
        (out / "receipts.json").write_text(json.dumps({"north": receipt()}))
        for number in (1, 2):
            trained(out, number, ("north",))
        recorder.asked({"north": train(3)})
        yield look(folder)


@pytest.fixture
def hostile(status: Status) -> Status:
    """Return facts in which everything that is text was written by an attacker."""
    run = status.run
    assert run is not None
    sites = tuple(replace(site, name=HOSTILE, reason=HOSTILE, unit=HOSTILE) for site in run.sites)
    bad = replace(run, name=HOSTILE, sites=sites, failure=HOSTILE, phase=HOSTILE, stage=HOSTILE,
                  waits_for=(HOSTILE,), folder=HOSTILE, basis=HOSTILE)  # fmt: skip
    members = tuple(replace(member, name=HOSTILE) for member in status.members)
    return replace(status, consortium=HOSTILE, members=members, run=bad)


@pytest.fixture(scope="module")
def client(status: Status) -> Iterator[httpx.Client]:
    """Yield a client of a server on the loopback address."""
    serving = serve(lambda: status, 0)
    with httpx.Client(base_url=f"http://127.0.0.1:{serving.port}", trust_env=False) as one:
        yield one
    serving.close()


def test_the_page_shows_the_facts_and_asks_nobody_else(client: httpx.Client):
    """It names no other address. The one script is that of its content security policy."""
    answer = client.get("/")
    text = answer.text
    assert answer.status_code == 200
    assert "2 of 4" in text
    assert re.search(r"6\.000 for one image.*8\.000.*2\.000", text, re.DOTALL)
    assert "is being waited for" in text
    assert not re.findall(r"(?:https?:)?//[a-z]|@import|url\(", text)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in answer.headers["content-security-policy"]
    assert f'content="{POLICY}"'.replace("'", "&#39;") in text
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in answer.headers


def test_what_sites_wrote_stays_text_on_the_page(hostile: Status):
    """No name or reason opens a tag."""
    text = page_of(hostile)
    assert text.count("<script>") == 1
    assert "alert(1)</script>" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_metrics_are_prometheus_text(client: httpx.Client, status: Status):
    """Each family has a help and a type before its samples; what is not known is left out."""
    answer = client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    check_format(answer.text)
    assert 'fedmedformer_run_rounds_done{run="lungs-1"} 2.0' in answer.text
    assert 'fedmedformer_site_epsilon_spent{run="lungs-1",site="north"} 6.0' in answer.text
    assert 'site_epsilon_spent{run="lungs-1",site="south"}' not in answer.text
    assert 'fedmedformer_run_state{run="lungs-1",state="running"} 1.0' in answer.text
    assert status.run is not None
    empty = exposition(replace(status, run=None, members=()))
    assert empty.splitlines()[2:] == ['fedmedformer_server_up{consortium="lungs"} 0.0']


def check_format(text: str) -> None:
    """Check every line; a family's name comes once."""
    seen: list[str] = []
    for line in text.split("\n")[:-1]:
        if found := HELP.fullmatch(line):
            seen.append(found[1])
        elif found := TYPE.fullmatch(line) or SAMPLE.fullmatch(line):
            assert found[1] == seen[-1]
        else:
            raise AssertionError(line)
    assert text.endswith("\n")
    assert len(seen) == len(set(seen))


def test_labels_cannot_break_out_and_are_short(hostile: Status):
    """An attacker who chooses a name adds no metric and no label."""
    assert hostile.run is not None
    text = exposition(hostile)
    check_format(text)
    (label,) = re.findall(r'server_up\{consortium="(.*)"\}', text)
    unescaped = re.sub(r"\\(.)", lambda found: {"n": "\n"}.get(found[1], found[1]), label)
    assert unescaped == HOSTILE
    long = replace(hostile, run=replace(hostile.run, name="x" * 10_000))
    assert max(map(len, exposition(long).splitlines())) < 1_000


def test_the_json_holds_the_same_facts(client: httpx.Client, status: Status):
    """`--json` prints them, too."""
    found = client.get("/status.json").json()
    assert found == json.loads(json.dumps(status.to_json()))
    assert found["run"]["sites"][0]["epsilon_left"] == 2.0


@pytest.mark.parametrize(
    ("host", "code"),
    [("127.0.0.1", 200), ("localhost:8080", 200), ("LOCALHOST", 200), ("[::1]:9097", 200),
     ("attacker.example", 421), ("127.0.0.1.attacker.example", 421),
     ("localhost.example:9097", 421), ("", 421),
     ("127.0.0.1:9097@x", 421), ("192.168.0.7:9097", 421)],
)  # fmt: skip
def test_only_this_machines_own_names_are_answered(client: httpx.Client, host: str, code: int):
    """A web page whose name was pointed at the loopback address (DNS rebinding) learns nothing."""
    answer = client.get("/metrics", headers={"host": host})
    assert answer.status_code == code
    assert code == 200 or "lungs" not in answer.text


def test_no_page_is_answered_under_another_name(client: httpx.Client):
    """The check comes before every page, and before pages that do not exist."""
    for path in ("/", "/status.json", "/metrics", "/nothing"):
        assert client.get(path, headers={"host": "attacker.example"}).status_code == 421


def test_nothing_can_be_sent(client: httpx.Client):
    """There is nothing to change."""
    assert client.post("/", content=b"x").status_code == 405
    assert client.get("/../state.db").status_code == 404


def test_it_listens_on_the_loopback_address_alone(client: httpx.Client):
    """A server on all addresses would be at 127.0.0.2, too."""
    port = client.base_url.port
    socket.create_connection(("127.0.0.1", port), timeout=5).close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", port), timeout=5)


def test_facts_are_collected_once_a_second_however_many_ask(status: Status):
    """And a mistake in consortium.yaml is an answer of one sentence, until it is corrected."""
    calls: list[bool] = []

    def looked() -> Status:
        calls.append(True)
        if len(calls) == 1:
            return status
        raise ConfigError("x.yaml: unknown key")

    serving = serve(looked, 0)
    try:
        with httpx.Client(base_url=f"http://localhost:{serving.port}", trust_env=False) as one:
            end = time.monotonic() + FRESH_SECONDS
            answers = [one.get(path) for path in ("/", "/metrics", "/status.json")]
            if time.monotonic() < end:
                assert len(calls) == 1
            time.sleep(max(0.0, end - time.monotonic()) + 0.05)
            answers.append(one.get("/"))
    finally:
        serving.close()
    assert [answer.status_code for answer in answers[:1]] == [200]
    assert (answers[-1].status_code, answers[-1].text) == (503, "x.yaml: unknown key\n")
