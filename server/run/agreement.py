"""Carries the keys and secrets with which sites mask their answers; the server can open none."""

import json
from dataclasses import dataclass, field

from pydantic import TypeAdapter, ValidationError

from server.protocol import Agree, AgreeAnswer, Refusal, source_hash
from server.protocol.masking import SealedSecret
from server.run.federation import Federation
from server.run.fleet import Fleet, ask
from server.run.journal import Journal

_SEALED = TypeAdapter(tuple[SealedSecret, ...])


@dataclass
class Agreement:
    """The secrets that the sites of a run have sealed for each other."""

    fleet: Fleet
    federation: Federation
    journal: Journal
    _sealed: dict[tuple[str, str], SealedSecret] = field(default_factory=dict)
    """(sender, receiver) -> the secret."""
    _agreed: dict[str, frozenset[str]] = field(default_factory=dict)
    """Site -> members with whose keys it has agreed."""

    def extend(self, number: int) -> None:
        """Have every site agree with all others that take part now.

        Args:
            number: The round that comes next. Sites that refuse are not asked again; those that do
                not answer are asked before the next round.
        """
        excluded = self.journal.excluded
        keys = {n: k for n, k in sorted(self.journal.mask_keys.items()) if n not in excluded}
        members = frozenset(keys)
        late = [name for name in keys if self._agreed.get(name) != members]
        # The usual case after the first round: nobody has joined.
        if not late:
            return
        request = Agree(
            self.journal.run_id,
            source_hash(),
            schedule_hash=self.federation.schedule.hash(),
            members=f"[{','.join(keys.values())}]",
        )
        answers, lost = ask(self.fleet, dict.fromkeys(late, request), self.federation.quorum)
        for name, why in lost.items():
            self.journal.note(number, name, "absent", why)
        for name, answer in answers.items():
            if isinstance(answer, AgreeAnswer):
                self._take(name, answer, members, number)
            else:
                text = answer if isinstance(answer, Refusal) else _odd(name, type(answer).__name__)
                self.journal.exclude(name, text, number)

    def _take(self, name: str, answer: AgreeAnswer, members: frozenset[str], number: int) -> None:
        try:
            sealed = _SEALED.validate_json(answer.sealed)
        except ValidationError:
            self.journal.exclude(name, _odd(name, "sealed secrets that cannot be read"), number)
            return
        for one in sealed:
            # Its signature is checked where it is opened: the server could forge what it checks.
            if one.sender == name and one.receiver in members:
                self._sealed[one.sender, one.receiver] = one
        self._agreed[name] = members

    def together(self, names: list[str]) -> list[str]:
        """Return those of the sites that have agreed with each other, in the order of names.

        Args:
            names: Sites.
        """
        able = [name for name in sorted(names) if name in self._agreed]
        return [name for name in able if set(able) <= self._agreed[name]]

    def sealed_for(self, receiver: str, cohort: list[str]) -> str:
        """Return the secrets that sites of a cohort have sealed for one of them, as JSON.

        Args:
            receiver: The site that opens them.
            cohort: The sites of the cohort.
        """
        pairs = [(sender, receiver) for sender in cohort]
        found = [self._sealed[pair].model_dump() for pair in pairs if pair in self._sealed]
        return json.dumps(found)


def _odd(name: str, what: str) -> Refusal:
    return Refusal("bad-request", f"answered with {what} when it was to agree on secrets", name)
