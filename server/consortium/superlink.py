"""`fedmedformer consortium up|submit|status|stop`: a consortium's SuperLink and its runs.

The SuperLink keeps its state on the disk and lets in the nodes whose keys are in the server's kit,
and no others. It listens on the loopback address; nodes reach it through the gateway, which speaks
HTTPS with the certificate of the server's kit. Runs are begun from this machine, by whoever can
reach that address there. In the consortium's folder: state.db, nodes.json (name -> node id and
key), flower/ (Flower's home, the signed bundle).
"""

import json
import logging
import os
import re
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from pydantic import Field, StrictFloat, StrictInt, ValidationError, model_validator

from medformer.common.files import is_secret, replace_file, write_secret
from medformer.common.processes import Supervisor, free_port, is_taken
from medformer.common.systemd import plain
from medformer.common.toml import quoted, toml
from medformer.common.yaml_file import explain, read_yaml
from medformer.config import Domain, ModelConfig, Name
from medformer.errors import ConfigError
from medformer.words import unknown_words
from server.consortium.bundle import APP_ID, RUN_CONFIG, VERSION, write_app
from server.consortium.deployment import FEDERATION
from server.consortium.following import at_work
from server.consortium.gateway import gateway
from server.consortium.hub import hub, sign, signer_of
from server.consortium.nodes import NODES, Admission
from server.consortium.provision import FILE, SIGNER, Consortium, check_certificate, load
from server.consortium.serving import Serving
from server.protocol import FLOWER_SWITCHES, NAME, key_id
from server.run.errors import SuperLinkError
from server.run.federation import Federation, PublicSite
from server.run.recipe import Training

log = logging.getLogger(__name__)

FOLLOW_SECONDS = 2.0
"""Between looks at the keys in the server's kit, while it is up."""
SUBMITTED = "submitted.json"
"""In a run folder: Flower's id of the newest submission."""


class RunFile(Training):
    """run.yaml: what a consortium has agreed to train."""

    spare_rounds: StrictInt = Field(default=1, ge=0)
    sites: dict[Name, Domain] = Field(min_length=1)
    """Members that take part, and the kind of image that each declares."""
    approval_hours: StrictFloat = Field(default=48, ge=0, le=1_000)
    """Hours to wait for the sites' people to say yes, and for the hours at which they train."""
    quorum: StrictInt | None = Field(default=None, ge=1)
    """Updates that make a round; more than half of the sites if left out. The others may be late,
    away, or join later."""
    round_minutes: StrictFloat = Field(default=60, gt=0, le=10_000)
    """In which a round has to find its quorum; else the run stops, to be submitted again."""
    grace_seconds: StrictFloat = Field(default=60, ge=0, le=100_000)
    """That the other sites have once a quorum has answered."""
    nodes_seconds: StrictFloat = Field(default=120, gt=0, le=100_000)
    """In which a quorum of nodes has to be there when a run begins; else it stops."""
    hello_seconds: StrictFloat = Field(default=120, gt=0, le=100_000)
    """In which a node has to say whose it is; its first answer starts a process."""

    @model_validator(mode="after")
    def _makes_a_federation(self) -> "RunFile":
        for name in self.sites:
            if not re.fullmatch(NAME, name):
                raise ValueError(
                    f"{name!r} is no member's name: use small letters, digits and '-', as in {FILE}"
                )
        try:
            self.federation()
        except ValidationError as error:
            raise ValueError(explain(error, Federation).removesuffix(".")) from error
        return self

    def federation(self) -> Federation:
        """As all sites may read it."""
        domains = list(self.sites.values())
        model = ModelConfig.for_domains(domains, self.preset)
        return Federation(
            name=self.name,
            seed=self.seed,
            model=model.between(domains if self.concepts else []),
            schedule=self.schedule_of(self.phases_for(domains), self.spare_rounds),
            pretraining=self.pretraining,
            sites=tuple(PublicSite(name=n, domain=d) for n, d in self.sites.items()),
            server_momentum=self.server_momentum,
            server_learning_rate=self.server_learning_rate,
            quorum=self.quorum or len(self.sites) // 2 + 1,
        )


