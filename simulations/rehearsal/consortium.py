"""The steps of a consortium's first run, as people take them.

Each step types what docs/hospital.md tells people to type. `fedmedformer poc` takes all of them;
the tests of a deployment take those that bring it up.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from medformer.common.processes import free_port
from simulations.rehearsal import texts
from simulations.rehearsal.terminal import Terminal

SITES = ("north", "south", "west")


@dataclass
class Rehearsal:
    """A coordinator and its hospitals, each in a folder of the terminal's folder.

    Args:
        terminal: Types the commands.
        name: Name of the consortium.
        coordinator: Folder of the coordinator.
        sites: Names of the hospitals. At the first, a person approves each run.
        site: Text of a site.yaml, with `name` and `seed`.
        policy: Text of a policy.yaml, with `approval` and `peers`.
        run: Text of a run.yaml, with `name` and `sites`.
    """

    terminal: Terminal
    name: str
    coordinator: str = "coordinator"
    sites: Sequence[str] = SITES
    site: str = texts.SITE
    policy: str = texts.POLICY
    run: str = texts.RUN
    port: int = field(default_factory=free_port)
    """Port at which the server listens."""

    def begin(self) -> None:
        """The coordinator writes a draft, and each hospital makes its key and asks to join."""
        type_ = self.terminal.type
        type_(
            f"fedmedformer consortium init {self.coordinator} --name {self.name} --host localhost"
        )
        for name in self.sites:
            type_(f"fedmedformer site init {name} --name {name}")

    def provision(self) -> None:
        """The coordinator names the members by the fingerprints that it was read out, and makes
        the kits; each hospital unpacks its own."""
        type_ = self.terminal.type
        for name in self.sites:
            type_(f"cp {name}/request.json {self.coordinator}/requests/{name}.json")
        members = "\n".join(f'  {n}: "FINGERPRINT-OF-{n.upper()}"' for n in self.sites)
        text = texts.CONSORTIUM.format(
            name=self.name, port=self.port, health_port=free_port(), sites=members
        )
        self.terminal.write(f"{self.coordinator}/consortium.yaml", text)
        type_(f"fedmedformer consortium provision {self.coordinator}")
        for name in self.sites:
            type_(f"fedmedformer site init {name} --kit {self.coordinator}/kits/{name}.zip")

    def declare(self) -> None:
        """Each hospital writes what it has and what it allows, and compares the guards' keys."""
        for seed, name in enumerate(self.sites):
            self.terminal.write(f"{name}/site.yaml", self.site.format(name=name, seed=seed))
            self.terminal.type(f"fedmedformer site guard-key {name}")
        for number, name in enumerate(self.sites):
            others = [other for other in self.sites if other != name]
            peers = ", ".join(f'{other}: "GUARD-OF-{other.upper()}"' for other in others)
            approval = "automatic" if number else "manual"
            text = self.policy.format(approval=approval, peers=f"{{{peers}}}")
            self.terminal.write(f"{name}/policy.yaml", text)

    def check(self) -> None:
        """Each hospital checks that its node can start."""
        for name in self.sites:
            self.terminal.type(
                f"fedmedformer site check {name} --health-port {free_port()}{_root()}"
            )

    def serve(self) -> None:
        """The coordinator starts the server."""
        self.terminal.start("server", f"fedmedformer consortium up {self.coordinator}")
        self.terminal.until(f"fedmedformer consortium status {self.coordinator} --health")

    def connect(self) -> None:
        """Each hospital starts its guard and node, which dial in."""
        for name in self.sites:
            self.up(name)
        self.terminal.until(
            f"fedmedformer consortium status {self.coordinator}",
            lambda output: all(
                re.search(rf"^  {name} +connected", output, re.MULTILINE) for name in self.sites
            ),
        )

    def up(self, name: str) -> None:
        """Start one hospital's guard and node.

        Args:
            name: The hospital.
        """
        self.terminal.start(
            name, f"fedmedformer site up {name} --health-port {free_port()}{_root()}"
        )

    def train(self) -> None:
        """The coordinator submits a run, a person at the first hospital approves it, and all
        train."""
        members = "\n".join(texts.MEMBER.format(name=name) for name in self.sites)
        self.terminal.write("run.yaml", self.run.format(name=self.name, sites=members))
        self.terminal.start(
            "submit",
            f"fedmedformer consortium submit {self.coordinator} run.yaml --out runs/first --follow",
        )
        first = self.sites[0]
        approve = f"fedmedformer site approve {first}"
        self.terminal.until(approve, lambda output: "no run waits" not in output)
        self.terminal.type(f"{approve} RUN --yes")
        self.terminal.until(f"fedmedformer site status {first}")
        self.terminal.wait("submit")

    def verify(self) -> None:
        """Everybody checks the report, each hospital its ledger."""
        for name in self.sites:
            self.terminal.type(
                f"fedmedformer site ledger verify {name} --report runs/first/report.json "
                f"--site {name}"
            )
        keys = " ".join(f'--guard {name}="GUARD-OF-{name.upper()}"' for name in self.sites)
        self.terminal.type(
            f'fedmedformer verify runs/first --signer "FINGERPRINT-OF-SIGNER" {keys}'
        )


def _root() -> str:
    """Return the option with which root insists; in a container, people often are root."""
    return " --allow-root" if os.geteuid() == 0 else ""
