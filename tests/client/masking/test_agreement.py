"""Each pair of sites of a run has a secret that nobody else can have, or the guards refuse."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.masking.agreement import (
    AgreementError,
    Encapsulated,
    RunKeys,
    check_members,
    encapsulate,
    pair_secrets,
    run_name,
)
from client.masking.identity import public_text
from server.protocol import fingerprint
from server.protocol.masking import MaskKeys, SealedSecret

NAMES = ("east", "north", "south")
RUN = run_name("run-1", "a" * 64)


@dataclass
class Member:
    name: str
    identity: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    keys: RunKeys = field(init=False)
    made: dict[str, Encapsulated] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.keys = RunKeys.fresh(self.name, RUN)

    @property
    def public(self) -> MaskKeys:
        return self.keys.signed(self.identity)


@pytest.fixture(scope="module")
def sites() -> dict[str, Member]:
    """Return three sites that have encapsulated their secrets."""
    members = {name: Member(name) for name in NAMES}
    public = {name: member.public for name, member in members.items()}
    for member in members.values():
        member.made = encapsulate(member.keys, member.identity, public)
    return members


def public_of(sites: dict[str, Member]) -> list[MaskKeys]:
    return [member.public for member in sites.values()]


def sealed_for(sites: dict[str, Member], name: str) -> list[SealedSecret]:
    made = [one.sealed for member in sites.values() for one in member.made.values()]
    return [sealed for sealed in made if sealed.receiver == name]


def secrets_of(sites: dict[str, Member], name: str, **changes: Any) -> dict[str, bytes]:
    own = sites[name]
    given: dict[str, Any] = {
        "keys": own.keys,
        "members": {keys.site: keys for keys in public_of(sites)},
        "made": own.made,
        "sealed": sealed_for(sites, name),
        "peers": [other for other in NAMES if other != name],
    }
    return pair_secrets(**(given | changes))


def test_both_ends_of_a_pair_have_the_same_secret(sites: dict[str, Member]):
    """Each pair has its own, also when the keys were kept on disk in between."""
    found = {name: secrets_of(sites, name) for name in NAMES}
    pairs = {frozenset((a, b)): found[a][b] for a in NAMES for b in NAMES if a != b}
    assert all(found[a][b] == found[b][a] for a in NAMES for b in NAMES if a != b)
    assert len(set(pairs.values())) == 3
    assert {len(secret) for secret in pairs.values()} == {32}
    kept = RunKeys.from_json(sites["south"].keys.to_json())
    assert secrets_of(sites, "south", keys=kept) == found["south"]


def test_members_are_believed_if_their_guards_signed_for_this_run(sites: dict[str, Member]):
    """The fingerprints are those that people have compared, this site's own left out."""
    peers = {
        name: fingerprint(public_text(member.identity), "signer")
        for name, member in sites.items()
        if name != "north"
    }
    found = check_members(public_of(sites), RUN, sites["north"].public, peers)
    assert sorted(found) == sorted(NAMES)
    assert check_members(public_of(sites), RUN, sites["north"].public, None) == found


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("without this site", "do not include this site"),
        ("own keys replaced", "do not include this site with its own keys"),
        ("twice", "twice"),
        ("same key", "two members of the run have the same key"),
        ("unsigned", "keys of south are not signed for this run"),
        ("another run", "keys of south are not signed for this run"),
        ("another name", "keys of west are not signed for this run"),
        ("stranger", "lists no fingerprint of south's guard"),
        ("another guard", "guard of south has another key"),
    ],
)
def test_members_that_a_server_has_altered_are_refused(
    sites: dict[str, Member], change: str, reason: str
):
    """The reason names the site and what to do."""
    members, own = public_of(sites), sites["north"].public
    south = sites["south"].public
    others = [keys for keys in members if keys.site != "south"]
    peers = {
        name: fingerprint(public_text(member.identity), "signer") for name, member in sites.items()
    }
    if change == "without this site":
        members = [keys for keys in members if keys.site != "north"]
    elif change == "own keys replaced":
        fresh = RunKeys.fresh("north", RUN).signed(sites["north"].identity)
        members = [fresh, *(keys for keys in members if keys.site != "north")]
    elif change == "twice":
        members = [*members, RunKeys.fresh("south", RUN).signed(sites["south"].identity)]
    elif change == "same key":
        members = [*others, south.model_copy(update={"x25519": own.x25519})]
    elif change == "unsigned":
        members = [*others, south.model_copy(update={"signature": "0" * 128})]
    elif change == "another run":
        elsewhere = RunKeys.fresh("south", run_name("run-2", "a" * 64))
        members = [*others, elsewhere.signed(sites["south"].identity)]
    elif change == "another name":
        members = [*others, south.model_copy(update={"site": "west"})]
    elif change == "stranger":
        del peers["south"]
    elif change == "another guard":
        impostor = Member("south")
        members = [*others, impostor.public]
    with pytest.raises(AgreementError, match=reason):
        check_members(members, RUN, own, peers)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("withheld", "no secret with east"),
        ("another receiver's", "not for this site"),
        ("of no member", "not for this site, or of no member"),
        ("twice", "two sealed secrets of east"),
        ("unsigned", "secret of east is not signed"),
        ("replaced", "secret of east is not signed"),
        ("a stranger as peer", "west is no other member"),
        ("itself as peer", "south is no other member"),
    ],
)
def test_secrets_that_a_server_has_altered_are_refused(
    sites: dict[str, Member], change: str, reason: str
):
    """A server that encapsulates a secret of its own is found by the missing signature."""
    sealed = sealed_for(sites, "south")
    first, *others = sealed
    assert first.sender == "east"
    changes: dict[str, Any] = {}
    if change == "withheld":
        changes["sealed"] = others
    elif change == "another receiver's":
        changes["sealed"] = [*sealed, *sealed_for(sites, "north")]
    elif change == "of no member":
        changes["sealed"] = [first.model_copy(update={"sender": "west"}), *others]
    elif change == "twice":
        changes["sealed"] = [*sealed, first]
    elif change == "unsigned":
        changes["sealed"] = [first.model_copy(update={"signature": "0" * 128}), *others]
    elif change == "replaced":
        other = encapsulate(
            sites["east"].keys, Ed25519PrivateKey.generate(), {"south": sites["south"].public}
        )
        changes["sealed"] = [other["south"].sealed, *others]
    elif change == "a stranger as peer":
        changes["peers"] = ["east", "west"]
    elif change == "itself as peer":
        changes["peers"] = ["east", "south"]
    with pytest.raises(AgreementError, match=reason):
        secrets_of(sites, "south", **changes)


def test_neither_problem_alone_gives_the_secret(sites: dict[str, Member]):
    """Another X25519 key, or another encapsulated secret, gives another result."""
    usual = secrets_of(sites, "east")["south"]
    own = sites["east"]
    other = RunKeys(own.name, RUN, RunKeys.fresh("east", RUN).x25519, own.keys.ml_kem)
    assert secrets_of(sites, "east", keys=other)["south"] != usual
    again = {name: Encapsulated(bytes(32), one.sealed) for name, one in own.made.items()}
    assert secrets_of(sites, "east", made=again)["south"] != usual
