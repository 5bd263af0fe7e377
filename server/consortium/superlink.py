"""`fedmedformer consortium up|status|stop`: a consortium's server.

The SuperLink keeps its state on disk and admits exactly the nodes whose keys are in the server's
kit. It listens on the loopback address. Nodes reach it through the gateway, which speaks HTTPS with
the certificate of the server's kit; runs are started from this machine. The consortium's folder
holds state.db, nodes.json (name -> node id and key) and flower/ (Flower's home, the signed bundle).
"""

import logging
import secrets
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from medformer.common.files import is_secret, replace_file, write_secret
from medformer.common.locks import locked
from medformer.common.processes import PATIENCE, Supervisor, free_port, is_taken
from medformer.common.systemd import plain
from medformer.errors import ConfigError
from server.consortium import flwr
from server.consortium.declarations import FILE, Consortium, load
from server.consortium.gateway import gateway
from server.consortium.hub import hub
from server.consortium.nodes import Admission
from server.consortium.provision import check_certificate
from server.consortium.serving import Serving
from server.run.errors import SuperLinkError
from server.watching.seen import UP, Ear

log = logging.getLogger(__name__)

FOLLOW_SECONDS = 2.0
"""Seconds between two looks at the keys in the server's kit while the server is up."""


def healthy(port: int) -> bool:
    """Return whether a SuperLink's health service on this machine says that it serves.

    Args:
        port: Port of the health service.
    """
    from medformer.common.health import SERVING, ask

    return ask(f"127.0.0.1:{port}", timeout=2) == SERVING


@dataclass(frozen=True)
class SuperLink:
    """A consortium's server, in the folder that `provision` has prepared."""

    folder: Path
    """Folder of the consortium."""

    @property
    def home(self) -> Path:
        """Flower's home: its configuration, the signed bundle, secrets of the processes."""
        return self.folder / "flower"

    @property
    def kit(self) -> Path:
        """The server's kit."""
        return (self.folder / "kits" / "server").absolute()

    @property
    def secret(self) -> Path:
        """The secret that SuperLink and executor share, made anew at every start."""
        return self.home / "executor.secret"

    def ready(self) -> Consortium:
        """Read consortium.yaml, if the folder is provisioned.

        Raises:
            ConfigError: The server's key is missing or can be read by others, or consortium.yaml
                cannot be used.
        """
        key = self.kit / "server.key"
        if not is_secret(key):
            raise ConfigError(
                f"{key}: is missing, or others can read it: fedmedformer consortium provision "
                f"{self.folder}"
            )
        return load(self.folder)

    def up(
        self,
        patience: float = PATIENCE,
        supervisor: Callable[..., Supervisor] = Supervisor,
    ) -> None:
        """Serve until SIGTERM or SIGINT, and admit the nodes that the server's kit names.

        Args:
            patience: Seconds for the health port to become free, if an earlier server still ends.
            supervisor: Keeps Flower's processes running.
        Raises:
            SuperLinkError: It does not start, or dies, is up already, or its port is taken.
            ServingError: The port is taken.
            ConfigError: The folder is not provisioned.
        """
        consortium = self.ready()
        plain(self.folder)  # Flower puts the path of its database into a URL
        check_certificate(self.folder, consortium)
        with _only_server(self.folder, patience):
            self._serve(consortium, patience, supervisor)

    def _serve(
        self, consortium: Consortium, patience: float, supervisor: Callable[..., Supervisor]
    ) -> None:
        """Serve, as the only server of this folder."""
        if is_taken(consortium.health_port, patience):
            raise SuperLinkError(
                f"port {consortium.health_port} of this machine is taken, perhaps by another "
                f"consortium's server: give another health_port in {self.folder / FILE}, and "
                "provision again"
            )
        (self.home / "empty").mkdir(parents=True, exist_ok=True)
        inner = self._inner_port()
        flwr.connect(self.home, inner, self.kit / "ca.crt")
        apps = Serving(hub(self.home / "hub"), "127.0.0.1")
        tls = self.kit / "server.crt", self.kit / "server.key"
        ear, authority = Ear(self.folder), str(self.kit / "ca.crt")
        to_superlink = gateway(f"https://127.0.0.1:{inner}", authority, heard=ear.heard)
        entrance = None  # its address may be taken, and then the hub still has to be closed
        try:
            entrance = Serving(to_superlink, consortium.listen, consortium.port, tls=tls)
            watch = _Watch(self, consortium, apps, entrance, ear)
            self._supervise(inner, watch, supervisor)
        finally:
            for serving in filter(None, (entrance, apps)):
                serving.close()

    def _supervise(self, inner: int, watch: "_Watch", make: Callable[..., Supervisor]) -> None:
        """Keep Flower's processes running until a signal comes."""
        hub_url = f"http://127.0.0.1:{watch.apps.port}"
        environment = {**flwr.environment(self.home), "FLWR_SUPERGRID_API_URL": hub_url}
        self.secret.unlink(missing_ok=True)
        write_secret(self.secret, secrets.token_bytes(32))
        commands = self.commands(watch.consortium, inner)
        # An empty working folder: Flower imports from there first.
        options = {"env": environment, "cwd": self.home / "empty"}
        supervisor = make(commands, self.folder / "logs", dict.fromkeys(commands, options))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: supervisor.stop())
        supervisor.run(on_tick=watch.tick)

    def commands(self, consortium: Consortium, inner: int) -> dict[str, list[str]]:
        """Return Flower's command lines, by the name of the process.

        The SuperLink itself listens on the loopback address only. The executor, which starts the
        ServerApps, is a process apart, so that the supervisor starts it again when it ends: a
        SuperLink would not notice.

        Args:
            consortium: As consortium.yaml has it.
            inner: Port of the SuperLink on the loopback address.
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

    def _inner_port(self) -> int:
        """Return the SuperLink's port: the same at every start, so that its clients find it."""
        file = self.home / "port"
        try:
            port = int(file.read_text())
        except (OSError, ValueError):
            port = 0
        # Another program may have taken the port while the server was down.
        if not port or is_taken(port, patience=0):
            port = free_port()
            replace_file(file, str(port).encode())
        return port

    def flwr(self, arguments: Sequence[str], cwd: Path | None = None) -> str:
        """Run Flower's own command against this SuperLink, and return what it prints.

        Args:
            arguments: Arguments of `flwr`.
            cwd: Working folder of the command.
        Raises:
            SuperLinkError: The command fails, gives no answer in time, or the SuperLink is not up.
        """
        # The command starts Python and waits for the SuperLink.
        seconds = 2 * load(self.folder).start_seconds
        try:
            done = flwr.flwr(arguments, flwr.environment(self.home), cwd, seconds)
        except subprocess.TimeoutExpired as error:
            raise SuperLinkError(
                f"flwr {arguments[0]} gave no answer in {seconds:g} s (twice start_seconds in "
                f"{self.folder / FILE}): is this machine, or the SuperLink, too busy?"
            ) from error
        # Flower prints its errors to either stream; the last line has the reason.
        if done.returncode:
            lines = (done.stdout + done.stderr).strip().splitlines()
            raise SuperLinkError(
                f"flwr {arguments[0]} failed: {lines[-1] if lines else 'no word'}. Is the "
                f"SuperLink up (fedmedformer consortium up {self.folder})?"
            )
        return done.stdout

    def check_health(self, serves: Callable[[int], bool] = healthy) -> None:
        """Check that the SuperLink serves, and that hospitals reach it through the gateway.

        Args:
            serves: Asks the health service at a port of this machine.
        Raises:
            SuperLinkError: One of them does not serve.
        """
        consortium = load(self.folder)
        port = consortium.health_port
        if not serves(port):
            raise SuperLinkError(
                f"the SuperLink does not serve (health at 127.0.0.1:{port}): fedmedformer "
                f"consortium up {self.folder}"
            )
        if why := gateway_fault(consortium, self.kit / "ca.crt"):
            raise SuperLinkError(
                f"the SuperLink serves, but hospitals do not reach it at port {consortium.port}: "
                f"{why}; see what fedmedformer consortium up {self.folder} says"
            )


