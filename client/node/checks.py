"""`fedmedformer site check`: will `site up` work? A line a check, each with what to do.

Nothing is trained and no budget is touched; all that is written is the manifest of the records. FOR
THE SITE'S OWN EYES, like the data card.
"""

import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import client
from client.data.card.content import Card
from client.data.manifest import compare
from client.data.medical import PACKAGES
from client.ledger import export as ledger_file
from client.ledger.anchor import held_by_anchor
from client.ledger.chain import FILE
from client.ledger.ledger import registrable
from client.node.check_headers import lines, one_patient
from client.node.check_line import Check
from client.node.joining import KEY, REQUEST, known_by
from client.node.kit import AUTHORITY, read_kit, verify_kit
from client.node.launch import separation
from client.node.permissions import installed_code, private_key
from client.node.starting import AlreadyUp, Start, conditions, only_ours_to_write
from client.node.supervise import HEALTH_PORT, Node
from client.node.users import users_of
from client.policy import load_policy
from client.privacy.composition import Budget, Cost
from client.site import Site
from medformer.common.rounding import digits_down, exact, percent_down, rounded_down
from medformer.errors import ConfigError, MedFormerError
from medformer.words import unknown_words

NAMED = 5
"""Records that a line names; the rest is counted."""
NEEDED = 2**30
"""Bytes: two kept answers and five local states of the largest preset, and as much again as one of
them for ledger, manifest and logs."""


@dataclass(frozen=True)
class Place:
    """What is checked."""

    site: Site
    folder: Path
    """Of site.yaml; as `site init` makes it, or with that file alone."""
    one_user: bool = False
    health_port: int = HEALTH_PORT
    """Both as `site up` will be given them."""

    @property
    def state(self) -> Path:
        """Of the guard; there after its first start, or the first check."""
        return Node(self.folder).state

    @property
    def begun(self) -> bool:
        """Whether this is a hospital's folder, not a lone site.yaml."""
        return (self.folder / KEY).exists() or self.kitted

    @property
    def kitted(self) -> bool:
        """Whether the consortium's kit has come."""
        return (self.folder / "kit").exists()


Lines = Iterator[Check]


def at_start(place: Place) -> list[Check]:
    """What whoever starts the node looks at: as root, where guard and node are two users."""
    found: list[Check] = []
    if place.begun:
        for name, look in (("users", _users), ("key", _key), ("files", _files)):
            found += _told(name, look, place)
    if place.kitted:
        found += _start(place)
    return found


def every(place: Place, card: Card, first: Sequence[Check], *, offline: bool = False) -> Lines:
    """All checks that such a folder can pass, one after the other; as the guard's user.

    Args:
        card: Of its records.
        first: From `at_start`.
        offline: Dial nobody.
    """
    looks: list[tuple[str, Callable[[Place], Lines]]] = [
        ("words", _words),
        ("patients", lambda place: one_patient(place.site, card)),
        ("packages", _packages),
    ]
    kept = place.begun or place.state.exists()
    if any(split.count for split in card.splits):  # else the lines of the data have said why
        looks.append(("headers", _headers))
        looks += [("records", _records)] if kept else []
    looks += [("budget", _budget)] if kept else []
    if place.begun or (place.folder / "policy.yaml").exists():
        looks.append(("policy", _policy))
    if place.begun:
        looks += [("files", _settings), ("code", _code), ("disk", _disk), ("kit", _kit)]
    if place.kitted and not offline:
        looks.append(("server", _server))
    bad, told = False, set[Check]()
    begun = [line for line in first if line.name != "start"]  # and what `site up` alone needs
    for part in (_data(card), begun, *(_told(name, look, place) for name, look in looks)):
        for line in part:
            bad |= line.state == "FIX"
            if line not in told:  # what `site up` looks at too is said once
                yield line
            told.add(line)
    if not bad:  # else its first word would be one of those above
        yield from (line for line in first if line.name == "start")


def _told(name: str, look: Callable[[Place], Lines], place: Place) -> Lines:
    """The lines of a check; what it raises says what to do."""
    try:
        yield from look(place)
    except MedFormerError as error:
        yield Check(name, "FIX", str(error))
    except OSError as error:
        yield Check(name, "FIX", f"{error.filename}: {error.strerror}")


def _data(card: Card) -> Lines:
    same = len({split.problems for split in card.splits}) == 1
    if same:  # a folder that is not there is said once
        yield from (Check("data", "FIX", problem) for problem in card.splits[0].problems)
    for split in card.splits:
        if same and split.problems:
            continue
        if not split.problems:
            patients = f", {split.patients} patients" if split.patients is not None else ""
            yield Check("data", "OK", f"{split.split}: {split.count} records{patients}")
        for problem in split.problems:
            more = split.faults[1:NAMED] if split.faults and split.faults[0] in problem else ()
            also = f". Others: {_some(more, len(split.faults) - 1)}" if more else ""
            yield Check("data", "FIX", f"{split.split}: {problem}{also}")
    yield from (Check("data", "FIX", problem) for problem in card.problems)
    yield from (Check("data", "NOTE", warning) for warning in card.warnings)


