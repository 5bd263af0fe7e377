"""The two files that an operator writes: consortium.yaml and run.yaml."""

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, StrictFloat, StrictInt, ValidationError, model_validator

from medformer.common.files import replace_file
from medformer.common.yaml_file import explain, parse_yaml, read_yaml
from medformer.config import Domain, Frozen, ModelConfig, Name
from medformer.errors import ConfigError
from medformer.vocabulary import unknown_words
from server.protocol import NAME, spaced
from server.run.federation import Federation, PublicSite
from server.run.recipe import Training

FILE = "consortium.yaml"
TEMPLATE = """\
# What this consortium is. `fedmedformer consortium provision` reads it.
name: {name}

# Names and addresses by which hospitals reach the server; they are in its certificate.
hosts: [{hosts}]

# One port for everything, HTTPS. Hospitals dial out to it; nobody dials a hospital.
port: 9092

# After so many days `provision --rotate server` makes a new certificate; nothing changes at the
# hospitals.
certificate_days: 365

# Members: the site's name, and the fingerprint that `fedmedformer site init` printed there. Let
# them read it to you by telephone; put the request.json they send into requests/NAME.json.
sites: {{}}
#  north: "8c1f 02aa 9b7e 4410 5d3c e0f1 77aa 1b2c"
"""


Fingerprint = Annotated[str, AfterValidator(spaced)]


def _host(text: str) -> str:
    """A name or an address, without a port: it goes into the server's certificate as it is."""
    part = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"  # RFC 1123, 2.1
    named = len(text) <= 253 and re.fullmatch(rf"{part}(\.{part})*", text)
    if named and not re.fullmatch(r"[0-9.]+", text):
        return text
    try:
        return str(ip_address(text))
    except ValueError:
        port = re.fullmatch(r"[A-Za-z0-9.-]+:([0-9]+)", text)
        url = re.match(r"[a-z]+://([^/:]+)", text)
        more = f": write the port as `port: {port[1]}`" if port else ""
        more = f": write {url[1]}" if url else more
        raise ValueError(f"{text!r} is no host name and no IP address{more}") from None


def _dialled(text: str) -> str:
    """A host by which hospitals reach the server."""
    host = _host(text)
    if host in ("0.0.0.0", "::"):
        raise ValueError(f"{text!r} is where a server listens, and nobody can dial it")
    return host


def _member(name: str) -> str:
    """The names under which sites can ask to join."""
    if not re.fullmatch(NAME, name):
        raise ValueError(
            f"{name!r} is no site's name: use 1 to 40 small letters, digits or '-', starting with "
            "a letter or digit"
        )
    return name


class Consortium(Frozen):
    """consortium.yaml."""

    name: Name
    hosts: tuple[Annotated[str, AfterValidator(_dialled)], ...] = Field(min_length=1)
    listen: Annotated[str, AfterValidator(_host)] = "0.0.0.0"
    """Address of this machine that the server listens at."""
    port: StrictInt = Field(default=9092, ge=1, le=65_535)
    health_port: StrictInt = Field(default=9095, ge=1, le=65_535)
    """Of the SuperLink's health service, on this machine only."""
    start_seconds: StrictFloat = Field(default=60, gt=0, le=10_000)
    """In which the SuperLink has to start, and after a submission the run's process; Flower's own
    command may take twice as long to answer."""
    certificate_days: StrictInt = Field(default=365, ge=1, le=825)
    sites: dict[Annotated[str, AfterValidator(_member)], Fingerprint] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _two_ports(self) -> "Consortium":
        if self.port == self.health_port:
            raise ValueError(f"port and health_port are both {self.port}: give another health_port")
        return self

    @model_validator(mode="after")
    def _no_site_is_the_server(self) -> "Consortium":
        if "server" in self.sites:
            raise ValueError("a site cannot be called 'server', which is the server's kit")
        return self


def init(folder: Path, name: str, hosts: tuple[str, ...]) -> Path:
    """Write a commented consortium.yaml.

    Raises:
        ConfigError: There is one already, or the name or a host is impossible.
    """
    file = folder / FILE
    if file.exists():
        raise ConfigError(f"{file}: is there already; edit it, then run provision")
    text = TEMPLATE.format(name=name, hosts=", ".join(hosts))
    try:
        Consortium.model_validate(parse_yaml(text))
    except ValidationError as error:
        raise ConfigError(f"{file}: {explain(error, Consortium)}") from error
    (folder / "requests").mkdir(parents=True, exist_ok=True)
    replace_file(file, text.encode())
    return file


def load(folder: Path) -> Consortium:
    """Read consortium.yaml.

    Raises:
        ConfigError: Missing, not YAML, unknown key, wrong type or value.
    """
    found = read_yaml(folder / FILE, Consortium)
    names: dict[str, str] = {}
    for name, key in found.sites.items():
        if (other := names.setdefault(key, name)) != name:
            raise ConfigError(
                f"{folder / FILE}: sites {other!r} and {name!r} have one fingerprint: each has a "
                "key of its own"
            )
    return found


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
