"""One run's masking at one site: keys and secrets on the disk before anything of them is sent."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import TypeAdapter, ValidationError

from client.masking.agreement import (
    AgreementError,
    Encapsulated,
    RunKeys,
    check_members,
    encapsulate,
    pair_secrets,
    run_name,
)
from client.masking.masks import mask
from client.refusals import BadRequest
from medformer.common.files import replace_file
from server.protocol import MAX_COHORT, Train
from server.protocol.masking import (
    MaskKeys,
    SealedSecret,
    Words,
)

_MEMBERS = TypeAdapter(tuple[MaskKeys, ...])
_SEALED = TypeAdapter(tuple[SealedSecret, ...])
_NAMES = TypeAdapter(tuple[str, ...])


@dataclass(frozen=True)
class Session:
    """The masking of one run, read anew for each request."""

    site: str
    run: str
    """As `run_name` gives it."""
    file: Path
    """File in the run's part of the state folder; it holds private keys."""
    identity: Ed25519PrivateKey
    """The guard's long-lived key."""

    @classmethod
    def of(
        cls, site: str, run_id: str, schedule_hash: str, file: Path, identity: Ed25519PrivateKey
    ) -> "Session":
        """Open the masking of a run.

        Args:
            site: Name of the site.
            run_id: Of the run.
            schedule_hash: Of its schedule.
            file: `Store.masking` of the run.
            identity: The guard's long-lived key.
        """
        return cls(site, run_name(run_id, schedule_hash), file, identity)

    def keys(self) -> MaskKeys:
        """Return this site's public keys for the run, which are made the first time."""
        return self._read()[0].signed(self.identity)

    def agree(self, members: str, peers: Mapping[str, str] | None) -> list[SealedSecret]:
        """Agree on secrets with the members of a run, and return those that others have to open.

        Args:
            members: JSON list of `MaskKeys`, as the server sent it. A member that was there before
                has to have the same keys.
            peers: As in `check_members`.
        Raises:
            AgreementError: A key must not be used.
            BadRequest: The text is no such list, or longer than a cohort can be.
        """
        listed = _parsed(_MEMBERS, members)
        keys, known, made = self._read()
        found = check_members(listed, self.run, keys.signed(self.identity), peers)
        # A member that has left the run is missing, and still known if it comes back.
        for name, theirs in known.items():
            if found.get(name, theirs) != theirs:
                raise AgreementError(f"{name} had other keys before in this run")
        new = {name: theirs for name, theirs in found.items() if name not in made}
        made |= encapsulate(keys, self.identity, new)
        # On the disk before it is sent: a secret that was drawn anew would not be the peer's.
        self._write(keys, known | found, made)
        return [one.sealed for name, one in made.items() if name in found]

    def mask(self, request: Train, cohort: Sequence[str], count: int) -> Words:
        """Return the words that mask the answer to a request.

        Args:
            request: The round, its attempt, and secrets that other sites have sealed for this one.
            cohort: As `cohort_of` returned it.
            count: Number of words.
        Raises:
            AgreementError: There is no secret with a site of the cohort, or a sealed one is not
                its sender's.
            BadRequest: The sealed secrets are no list of such.
        """
        keys, members, made = self._read()
        sealed = _parsed(_SEALED, request.sealed or "[]")
        others = [name for name in cohort if name != self.site]
        if not members:
            raise AgreementError("the sites of this run have not agreed on secrets yet")
        secrets = pair_secrets(keys, members, made, sealed, others)
        # The key covers run, schedule, round, attempt, cohort and every tensor of the request.
        return mask(self.site, cohort, secrets, bytes.fromhex(request.key()), count)

    def _read(self) -> tuple[RunKeys, dict[str, MaskKeys], dict[str, Encapsulated]]:
        if not self.file.exists():
            fresh = RunKeys.fresh(self.site, self.run)
            self._write(fresh, {}, {})
            return fresh, {}, {}
        kept = json.loads(self.file.read_text())
        members = {name: MaskKeys(**keys) for name, keys in kept["members"].items()}
        made = {
            name: Encapsulated(bytes.fromhex(one["secret"]), SealedSecret(**one["sealed"]))
            for name, one in kept["made"].items()
        }
        return RunKeys.from_json(kept["keys"]), members, made

    def _write(
        self, keys: RunKeys, members: Mapping[str, MaskKeys], made: Mapping[str, Encapsulated]
    ) -> None:
        values = {
            "keys": keys.to_json(),
            "members": {name: theirs.model_dump() for name, theirs in members.items()},
            "made": {
                name: {"secret": one.secret.hex(), "sealed": one.sealed.model_dump()}
                for name, one in made.items()
            },
        }
        replace_file(self.file, json.dumps(values).encode(), 0o600)


def cohort_of(request: Train, site: str, min_sites: int) -> tuple[str, ...]:
    """Return the cohort that a request names, if this site may take part in it.

    Args:
        request: The request of a round.
        site: Name of this site.
        min_sites: Smallest cohort that the run and the site's policy allow.
    Raises:
        BadRequest: The cohort is no list of names in order, each once, lacks this site, or has too
            few or too many sites.
    """
    cohort = names_in(request.cohort)
    if list(cohort) != sorted(set(cohort)):
        raise BadRequest("a cohort lists each of its sites once, in the order of names")
    if site not in cohort:
        raise BadRequest("the cohort does not include this site, whose answer it would add up")
    if not max(2, min_sites) <= len(cohort) <= MAX_COHORT:
        raise BadRequest(
            f"a cohort of {len(cohort)} sites: this site takes part in sums of {max(2, min_sites)} "
            f"to {MAX_COHORT} sites (min_sites of the run's aggregation, and in policy.yaml)"
        )
    return cohort


def names_in(text: str) -> tuple[str, ...]:
    """Return the names of a JSON list.

    Args:
        text: As the server sent it; empty for none.
    Raises:
        BadRequest: It is no such list.
    """
    names: tuple[str, ...] = _parsed(_NAMES, text or "[]")
    return names


def _parsed(adapter: TypeAdapter[Any], text: str) -> Any:
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        raise BadRequest("sites, members, cohort or sealed secrets are not valid") from error
