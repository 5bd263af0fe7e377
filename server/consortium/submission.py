"""`fedmedformer consortium submit`: starts a run at the SuperLink, or continues one."""

import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from medformer.common.files import replace_file
from medformer.common.toml import toml
from medformer.errors import ConfigError
from medformer.natural.source import weights_file
from server.consortium.bundle import APP_ID, RUN_CONFIG, app_version, write_app
from server.consortium.declarations import RunFile, load_run
from server.consortium.deployment import FEDERATION
from server.consortium.hub import sign, signer_of
from server.consortium.nodes import NODES
from server.consortium.provision import SIGNER
from server.consortium.superlink import SuperLink
from server.protocol import key_id
from server.report.about import FILE as ABOUT
from server.report.about import stated
from server.run.checkpoints import write_json
from server.run.errors import SuperLinkError
from server.run.journal import OUTCOME
from server.run.lock import at_work
from server.watching.runs import note_run

log = logging.getLogger(__name__)

SUBMITTED = "submitted.json"
"""File in a run folder with Flower's id of the newest submission."""


class Ask(Protocol):
    """Runs Flower's own command and returns what it prints; raises SuperLinkError if it fails."""

    def __call__(self, arguments: Sequence[str], cwd: Path | None = None) -> str:
        """Run `flwr` with these arguments, in this working folder."""


def submit(folder: Path, file: Path, out: Path, ask: Ask | None = None) -> str:
    """Start a run, or continue an interrupted one whose folder is there.

    Args:
        folder: Folder of the consortium.
        file: run.yaml.
        out: The run folder.
        ask: Runs Flower's command; the consortium's own SuperLink if left out.
    Returns:
        Flower's id of the run.
    Raises:
        ConfigError: run.yaml cannot be used, the folder holds another run, or what the run needs is
            not installed here.
        SuperLinkError: The SuperLink is not up.
        AuthorityError: The signing key is missing.
    """
    run = load_run(file)
    if run.features == "natural":
        weights_file()  # the server computes the whitening of these features
    server = SuperLink(folder)
    consortium = server.ready()
    ask = ask or server.flwr
    if strangers := sorted(set(run.sites) - set(consortium.sites)):
        raise ConfigError(f"{file}: {strangers[0]} is not a member of {consortium.name}")
    # The folder first: a run that is refused must leave the SuperLink as it was.
    _claim(out, run.federation().model_dump_json(), ask)
    # Not a part of the federation: statements may be corrected while the run trains.
    write_json(out / ABOUT, {**stated(consortium.about), **stated(run.about)})
    _sign_bundle(server, ask)
    config = server.home / "run-config.toml"
    config.write_text(toml(_run_config(folder, run, out)))
    app = f"{APP_ID}=={app_version()}"
    answer = ask(["run", app, "own", "--run-config", str(config), "--format", "json"])
    if not (run_id := str(_parsed(answer).get("run-id") or "")):
        raise SuperLinkError(f"Flower did not take the run: {answer.strip()[-200:]}")
    replace_file(out / SUBMITTED, json.dumps({"flower_run_id": run_id}).encode())
    try:
        note_run(folder, out, file, run_id)
    except OSError as error:  # the run has begun: only `consortium status` misses it
        log.warning("the run is not on the list of consortium status: %s", error)
    return run_id


def attend(folder: Path, file: Path, out: Path, ask: Ask | None = None) -> bool:
    """Start or continue a run, unless it is at work: then it is left alone.

    A follower that was killed comes back by this. To submit the run again would stop it.

    Args:
        folder, file, out, ask: As for `submit`.
    Returns:
        True if the run was submitted.
    Raises:
        MedFormerError: As for `submit`.
    """
    if _holds(file, out) and at_work(out):
        return False
    submit(folder, file, out, ask)
    return True


def is_done(file: Path, out: Path) -> bool:
    """Return True if a run has ended well: submitting it would do its last step again.

    Args:
        file: run.yaml.
        out: The run folder.
    Raises:
        ConfigError: run.yaml cannot be used.
    """
    if not _holds(file, out) or at_work(out):
        return False
    try:
        return bool(json.loads((out / OUTCOME).read_bytes())["outcome"] == "done")
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _holds(file: Path, out: Path) -> bool:
    """Return True if a run folder holds the run of this run.yaml."""
    try:
        return (out / FEDERATION).read_text() == load_run(file).federation().model_dump_json()
    except OSError:
        return False


def _claim(out: Path, federation: str, ask: Ask) -> None:
    """Make the run folder, or take over the one of an earlier submission of the same run."""
    file = out / FEDERATION
    other = file.exists() and file.read_text() != federation
    # A submission that never began has left nothing but this file.
    if other and ((out / "run.json").exists() or at_work(out)):
        raise ConfigError(f"{out}: holds another run; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    _stop_earlier(out, ask)
    replace_file(file, federation.encode())
    # An outcome of the earlier attempt would end `follow` at once.
    (out / "outcome.json").unlink(missing_ok=True)


def _stop_earlier(out: Path, ask: Ask) -> None:
    """Stop what an earlier submission of the same run has left at the SuperLink."""
    try:
        earlier = str(json.loads((out / SUBMITTED).read_bytes())["flower_run_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return
    try:
        ask(["stop", earlier, "own"])
    except SuperLinkError as error:  # it has ended, which is as good
        log.info("run %s needs no end: %s", earlier, error)


def _sign_bundle(server: SuperLink, ask: Ask) -> None:
    """Build the bundle of the code that is installed here, and sign it."""
    home = server.home.absolute()
    # The bundle is made anew, so that it is always the code that is installed now.
    for old in (home / "app", home / "build"):
        shutil.rmtree(old, ignore_errors=True)
    write_app(home / "app")
    (home / "build").mkdir()
    ask(["build", "--app", str(home / "app")], cwd=home / "build")
    (bundle,) = (home / "build").glob("*.fab")
    key = server.folder / SIGNER
    sign(home / "hub", bundle.read_bytes(), key, key_id(signer_of(key)))


def _run_config(folder: Path, run: RunFile, out: Path) -> dict[str, Any]:
    """Return Flower's run config: all paths absolute, all times in seconds."""
    return {
        **RUN_CONFIG,
        "out": str(out.absolute()),
        "deployment": True,
        "nodes": str((folder / NODES).absolute()),
        "approval-wait": 3_600.0 * run.approval_hours,
        "round-deadline": 60.0 * run.round_minutes,
        "round-grace": run.grace_seconds,
        "hello-wait": run.hello_seconds,
        "nodes-wait": run.nodes_seconds,
    }


def _parsed(answer: str) -> dict[str, Any]:
    """Parse the JSON that ends an answer of Flower's command."""
    try:
        found: dict[str, Any] = json.loads(answer[answer.index("{") :])
    except ValueError as error:
        raise SuperLinkError(f"Flower's answer cannot be read: {answer.strip()[-200:]}") from error
    return found