def load_run(path: Path) -> RunFile:
    """Read and check a run.yaml.

    Raises:
        ConfigError: Missing, not YAML, unknown key, wrong type or value.
    """
    run = read_yaml(path, RunFile)
    for name, domain in run.sites.items():
        for unknown in unknown_words(domain):
            raise ConfigError(f"{path}: sites: {name}: {unknown}")
    return run


@dataclass(frozen=True)
class SuperLink:
    """A consortium's folder, as `provision` leaves it."""

    folder: Path

    def up(self) -> None:
        """Serve until SIGTERM or SIGINT; nodes are let in and out as the kit says.

        Raises:
            SuperLinkError: It does not start, or dies, or its health port is taken.
            ServingError: The port is taken.
            ConfigError: The folder is not provisioned.
        """
        consortium = self._ready()
        plain(self.folder)  # Flower puts the path of its database into a URL
        check_certificate(self.folder, consortium)
        if is_taken(consortium.health_port):
            raise SuperLinkError(
                f"port {consortium.health_port} of this machine is taken, perhaps by another "
                f"consortium's server: give another health_port in {self.folder / FILE}, and "
                "provision again"
            )
        home = self.folder / "flower"
        (home / "empty").mkdir(parents=True, exist_ok=True)
        inner = self._inner_port()
        self._connect(inner)
        apps = Serving(hub(home / "hub"), "127.0.0.1")
        tls = self.kit / "server.crt", self.kit / "server.key"
        passed_on = gateway(f"https://127.0.0.1:{inner}", str(self.kit / "ca.crt"))
        door = None
        try:
            door = Serving(passed_on, consortium.listen, consortium.port, tls=tls)
            self._supervise(consortium, inner, apps, door)
        finally:
            for serving in filter(None, (door, apps)):
                serving.close()

    def _supervise(self, consortium: Consortium, inner: int, apps: Serving, door: Serving) -> None:
        """Keep Flower's processes running until a signal comes."""
        hub_url = f"http://127.0.0.1:{apps.port}"
        environment = {**self._environment(), "FLWR_SUPERGRID_API_URL": hub_url}
        self.secret.unlink(missing_ok=True)
        write_secret(self.secret, secrets.token_bytes(32))
        commands = self.commands(consortium, inner)
        options = {"env": environment, "cwd": self.folder / "flower" / "empty"}
        supervisor = Supervisor(commands, self.folder / "logs", dict.fromkeys(commands, options))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: supervisor.stop())
        began, open_, due = time.monotonic(), False, 0.0
        nodes = Admission(self.folder, self.flwr)

        def look() -> None:
            nonlocal open_, due
            if not (door.serves and apps.serves):
                raise SuperLinkError("the server's own door has ended; start it again")
            if open_:
                if time.monotonic() > due:
                    nodes.follow()
                    due = time.monotonic() + FOLLOW_SECONDS
                return
            if healthy(consortium.health_port):
                open_ = True
                log.info("serving at %s:%d", consortium.hosts[0], consortium.port)
            elif time.monotonic() - began > consortium.start_seconds:
                raise SuperLinkError(
                    f"the SuperLink does not start within {consortium.start_seconds:g} s "
                    f"(start_seconds in {self.folder / FILE}); see "
                    f"{self.folder / 'logs' / 'superlink.log'}"
                )

        supervisor.run(on_tick=look)

    def commands(self, consortium: Consortium, inner: int) -> dict[str, list[str]]:
        """Flower's command lines; the SuperLink itself listens on the loopback address only.

        What starts the ServerApps is a process of its own, so that it is started again when it
        ends: a SuperLink would not notice.
        """
        kit = self.kit
        tools = Path(sys.executable).parent
        secret = ["--superexec-auth-secret-file", str(self.secret.absolute())]
        superlink = [
            str(tools / "flower-superlink"),
            "--ssl-certfile", str(kit / "server.crt"),
            "--ssl-keyfile", str(kit / "server.key"),
            "--ssl-ca-certfile", str(kit / "ca.crt"),
            "--enable-supernode-auth",
            "--database", str((self.folder / "state.db").absolute()),
            "--host", "127.0.0.1", "--port", str(inner),
            "--isolation", "process", *secret,
            "--health-server-address", f"127.0.0.1:{consortium.health_port}",
            "--disable-runtime-dependency-installation",
        ]  # fmt: skip
        executor = [
            str(tools / "flower-superexec"),
            "--root-certificates", str(kit / "ca.crt"),
            "--runtime-api-address", f"127.0.0.1:{inner}", *secret,
        ]  # fmt: skip
        return {"superlink": superlink, "executor": executor}

    @property
    def secret(self) -> Path:
        """What SuperLink and executor know each other by; another one at every start."""
        return self.folder / "flower" / "executor.secret"

    def _inner_port(self) -> int:
        """The SuperLink's own: the same at every start, so that who dials it finds it again."""
        file = self.folder / "flower" / "port"
        try:
            port = int(file.read_text())
        except (OSError, ValueError):
            port = 0
        if not port or is_taken(port, patience=0):
            port = free_port()
            replace_file(file, str(port).encode())
        return port

    @property
    def kit(self) -> Path:
        """The server's."""
        return (self.folder / "kits" / "server").absolute()

    def submit(self, file: Path, out: Path) -> str:
        """Begin a run, or go on with one that was interrupted, whose folder is there.

        Returns:
            Flower's id of it.
        Raises:
            ConfigError: run.yaml cannot be used, or the folder is of another run.
            SuperLinkError: The SuperLink is not up.
        """
        run, consortium = load_run(file), self._ready()
        if strangers := sorted(set(run.sites) - set(consortium.sites)):
            raise ConfigError(f"{file}: {strangers[0]} is no member of {consortium.name}")
        text = run.federation().model_dump_json()
        federation = out / FEDERATION
        other = federation.exists() and federation.read_text() != text
        # A submission that never began has left nothing but this file.
        if other and ((out / "run.json").exists() or at_work(out)):
            raise ConfigError(f"{out}: holds another run; choose another folder")
        out.mkdir(parents=True, exist_ok=True)
        self._stop_earlier(out)
        replace_file(federation, text.encode())
        (out / "outcome.json").unlink(missing_ok=True)
        self._sign()
        config = self.folder / "flower" / "run-config.toml"
        values = {
            **RUN_CONFIG,
            "out": str(out.absolute()),
            "deployment": True,
            "nodes": str((self.folder / NODES).absolute()),
            "approval-wait": 3_600.0 * run.approval_hours,
            "round-deadline": 60.0 * run.round_minutes,
            "round-grace": run.grace_seconds,
            "hello-wait": run.hello_seconds,
            "nodes-wait": run.nodes_seconds,
        }
        config.write_text(toml(values))
        app = f"{APP_ID}=={VERSION}"
        answer = self.flwr(["run", app, "own", "--run-config", str(config), "--format", "json"])
        if not (run_id := str(_parsed(answer).get("run-id") or "")):
            raise SuperLinkError(f"Flower did not take the run: {answer.strip()[-200:]}")
        replace_file(out / SUBMITTED, json.dumps({"flower_run_id": run_id}).encode())
        return run_id

    def _stop_earlier(self, out: Path) -> None:
        """End what an earlier submission of the same run has left at the SuperLink."""
        try:
            earlier = str(json.loads((out / SUBMITTED).read_bytes())["flower_run_id"])
        except (OSError, ValueError, KeyError, TypeError):
            return
        try:
            self.flwr(["stop", earlier, "own"])
        except SuperLinkError as error:
            log.info("run %s needs no end: %s", earlier, error)

    def _sign(self) -> None:
        """Make the bundle of what is installed here, and sign it.

        Raises:
            AuthorityError: The signing key is not there.
        """
        home = (self.folder / "flower").absolute()
        for old in (home / "app", home / "build"):
            shutil.rmtree(old, ignore_errors=True)
        write_app(home / "app")
        (home / "build").mkdir()
        self.flwr(["build", "--app", str(home / "app")], cwd=home / "build")
        (bundle,) = (home / "build").glob("*.fab")
        key = self.folder / SIGNER
        sign(home / "hub", bundle.read_bytes(), key, key_id(signer_of(key)))

    def flwr(self, arguments: Sequence[str], cwd: Path | None = None) -> str:
        """Ask Flower's own command.

        Raises:
            SuperLinkError: It says no, gives no answer in time, or is not up.
        """
        seconds = 2 * load(self.folder).start_seconds
        try:
            done = subprocess.run(
                [str(Path(sys.executable).parent / "flwr"), *arguments],
                env=self._environment(), capture_output=True, text=True, timeout=seconds,
                check=False, cwd=cwd,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise SuperLinkError(
                f"flwr {arguments[0]} gave no answer in {seconds:g} s (twice start_seconds in "
                f"{self.folder / FILE}): is this machine, or the SuperLink, too busy?"
            ) from error
        if done.returncode:
            said = (done.stdout + done.stderr).strip().splitlines()
            raise SuperLinkError(
                f"flwr {arguments[0]} failed: {said[-1] if said else 'no word'}. Is the SuperLink "
                f"up (fedmedformer consortium up {self.folder})?"
            )
        return done.stdout

    def check_health(self) -> None:
        """Ask its health service, and the door through which hospitals come, as units do.

        Raises:
            SuperLinkError: One of them does not serve.
        """
        consortium = load(self.folder)
        port = consortium.health_port
        if not healthy(port):
            raise SuperLinkError(
                f"the SuperLink does not serve (health at 127.0.0.1:{port}): fedmedformer "
                f"consortium up {self.folder}"
            )
        if why := closed_door(consortium, self.kit / "ca.crt"):
            raise SuperLinkError(
                f"the SuperLink serves, but hospitals do not reach it at port {consortium.port}: "
                f"{why}; see what fedmedformer consortium up {self.folder} says"
            )

    def _ready(self) -> Consortium:
        key = self.folder / "kits" / "server" / "server.key"
        if not is_secret(key):
            raise ConfigError(
                f"{key}: is missing, or others can read it: fedmedformer consortium provision "
                f"{self.folder}"
            )
        return load(self.folder)

    def _connect(self, inner: int) -> None:
        """How Flower's command reaches this SuperLink: on this machine only."""
        text = (
            '[superlink]\ndefault = "own"\n\n[superlink.own]\n'
            f'address = "127.0.0.1:{inner}"\n'
            f"root-certificates = {quoted(str(self.kit / 'ca.crt'))}\n"
        )
        replace_file(self.folder / "flower" / "config.toml", text.encode())

    def _environment(self) -> dict[str, str]:
        here = "127.0.0.1,localhost"  # everything of Flower's is on this machine
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("FLWR_", "FLOWER_"))}
        return {
            **kept,
            "no_proxy": here,
            "NO_PROXY": here,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "FLWR_HOME": str((self.folder / "flower").absolute()),
            **FLOWER_SWITCHES,
        }


def closed_door(consortium: Consortium, authority: Path) -> str:
    """What is wrong with the way that hospitals come, asked on this machine; empty if nothing is.

    Args:
        authority: Certificate that the server's is held against, as hospitals do.
    """
    any_ = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    listens = any_.get(consortium.listen, consortium.listen)
    host = f"[{listens}]" if ":" in listens else listens
    try:
        context = ssl.create_default_context(cafile=str(authority))
        with httpx.Client(verify=context, trust_env=False, timeout=5) as client:
            answer = client.get(
                f"https://{host}:{consortium.port}/health",
                extensions={"sni_hostname": consortium.hosts[0]},
            )
    except (httpx.HTTPError, OSError) as error:
        return str(error)
    return "" if answer.status_code == 200 else f"HTTP {answer.status_code}"


def healthy(port: int) -> bool:
    """Whether a SuperLink serves on this machine; its health service has no TLS."""
    from medformer.common.health import SERVING, ask

    return ask(f"127.0.0.1:{port}", timeout=2) == SERVING


def _parsed(answer: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(answer[answer.index("{") :])
    except ValueError as error:
        raise SuperLinkError(f"Flower's answer cannot be read: {answer.strip()[-200:]}") from error
    return found
