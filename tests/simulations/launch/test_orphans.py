"""Stopping a run: whoever carries its token, and whoever those started."""

import os
import subprocess
import sys
import uuid

import psutil

from simulations.launch import orphans as processes

CHILD = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(60)
"""
PARENT = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], env={{}}, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_child_that_hides_its_environment_and_ignores_sigterm_is_stopped():
    """Ray's agents do both, and outlived an interrupted run by a minute."""
    token = uuid.uuid4().hex
    environment = {**os.environ, processes.TOKEN: token}
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], env=environment, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert processes.belonging_to(token) == {psutil.Process(parent.pid), child}
        assert processes.stop(token, patience=0.5) == []
        assert not processes.alive(child)


def test_strangers_are_left_alone():
    """Another run's token finds nobody."""
    assert processes.belonging_to(uuid.uuid4().hex) == set()
