"""`fedmedformer site check`: every check of a site, one line each, with what to do.

It answers one question: will `site up` work? Nothing is trained and no budget is used. The only
file written is the manifest of the records. The lines are for the hospital alone, as the data card
is.
"""

from collections.abc import Callable, Sequence

from client.data.card.form import Card
from client.node.check import headers, limits, machine, records, server
from client.node.check.line import Check
from client.node.check.place import Lines, Place
from medformer.errors import MedFormerError

Look = tuple[str, Callable[[Place], Lines]]
"""The name of a check, for what it raises, and the check."""


def at_start(place: Place) -> list[Check]:
    """Run the checks that need the rights of the user who starts the node.

    Where guard and node are two users, that is root.

    Args:
        place: The site and its folder.
    """
    found: list[Check] = []
    if place.begun:
        for look in (
            ("users", machine.check_users),
            ("key", machine.check_key),
            ("files", machine.check_files),
        ):
            found += _caught(look, place)
    if place.kitted:
        found += machine.check_start(place)
    return found


def every(place: Place, card: Card, first: Sequence[Check], *, offline: bool = False) -> Lines:
    """Run all checks that apply to a site, one after the other, as the guard's user.

    Args:
        place: The site and its folder.
        card: Data card of its records.
        first: Lines from `at_start`.
        offline: Do not connect to the consortium.
    """
    looks = _looks(place, card, offline=offline)
    bad, shown = False, set[Check]()
    begun = [line for line in first if line.name != "start"]
    for part in (records.check_data(card), begun, *(_caught(look, place) for look in looks)):
        for line in part:
            bad |= line.state == "FIX"
            if line not in shown:  # `site up` makes some of these checks too
                yield line
            shown.add(line)
    if not bad:  # a node that cannot start fails for a reason that is printed above
        yield from (line for line in first if line.name == "start")


def _looks(place: Place, card: Card, *, offline: bool) -> list[Look]:
    """The checks that apply: a lone site.yaml has neither key nor kit, and perhaps no ledger."""
    looks: list[Look] = [
        ("words", records.check_words),
        ("patients", lambda place: headers.one_patient(place.site, card)),
        ("packages", records.check_packages),
    ]
    has_state = place.begun or place.state.exists()
    if any(split.count for split in card.splits):  # without records, `data` has given the reason
        looks.append(("headers", records.check_headers))
        looks += [("records", records.check_records)] if has_state else []
    looks += [("budget", limits.check_budget)] if has_state else []
    if place.begun or (place.folder / "policy.yaml").exists():
        looks.append(("policy", limits.check_policy))
    if place.begun:
        looks += [("files", machine.check_settings), ("code", machine.check_code)]
        looks += [("disk", machine.check_disk), ("kit", server.check_kit)]
    # Without a kit there is no address to connect to.
    if place.kitted and not offline:
        looks.append(("server", server.check_server))
    return looks


def _caught(look: Look, place: Place) -> Lines:
    """Yield the lines of a check; an error becomes a line too, because it says what to do."""
    name, check = look
    try:
        yield from check(place)
    except MedFormerError as error:
        yield Check(name, "FIX", str(error))
    except OSError as error:
        yield Check(name, "FIX", f"{error.filename}: {error.strerror}")
