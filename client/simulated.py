"""A guard for simulations: in process, seeded, and allowed to tell exact values.

A deployed guard never imports this module: a seed cannot be reached there.
"""

import json
from pathlib import Path

from client.guard import Guard
from client.ledger.ledger import Reservation
from client.privacy.noise import NoiseSource, SeededNoise
from client.site import load_site
from medformer.errors import ConfigError
from server.protocol import SIMULATED_SITES


def open_guard(run_folder: Path, partition: int) -> Guard:
    """The guard of simulated site number `partition`.

    Raises:
        ConfigError: No such run folder or partition, or a site.yaml that is not valid.
    """
    try:
        index = json.loads((run_folder / SIMULATED_SITES).read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{run_folder}: holds no readable {SIMULATED_SITES}") from error
    sites = index["sites"]
    if partition >= len(sites):
        raise ConfigError(
            f"partition {partition} has no site: the scenario has {len(sites)}. Start the "
            f"simulation with --federation-config 'num-supernodes={len(sites)}'"
        )
    place = sites[partition]
    return simulated_guard(Path(place["site"]), Path(place["state"]), index["seed"])


def simulated_guard(site_file: Path, state: Path, seed: int | str) -> Guard:
    """A guard over one site's state folder, whose randomness derives from the seed.

    The ledger row of the reservation is part of every seed, so that no two runs share noise, and
    so is the attempt, so that a round that is trained again has fresh noise.
    """
    site = load_site(site_file)

    def noise_for(reservation: Reservation, round_: int, attempt: int) -> NoiseSource:
        return SeededNoise(seed, site.name, reservation.row, round_, attempt)

    return Guard(site, state, noise_for, exact=True)