def _words(place: Place) -> Lines:
    """Modality and anatomy decide with whom a site shares concepts."""
    domain = place.site.domain
    unknown = unknown_words(domain)
    yield from (Check("words", "FIX", f"domain: {text}") for text in unknown)
    if not unknown:
        yield Check("words", "NOTE" if domain.new else "OK", (
            f"{domain.modality} of {domain.anatomy}: sites with images of the kind {domain.kind} "
            "share concepts"
            + (", and this one is new: it has to be spelt alike everywhere" if domain.new else "")
        ))  # fmt: skip


def _packages(place: Place) -> Lines:
    source = place.site.data.source
    if source not in PACKAGES:
        return
    package = PACKAGES[source]
    install = f"pip install 'fedmedformer[{source}]'"
    if find_spec(package) is None:
        yield Check("packages", "FIX", f"{source} files need the package {package}: {install}")
        return
    yield Check("packages", "OK", f"{package}, which reads {source} files, is installed")


def _headers(place: Place) -> Lines:
    package = PACKAGES.get(place.site.data.source)
    if package is not None and find_spec(package) is not None:
        yield from lines(place.site)


def _records(place: Place) -> Lines:
    found = compare(place.site, place.state)
    if found is None:
        return
    if found.since is None:
        yield Check("records", "OK", f"{found.records} noted; later checks tell what changed")
        return
    kinds = {"new": found.new, "changed": found.changed, "gone": found.gone}
    words = [f"{len(names)} {kind} ({_some(names[:NAMED], len(names))})"
             for kind, names in kinds.items() if names]  # fmt: skip
    text = f"{found.records} records; since {found.since}: {', '.join(words) or 'none changed'}"
    if words:
        text += ". The ledger goes on as before"
    yield Check("records", "NOTE" if words else "OK", text)


def _budget(place: Place) -> Lines:
    file, privacy = place.state / FILE, place.site.privacy
    rows = ledger_file.read(file) if file.exists() else []
    if not rows and (place.state / "runs").exists():
        raise ConfigError(
            f"{file}: is missing or empty, but this site has trained: budget was spent that nobody "
            "knows of. Restore the newest copy"
        )
    if place.site.ledger_anchor is not None:
        held_by_anchor(rows, place.site.ledger_anchor, file)
    cohorts = [row.values for row in rows if row.kind == "cohort"]
    budget = registrable(cohorts, privacy, file)
    total = budget.total(row.values for row in rows if row.kind == "reservation")
    runs = sum(row.kind == "reservation" for row in rows)
    text = f"{runs} runs so far; {_left(budget, total)} for all later ones"
    one = Cost(privacy.epsilon, privacy.delta, budget.nothing.renyi)
    if budget.fits(total + one) and budget.used(total) < 1:
        yield Check("budget", "OK", text)
    else:
        yield Check("budget", "FIX", (
            f"{text}, and one may cost epsilon {exact(privacy.epsilon)}, "
            f"delta {exact(privacy.delta)}. Spent budget does not come back: lower "
            "privacy.epsilon and delta for cheaper runs, or end this site's part"
        ))  # fmt: skip


def _left(budget: Budget, total: Cost) -> str:
    if budget.rule == "rdp":
        return f"{percent_down(1 - budget.used(total))} of the budget left"
    epsilon, delta = budget.spent(total)
    left = max(0.0, budget.epsilon - epsilon), max(0.0, budget.delta - delta)
    return (
        f"epsilon {rounded_down(left[0])} of {exact(budget.epsilon)} and delta "
        f"{digits_down(left[1])} left"
    )


def _policy(place: Place) -> Lines:
    file = place.folder / "policy.yaml"
    policy, site = load_policy(file), place.site
    allowed = [name for name in policy.objectives if name in site.objectives]
    limit = policy.max_epsilon_per_run
    wrong = []
    if site.privacy.unit == "image" and not policy.accept_unit_image:
        wrong.append(
            "site.yaml protects single images, which policy.yaml does not accept: set unit: "
            "patient, or accept_unit_image: true where each patient has one image"
        )
    if site.privacy.epsilon > limit:
        wrong.append(
            f"a run may cost epsilon {exact(site.privacy.epsilon)} in site.yaml and {exact(limit)} "
            "in policy.yaml: noise is planned for the former, and the run refused for the latter. "
            f"Set privacy.epsilon: {exact(limit)}"
        )
    if not allowed:
        wrong.append("site.yaml and policy.yaml allow no objective in common: edit one of them")
    yield from (Check("policy", "FIX", text) for text in wrong)
    if not wrong:
        yield Check("policy", "OK", (
            f"{', '.join(allowed)}; epsilon up to {exact(limit)} a run; approval {policy.approval}"
        ))  # fmt: skip


