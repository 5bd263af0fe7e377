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
from medformer.extensions.code import sources
from medformer.vocabulary import unknown_words
from server.protocol import NAME, Schedule, spaced
from server.protocol.record_counts import Statistics
from server.report.about import About
from server.run.federation import Federation, PublicSite
from server.run.recipes.declared import Declared
from server.run.recipes.training import Training

FILE = "consortium.yaml"
TEMPLATE = """\
# This file describes the consortium. `fedmedformer consortium provision` reads it.
name: {name}

# Names and addresses by which hospitals reach the server. Its certificate names them.
hosts: [{hosts}]

# The server's only port, HTTPS. Hospitals connect to it; nobody connects to a hospital.
port: 9092

# Days for which the server's certificate is valid. `provision --rotate server` makes a new one;
# nothing changes at the hospitals.
certificate_days: 365

# Members: the site's name, and the fingerprint that `fedmedformer site init` printed there. Let
# them read it to you by telephone. Save the request.json that they send as requests/NAME.json.
sites: {{}}
#  north: "8c1f 02aa 9b7e 4410 5d3c e0f1 77aa 1b2c"

# The members' guards, which sign what leaves a hospital: what `fedmedformer site guard-key` printed
# there, by telephone. They stand in every kit, so that `verify --kit` knows them.
guards: {{}}
"""


Fingerprint = Annotated[str, AfterValidator(spaced)]


def _host(text: str) -> str:
    """Check a name or an address without a port: the server's certificate names it as it is."""
    part = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"  # RFC 1123, 2.1
    named = len(text) <= 253 and re.fullmatch(rf"{part}(\.{part})*", text)
    # Digits and dots alone are an address, or a mistake in one.
    if named and not re.fullmatch(r"[0-9.]+", text):
        return text
    try:
        return str(ip_address(text))
    except ValueError:
        # The two most common mistakes get their own advice.
        port = re.fullmatch(r"[A-Za-z0-9.-]+:([0-9]+)", text)
        url = re.match(r"[a-z]+://([^/:]+)", text)
        more = f": write the port as `port: {port[1]}`" if port else ""
        more = f": write {url[1]}" if url else more
        raise ValueError(f"{text!r} is neither a host name nor an IP address{more}") from None


def _dialled(text: str) -> str:
    """Check a host by which hospitals reach the server."""
    host = _host(text)
    if host in ("0.0.0.0", "::"):
        raise ValueError(f"{text!r} is an address to listen at, which hospitals cannot connect to")
    return host


def _member(name: str) -> str:
    """Check the name of a site, as a request to join must have it."""
    if not re.fullmatch(NAME, name):
        raise ValueError(
            f"{name!r} cannot be a site's name: use 1 to 40 small letters, digits or '-', starting "
            "with a letter or digit"
        )
    return name


class Consortium(Frozen):
    """The content of consortium.yaml."""

    name: Name
    """Name of the consortium."""
    hosts: tuple[Annotated[str, AfterValidator(_dialled)], ...] = Field(min_length=1)
    """Names and addresses by which hospitals reach the server. Its certificate names them."""
    listen: Annotated[str, AfterValidator(_host)] = "0.0.0.0"
    """Address of this machine at which the server listens."""
    port: StrictInt = Field(default=9092, ge=1, le=65_535)
    """The server's only port for hospitals, HTTPS."""
    health_port: StrictInt = Field(default=9095, ge=1, le=65_535)
    """Port of the SuperLink's health page, on this machine only."""
    start_seconds: StrictFloat = Field(default=60, gt=0, le=10_000)
    """Seconds in which the SuperLink has to start, and in which a submitted run's process has to
    start. Flower's own command may take twice as long to answer."""
    certificate_days: StrictInt = Field(default=365, ge=1, le=825)
    """Days for which the server's certificate is valid."""
    sites: dict[Annotated[str, AfterValidator(_member)], Fingerprint] = Field(default_factory=dict)
    """Members: the fingerprint of each site's key, as the hospital read it out, by its name."""
    guards: dict[Annotated[str, AfterValidator(_member)], Fingerprint] = Field(default_factory=dict)
    """Fingerprints of the members' guards (`fedmedformer site guard-key`), by telephone. Every kit
    names them, for `fedmedformer verify --kit`."""
    about: About = About()
    """Statements on all runs that people have to make: controllers, purpose, why this epsilon. The
    report of each run shows them. See docs/howto/report.md."""

    @model_validator(mode="after")
    def _two_ports(self) -> "Consortium":
        if self.port == self.health_port:
            raise ValueError(f"port and health_port are both {self.port}: give another health_port")
        return self

    @model_validator(mode="after")
    def _guards_of_members(self) -> "Consortium":
        if strangers := sorted(set(self.guards) - set(self.sites)):
            raise ValueError(
                f"guards: {strangers[0]!r} is no member: add it to sites, or remove it"
            )
        return self

    @model_validator(mode="after")
    def _no_site_is_the_server(self) -> "Consortium":
        if "server" in self.sites:
            raise ValueError("a site cannot be called 'server', which is the server's kit")
        return self


