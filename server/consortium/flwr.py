"""Runs Flower's own command, with the environment of a SuperLink that we have started.

A user's own settings of Flower and Ray are kept out. `flwr` finds the SuperLink in the file
config.toml of its home, under the name `own`.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from medformer.common.files import replace_file
from medformer.common.toml import quoted
from server.protocol import FLOWER_SWITCHES

LOOPBACK = "127.0.0.1,localhost"
"""Addresses that are never asked through a proxy: all of Flower's processes are on this machine."""


def inherited(given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables that Flower's processes inherit: none that configure Flower or Ray.

    A user's RAY_ADDRESS would make simulated sites train in another cluster, whose machines would
    see their records.

    Args:
        given: The environment of this process.
    """
    return {k: v for k, v in given.items() if not k.startswith(("RAY_", "FLWR_", "FLOWER_"))}


def environment(home: Path, given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Build the environment of Flower's processes.

    Args:
        home: Flower's home, where it keeps its configuration and its apps.
        given: The environment of this process.
    """
    # Tools disagree on which spelling counts: both get the same value.
    past = given.get("no_proxy") or given.get("NO_PROXY") or ""
    no_proxy = ",".join(filter(None, (past, LOOPBACK)))
    return {
        **inherited(given),
        **FLOWER_SWITCHES,
        "FLWR_HOME": str(home.absolute()),
        "no_proxy": no_proxy,
        "NO_PROXY": no_proxy,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{given.get('PATH', '')}",
    }


def connect(home: Path, port: int, authority: Path | None = None) -> None:
    """Write the file in which Flower's command finds our SuperLink.

    Args:
        home: Flower's home.
        port: Port of the SuperLink on the loopback address.
        authority: Certificate file of its authority; None for a SuperLink without TLS.
    """
    # A simulation's SuperLink has no TLS: it listens on the loopback address alone.
    trust = (
        "insecure = true" if authority is None else f"root-certificates = {quoted(str(authority))}"
    )
    text = (
        f'[superlink]\ndefault = "own"\n\n[superlink.own]\naddress = "127.0.0.1:{port}"\n{trust}\n'
    )
    replace_file(home / "config.toml", text.encode())


def flwr(
    arguments: Sequence[str], environment: Mapping[str, str], cwd: Path | None, seconds: float
) -> "subprocess.CompletedProcess[str]":
    """Run Flower's command and return what it printed.

    Args:
        arguments: Arguments of `flwr`.
        environment: As `environment` builds it.
        cwd: Working folder; None keeps the present one.
        seconds: Time in which it has to answer.
    Raises:
        subprocess.TimeoutExpired: It gives no answer in time.
    """
    # By its full path: another installation's `flwr` could come first in PATH.
    return subprocess.run(
        [str(Path(sys.executable).parent / "flwr"), *arguments],
        env=environment, cwd=cwd, capture_output=True, text=True, timeout=seconds, check=False,
    )  # fmt: skip
