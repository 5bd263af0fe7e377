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

    Raises:
        ConfigError: It cannot be read, is of another site, or was changed.
    """
    folder = place.folder / "kit"
    if not place.kitted:
        yield Check("kit", "NOTE", (
            f"is not here yet: send {place.folder / REQUEST} to the consortium, and when its kit "
            f"has come: fedmedformer site init {place.folder} --kit FILE.zip"
        ))  # fmt: skip
        return
    facts = read_kit(folder)
    if facts["site"] != place.site.name:
        raise ConfigError(f"is of the site {facts['site']!r}, site.yaml of {place.site.name!r}")
    verify_kit(folder, load_policy(place.folder / "policy.yaml").signer)
    yield Check("kit", "OK", f"of {facts.get('consortium')}, signed by its key")


def check_server(place: Place) -> Lines:
    """Connect to the server as the node does, if the kit is the consortium's own.

    Raises:
        UnreachableError: The server cannot be reached.
    """
    folder = place.folder / "kit"
    try:
        facts = read_kit(folder)
        verify_kit(folder, load_policy(place.folder / "policy.yaml").signer)
    except MedFormerError:
        yield Check("server", "NOTE", "is not dialled before kit and policy.yaml are right")
        return
    host, port = facts["hosts"][0], facts["port"]
    yield Check("server", "OK", f"{reach.dial(host, port)} answers")
    try:
        found = reach.greet(host, port, folder / AUTHORITY)
    except MedFormerError as error:
        yield Check("tls", "FIX", str(error))
        return
    yield Check("tls", "OK", f"{found.version}, certificate of {host} good until {found.ends}")
    if found.status != 200:
        yield Check("server", "FIX", (
            f"its door is open, but its SuperLink does not serve (HTTP {found.status}): ask the "
            "coordinator to start it again"
        ))  # fmt: skip
    if found.ahead is None:
        yield Check("clock", "NOTE", "the server tells no time: see yourself that NTP runs here")
    elif wrong := reach.off(found.ahead):
        yield Check("clock", "FIX", f"this machine's is {wrong}: set it (NTP)")
    else:
        yield Check(
            "clock", "OK", f"within {abs(found.ahead) + reach.UNSURE:.0f} s of the server's"
        )