@contextmanager
def _only_server(folder: Path, patience: float) -> Iterator[None]:
    """Hold the lock by which `status` knows that the server is up."""
    with ExitStack() as held:
        try:
            held.enter_context(locked(folder / UP, max_wait=patience))
        except TimeoutError as error:
            raise SuperLinkError(
                f"the server of {folder} is up already: fedmedformer consortium status {folder}"
            ) from error
        yield


class _Watch:
    """Watches a server while it is up: first that it starts, then who is admitted.

    Args:
        server: The server.
        consortium: As consortium.yaml has it.
        apps: The hub, from which the SuperLink takes the app bundle.
        entrance: The gateway, through which hospitals come.
        ear: Remembers which nodes it has heard.
    """

    def __init__(
        self,
        server: SuperLink,
        consortium: Consortium,
        apps: Serving,
        entrance: Serving,
        ear: Ear,
    ) -> None:
        self.apps = apps
        self._ear = ear
        self._entrance = entrance
        self.consortium = consortium
        self._folder = server.folder
        self._nodes = Admission(server.folder, server.flwr)
        self._began = time.monotonic()
        self._started = False
        self._due = 0.0

    def tick(self) -> None:
        """Look once; the supervisor calls this several times a second.

        Raises:
            SuperLinkError: The SuperLink does not start, or gateway or hub has ended.
        """
        if not (self._entrance.serves and self.apps.serves):
            raise SuperLinkError("the server's own gateway has ended; start it again")
        if not self._started:
            self._look_for_the_start()
        elif time.monotonic() > self._due:
            self._nodes.follow()
            self._write_seen()
            self._due = time.monotonic() + FOLLOW_SECONDS

    def _write_seen(self) -> None:
        """Write down who was heard; a failure is no reason to stop serving."""
        try:
            self._ear.write(self._nodes.wanted())
        except (OSError, ValueError) as error:
            log.warning("when nodes were last seen cannot be written: %s", error)

    def _look_for_the_start(self) -> None:
        wait = self.consortium.start_seconds
        if healthy(self.consortium.health_port):
            self._started = True
            log.info("serving at %s:%d", self.consortium.hosts[0], self.consortium.port)
        elif time.monotonic() - self._began > wait:
            raise SuperLinkError(
                f"the SuperLink does not start within {wait:g} s (start_seconds in "
                f"{self._folder / FILE}); see {self._folder / 'logs' / 'superlink.log'}"
            )


def gateway_fault(consortium: Consortium, authority: Path) -> str:
    """Return what is wrong with the hospitals' way to the server, asked on this machine.

    Args:
        consortium: As consortium.yaml has it.
        authority: Certificate file against which the server's certificate is checked, as hospitals
            do.
    Returns:
        A reason; empty if hospitals get through.
    """
    # "Any address" is where a server listens; a client has to name one.
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
