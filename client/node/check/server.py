"""The lines of `site check` about the consortium: its kit, its server, the clocks."""

from client.node import reach
from client.node.check.line import Check
from client.node.check.place import Lines, Place
from client.node.joining import REQUEST
from client.node.kit import AUTHORITY, read_kit, verify_kit
from client.policy import load_policy
from medformer.errors import ConfigError, MedFormerError


def check_kit(place: Place) -> Lines:
    """Check that the start-up kit has come, and is of this site and its consortium.

    Args:
        place: The site and its folder.
    Raises:
        ConfigError: It cannot be read, is of another site, or was changed.
    """
    folder = place.folder / "kit"
    if not place.kitted:
        yield Check("kit", "NOTE", (
            f"is not here yet: send {place.folder / REQUEST} to the consortium. When its kit has "
            f"come, run: fedmedformer site init {place.folder} --kit FILE.zip"
        ))  # fmt: skip
        return
    facts = read_kit(folder)
    if facts["site"] != place.site.name:
        raise ConfigError(
            f"is for the site {facts['site']!r}, but site.yaml is of {place.site.name!r}"
        )
    verify_kit(folder, load_policy(place.folder / "policy.yaml").signer)
    yield Check("kit", "OK", f"from {facts.get('consortium')}, signed by its key")


def check_server(place: Place) -> Lines:
    """Connect to the server as the node does, if the kit is the consortium's own.

    Args:
        place: The site and its folder.
    Raises:
        UnreachableError: The server cannot be reached.
    """
    folder = place.folder / "kit"
    # The address in a kit without a valid signature is not contacted.
    try:
        facts = read_kit(folder)
        verify_kit(folder, load_policy(place.folder / "policy.yaml").signer)
    except MedFormerError:
        yield Check("server", "NOTE", "is not contacted: mend the kit and policy.yaml first")
        return
    host, port = facts["hosts"][0], facts["port"]
    yield Check("server", "OK", f"{reach.dial(host, port)} answers")
    try:
        found = reach.greet(host, port, folder / AUTHORITY)
    except MedFormerError as error:
        yield Check("tls", "FIX", str(error))
        return
    yield Check("tls", "OK", f"{found.version}, certificate of {host} good until {found.ends}")
    # The gateway answers even while no SuperLink is behind it.
    if found.status != 200:
        yield Check("server", "FIX", (
            f"its gateway answers, but its SuperLink does not serve (HTTP {found.status}): ask the "
            "coordinator to start it again"
        ))  # fmt: skip
    # Flower's SuperLink refuses a node whose clock is off, with an error that does not say so.
    if found.ahead is None:
        yield Check("clock", "NOTE", "the server sends no time: check yourself that NTP runs here")
    elif wrong := reach.off(found.ahead):
        yield Check("clock", "FIX", f"this machine's clock is {wrong}: set it (NTP)")
    else:
        yield Check(
            "clock", "OK", f"within {abs(found.ahead) + reach.UNSURE:.0f} s of the server's"
        )