def init(folder: Path, name: str, hosts: tuple[str, ...]) -> Path:
    """Write a commented consortium.yaml.

    Args:
        folder: Folder of the consortium; made if missing.
        name: Name of the consortium.
        hosts: Names and addresses of the server.
    Returns:
        The file.
    Raises:
        ConfigError: There is one already, or the name or a host is impossible.
    """
    file = folder / FILE
    if file.exists():
        raise ConfigError(f"{file}: exists already; edit it, then run provision")
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

    Args:
        folder: Folder of the consortium.
    Raises:
        ConfigError: Missing, not YAML, unknown key, wrong type or value.
    """
    found = read_yaml(folder / FILE, Consortium)
    # One key for two names: one hospital could speak for the other.
    names: dict[str, str] = {}
    for name, key in found.sites.items():
        if (other := names.setdefault(key, name)) != name:
            raise ConfigError(
                f"{folder / FILE}: sites {other!r} and {name!r} have the same fingerprint: each "
                "site needs its own key"
            )
    return found


class Member(Domain):
    """A member of a run: the kind of its images, and the numbers that it has told everyone.

    The recipe is chosen from them. A wrong number costs utility and no privacy: batches and noise
    follow from the member's own site.yaml.
    """

    n_public: StrictInt | None = Field(default=None, ge=1)
    """Declared number of units (images or patients)."""
    n_labelled: StrictInt | None = Field(default=None, ge=0)
    """Declared number of units with a label, if fewer; 0 if none has one."""
    epsilon: StrictFloat | None = Field(default=None, gt=0)
    """Epsilon that the member will spend on the run."""
    delta: StrictFloat | None = Field(default=None, gt=0, lt=1)
    """Delta of the run."""

    @property
    def domain(self) -> Domain:
        """Kind of the images alone, which model and sites compare."""
        return Domain.model_validate({name: getattr(self, name) for name in Domain.model_fields})

    @property
    def declared(self) -> Declared:
        """Everything from which the recipe is chosen."""
        numbers = Declared.model_fields.keys() & Member.model_fields.keys() - Domain.model_fields
        return Declared(domain=self.domain, **{name: getattr(self, name) for name in numbers})


TRAINED = (
    *sorted(Training.model_fields.keys() - {"name", "seed", "preset", "pretraining"}),
    "spare_rounds",
)
"""Keys of run.yaml that mean nothing in a run that asks for statistics."""


class RunFile(Training):
    """The content of run.yaml: what a consortium has agreed to train, or to count."""

    statistics: Statistics | None = None
    """Count the sites' records, with noise, and train nothing. See docs/howto/statistics.md."""
    spare_rounds: StrictInt = Field(default=1, ge=0)
    """Rounds that are added to the schedule for sites that miss some; their privacy is paid for."""
    sites: dict[Name, Member] = Field(min_length=1)
    """Members that take part, and what each of them declares."""
    about: About = About()
    """Statements on this run, beside those in consortium.yaml, which they replace one by one."""
    approval_hours: StrictFloat = Field(default=48, ge=0, le=1_000)
    """Hours to wait for the sites' approvals, and for the hours in which they train."""
    quorum: StrictInt | None = Field(default=None, ge=1)
    """Updates that complete a round; more than half of the sites if left out. The other sites may
    be late, be away, or join later."""
    round_minutes: StrictFloat = Field(default=60, gt=0, le=10_000)
    """Minutes in which a round has to reach its quorum; otherwise the run stops, and can be
    submitted again."""
    grace_seconds: StrictFloat = Field(default=60, ge=0, le=100_000)
    """Seconds that the remaining sites have once a quorum has answered."""
    nodes_seconds: StrictFloat = Field(default=120, gt=0, le=100_000)
    """Seconds in which a quorum of nodes has to connect when a run begins; otherwise it stops."""
    hello_seconds: StrictFloat = Field(default=120, gt=0, le=100_000)
    """Seconds in which a node has to say to which site it belongs. Its first answer takes longer,
    because it starts a process."""

    @model_validator(mode="after")
    def _noise_of_the_sum(self) -> "RunFile":
        if self.aggregation.exact and self.aggregation.noise_multiplier is None:
            raise ValueError(
                "aggregation: with colluders all sites share one noise_multiplier, the largest "
                "that any of them needs for its epsilon: give it. `fedmedformer plan` prints it "
                "for a scenario with these sites; a site that needs more says so when it refuses"
            )
        return self

    @model_validator(mode="after")
    def _makes_a_federation(self) -> "RunFile":
        for name in self.sites:
            if not re.fullmatch(NAME, name):
                raise ValueError(
                    f"{name!r} cannot be a member's name: use small letters, digits and '-', as in "
                    f"{FILE}"
                )
        # A run that no site could accept is refused here, not at the first site.
        try:
            self.federation()
        except ValidationError as error:
            raise ValueError(explain(error, Federation).removesuffix(".")) from error
        return self

    @model_validator(mode="after")
    def _trains_or_counts(self) -> "RunFile":
        given = [key for key in TRAINED if key in self.model_fields_set]
        if self.statistics is not None and given:
            raise ValueError(
                f"a run that asks for statistics trains nothing: leave out {given[0]}, or give the "
                "training a run.yaml of its own"
            )
        return self

    def federation(self) -> Federation:
        """Return the federation, which every site may read."""
        if self.statistics is not None:
            counted = Schedule(phases=(), spare_rounds=0, statistics=self.statistics)
            # Nothing is trained, on public images neither.
            return self._of(counted, recipe="").model_copy(update={"pretraining": None})
        domains = [member.domain for member in self.sites.values()]
        choice = self.choice_for([member.declared for member in self.sites.values()])
        aggregation = self.aggregation_of(choice.phases, [domain.kind for domain in domains])
        schedule = self.schedule_of(choice.phases, self.spare_rounds, aggregation)
        return self._of(schedule, choice.text)

    def _of(self, schedule: Schedule, recipe: str) -> Federation:
        """Return the federation that runs a schedule."""
        domains = [member.domain for member in self.sites.values()]
        model = ModelConfig.for_domains(domains, self.preset, self.features, self.network)
        return Federation(
            name=self.name,
            seed=self.seed,
            model=model.between(domains if self.concepts else []),
            schedule=schedule,
            recipe=recipe,
            pretraining=self.pretraining,
            sites=tuple(PublicSite(name=n, domain=m.domain) for n, m in self.sites.items()),
            server_momentum=self.server_momentum,
            server_learning_rate=self.server_learning_rate,
            server_rule=self.server_rule,
            extensions=sources([self.server_rule] if self.server_rule else []),
            quorum=self.quorum or len(self.sites) // 2 + 1,
        )


def load_run(path: Path) -> RunFile:
    """Read and check a run.yaml.

    Args:
        path: The file.
    Raises:
        ConfigError: Missing, not YAML, unknown key, wrong type or value.
    """
    run = read_yaml(path, RunFile)
    # Misspelt words would keep sites apart that should share concepts.
    for name, domain in run.sites.items():
        for unknown in unknown_words(domain):
            raise ConfigError(f"{path}: sites: {name}: {unknown}")
    return run
