"""`fedmedformer consortium install`: a systemd unit that submits a run and follows it to its end.

The unit is written by the code that is installed here, for the user who owns the consortium's
folder. Unlike the server's unit it has to read the signing key, because it submits the run and
signs its report.
"""

import re
from pathlib import Path

from medformer.common.files import replace_file
from medformer.common.systemd import plain, program, unit
from medformer.errors import ConfigError
from server.consortium.declarations import load, load_run
from server.consortium.kits import UNIT as SERVER_UNIT
from server.consortium.kits import owner_of

RETRIES = 1_000
"""Submissions in a row without a round in between; with `nodes_seconds` of two minutes, more than a
day."""


def install(folder: Path, file: Path, out: Path, retries: int = RETRIES) -> Path:
    """Write the unit of one run.

    Args:
        folder: Folder of the consortium.
        file: run.yaml.
        out: The run folder, inside the consortium's folder.
        retries: As for `consortium submit --follow`.
    Returns:
        The unit, in `service/` of the consortium's folder.
    Raises:
        ConfigError: run.yaml cannot be used, the run folder is elsewhere, a path cannot be written
            in a unit, or a unit of that name follows another run.
    """
    load_run(file)
    load(folder)
    home, place = plain(folder.resolve()), plain(out.resolve())
    # The server's unit, which the run's process belongs to, can write nowhere else.
    if home not in place.parents:
        raise ConfigError(
            f"{out}: the server's unit writes inside {folder} only: choose a run folder there, "
            f"such as {folder / 'runs' / out.name}"
        )
    words = ("consortium", "submit", str(home), str(plain(file.resolve())), "--out", str(place))
    start = f"{program()} {' '.join(words)} --follow --retries {retries}"
    name = re.sub(
        r"[^A-Za-z0-9._-]", "-", place.name
    )  # `@` and `+` have a meaning in names of units
    path = folder / "service" / f"fedmedformer-run-{name}.service"
    if path.exists() and f" --out {place} " not in path.read_text():
        raise ConfigError(f"{path}: follows another run: give this one another folder name")
    text = unit(
        f"FedMedformer: submits the run {place.name} and follows it",
        (SERVER_UNIT, "network-online.target"),
        {
            "User": owner_of(home)[0],
            "ExecStart": start,
            # A run that failed is not mended by trying again, and one that is done is done. A
            # follower that was killed finds the run at work, and goes on following it.
            "Restart": "on-abnormal",
            "WorkingDirectory": str(home),
            # It speaks to the SuperLink of this machine alone.
            "RestrictAddressFamilies": "AF_UNIX AF_INET AF_INET6",
            "IPAddressDeny": "any",
            "IPAddressAllow": "localhost",
            "ReadWritePaths": str(home),
        },
        [home, program(), plain(file.resolve())],
    )
    replace_file(path, text.encode())
    path.chmod(0o644)
    return path
