"""The site that `fedmedformer site check` looks at."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from client.node.check.line import Check
from client.node.folder import HEALTH_PORT, Node
from client.node.joining import KEY
from client.site import Site

Lines = Iterator[Check]


@dataclass(frozen=True)
class Place:
    """A site, its folder, and the options with which its node will be started."""

    site: Site
    folder: Path
    """Folder of site.yaml: as `site init` makes it, or with that file alone."""
    allow_root: bool = False
    """True if `site up` will be given --allow-root."""
    health_port: int = HEALTH_PORT
    """Port that `site up` will be given as --health-port."""

    @property
    def state(self) -> Path:
        """The guard's state folder. The first start makes it, or the first check."""
        return Node(self.folder).state

    @property
    def begun(self) -> bool:
        """True in a hospital's folder, false for a lone site.yaml."""
        return (self.folder / KEY).exists() or self.kitted

    @property
    def kitted(self) -> bool:
        """True once the consortium's kit has been unpacked."""
        return (self.folder / "kit").exists()
