"""A guard for simulations: it runs in this process, is seeded, and may send exact values.

A deployed guard never imports this module, so no seed can reach it.
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
    """Open the guard of a simulated site.

    Args:
        run_folder: A folder that `simulations.prepare` wrote.
        partition: Number of the site, from 0, in the order of the scenario.
    Raises:
        ConfigError: The run folder or partition does not exist, or its site.yaml is not valid.
    """
    try:
        index = json.loads((run_folder / SIMULATED_SITES).read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{run_folder}: holds no readable {SIMULATED_SITES}") from error
    sites = index["sites"]
    # Flower starts as many nodes as its configuration says, which may be more than the scenario
    # has.
    if partition >= len(sites):
        raise ConfigError(
            f"partition {partition} has no site: the scenario has {len(sites)}. Start the "
            f"simulation with --federation-config 'num-supernodes={len(sites)}'"
        )
    place = sites[partition]
    return simulated_guard(Path(place["site"]), Path(place["state"]), index["seed"])


def simulated_guard(site_file: Path, state: Path, seed: int | str) -> Guard:
    """Open a guard over one site's state folder, with randomness derived from a seed.

    The ledger row of the reservation is part of every derived seed, so that no two runs share
    noise. So is the attempt: a round that is trained again has fresh noise.

    Args:
        site_file: The site.yaml.
        state: The site's state folder.
        seed: Seed of the simulation. With it, the noise can be removed from what was sent.
    Raises:
        ConfigError: The site.yaml is not valid.
    """
    site = load_site(site_file)

    def noise_for(reservation: Reservation, round_: int, attempt: int) -> NoiseSource:
        # The row is unique in a ledger, so two runs of one seed differ as well.
        return SeededNoise(seed, site.name, reservation.row, round_, attempt)

    return Guard(site, state, noise_for, exact=True)