def _key(place: Place) -> Lines:
    private_key(place.folder / KEY)
    yield Check("key", "OK", f"fingerprint {known_by(place.folder)}")


def _users(place: Place) -> Lines:
    two = users_of(place.folder) is not None
    yield Check("users", "OK" if two else "NOTE", separation(place.folder))


def _files(place: Place) -> Lines:
    Node(place.folder).private(place.site)
    yield Check("files", "OK", f"nobody else can enter {place.folder}")


def _settings(place: Place) -> Lines:
    """What the guard reads, and does not start where others can write it."""
    only_ours_to_write(place.folder, place.site)
    yield from ()


def _code(place: Place) -> Lines:
    package = Path(str(client.__file__)).parent
    installed_code(package)
    yield Check("code", "OK", f"installed in {package.parent}, which others cannot change")


def _disk(place: Place) -> Lines:
    there = next(p for p in (place.state, *place.state.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"{there}: cannot be written by this user (chown)")
    if free < NEEDED:
        raise ConfigError(
            f"{there}: {free >> 20} MiB are free, and a run may need {NEEDED >> 20} MiB for its "
            "answers, local tensors and logs: free the disk. A run stops where it is full"
        )
    yield Check("disk", "OK", f"{free / 2**30:.1f} GiB free, {NEEDED / 2**30:.1f} GiB needed")


def _kit(place: Place) -> Lines:
    folder = place.folder / "kit"
    if not place.kitted:
        yield Check("kit", "NOTE", (
            f"is not here yet: send {place.folder / REQUEST} to the consortium, and when its kit "
            f"has come: fedmedformer site init {place.folder} --kit FILE.zip"
        ))  # fmt: skip
        return
    kit = read_kit(folder)
    if kit["site"] != place.site.name:
        raise ConfigError(f"is of the site {kit['site']!r}, site.yaml of {place.site.name!r}")
    verify_kit(folder, load_policy(place.folder / "policy.yaml").signer)
    yield Check("kit", "OK", f"of {kit.get('consortium')}, signed by its key")


def _server(place: Place) -> Lines:
    """Dials what the node dials, if the kit may be believed."""
    from client.node import reach

    folder = place.folder / "kit"
    try:
        kit = read_kit(folder)
        verify_kit(folder, load_policy(place.folder / "policy.yaml").signer)
    except MedFormerError:
        yield Check("server", "NOTE", "is not dialled before kit and policy.yaml are right")
        return
    host, port = kit["hosts"][0], kit["port"]
    yield Check("server", "OK", f"{reach.dial(host, port)} answers")
    try:
        server = reach.greet(host, port, folder / AUTHORITY)
    except MedFormerError as error:
        yield Check("tls", "FIX", str(error))
        return
    yield Check("tls", "OK", f"{server.version}, certificate of {host} good until {server.ends}")
    if server.status != 200:
        yield Check("server", "FIX", (
            f"its door is open, but its SuperLink does not serve (HTTP {server.status}): ask the "
            "coordinator to start it again"
        ))  # fmt: skip
    if server.ahead is None:
        yield Check("clock", "NOTE", "the server tells no time: see yourself that NTP runs here")
    elif wrong := reach.off(server.ahead):
        yield Check("clock", "FIX", f"this machine's is {wrong}: set it (NTP)")
    else:
        yield Check(
            "clock", "OK", f"within {abs(server.ahead) + reach.UNSURE:.0f} s of the server's"
        )


def _start(place: Place) -> Lines:
    """Whatever `site up` looks at, by its own list; where all is well, a line in all."""
    how = Start(place.folder, place.health_port, one_user=place.one_user)
    good = True
    for name, look in conditions(how):
        try:
            look()
        except AlreadyUp as error:
            yield Check("start", "NOTE", str(error))
            return  # its port is taken by itself
        except MedFormerError as error:
            good = False
            yield Check(name, "FIX", str(error))
    if good:
        port = [] if how.health_port == HEALTH_PORT else ["--health-port", str(how.health_port)]
        command = ["fedmedformer", "site", "up", str(how.folder), *port]
        yield Check("start", "OK", shlex.join([*command, *(["--one-user"] * how.one_user)]))


def _some(names: Sequence[str], count: int) -> str:
    """A few of `count` names."""
    more = f" and {count - len(names)} more" if count > len(names) else ""
    return "; ".join(names) + more
