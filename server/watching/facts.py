"""The facts that `consortium status` shows, as text, JSON, page and metrics.

Names and reasons in them may come from sites: each is one printable line of bounded length.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

VERSION = 1
"""Version of the JSON."""
RunState = Literal["starting", "running", "done", "interrupted", "failed", "gone"]
"""`interrupted`: submitting it again continues it; `failed`: something has to change first; `gone`:
its process has ended without an outcome."""
Connection = Literal["connected", "away", "never-seen", "server-down"]
Standing = Literal["admitted", "no-request", "not-provisioned", "revoked"]
"""`no-request`: request.json has not come; `not-provisioned`: `consortium provision` is due."""
SitePart = Literal[
    "not-asked", "takes-part", "waits-for-approval", "closed-now", "refused", "excluded", "away"
]
"""A site's part in a run; `excluded`: it is not asked again in this submission."""


@dataclass(frozen=True)
class Member:
    """One member of the consortium."""

    name: str
    standing: Standing
    connection: Connection
    last_seen: str | None
    """Time at which the server heard its node last, in UTC; None if it never did."""
    sources: Literal["equal", "other", "unknown"]
    """Comparison of its installation's sources with the server's, as it said when the newest run
    began; `unknown` before that."""


@dataclass(frozen=True)
class RunSite:
    """One site of a run."""

    name: str
    part: SitePart
    reason: str
    """Its words, or the loss of its answer; empty if there is nothing to say."""
    asked: bool
    """True if the question in progress went to it."""
    answered: bool
    """True if it has answered that question."""
    rounds: int
    """Rounds in which its update was accepted."""
    epsilon: float | None
    """Epsilon of the whole run, which its ledger has reserved; None before that."""
    delta: float | None
    unit: str
    """`image` or `patient`: whose presence epsilon hides; empty before the reservation."""
    epsilon_so_far: float | None
    """Upper bound of what has been spent of it, the round in progress included."""
    bytes_sent: int | None
    """Bytes of all questions to it, before compression and without what transport adds; None if
    the run's coordinator did not count them."""
    bytes_received: int | None

    @property
    def epsilon_left(self) -> float | None:
        """Part of the run's epsilon that is surely unspent. It stays reserved all the same."""
        if self.epsilon is None or self.epsilon_so_far is None:
            return None
        return max(0.0, self.epsilon - self.epsilon_so_far)


@dataclass(frozen=True)
class Event:
    """A refusal, an absence or the like."""

    kind: str
    round: int
    site: str
    text: str


@dataclass(frozen=True)
class Run:
    """One run."""

    name: str
    folder: str
    flower_run_id: str
    submitted: str
    state: RunState
    stage: str
    """Step that goes on now, in words; empty when the run has ended."""
    since: str
    """Time at which that began, in UTC; empty if it is not known."""
    waits_for: tuple[str, ...]
    """Sites whose answer or approval is missing now."""
    round: int
    """Round that is being trained, or was trained last; 0 before the first."""
    rounds_done: int
    rounds: int
    phase: str
    """Phase of that round; empty before the first."""
    seconds_per_round: float | None
    """Mean of the rounds that the estimate is made from."""
    seconds_left: float | None
    basis: str
    """Source of the estimate of `seconds_left`, or the reason why it is unknown."""
    sites: tuple[RunSite, ...]
    events: dict[str, int]
    """Kind of event -> how many there were."""
    newest_events: tuple[Event, ...]
    failure: str
    """Why it has ended without a model and what to do, in a sentence; empty if it has not."""


@dataclass(frozen=True)
class Status:
    """Everything that is known of a consortium at one moment."""

    consortium: str
    at: str
    """Time in UTC."""
    server_up: bool
    members: tuple[Member, ...]
    run: Run | None
    """The run that was submitted last, or that was asked for."""
    others: tuple[tuple[str, RunState], ...]
    """(folder, state) of the other runs, the newest first."""

    def to_json(self) -> dict[str, Any]:
        """Return the facts as plain values for JSON."""
        found = {"version": VERSION, **asdict(self)}
        for plain, site in zip(
            (found["run"] or {}).get("sites", ()), self.run.sites if self.run else (), strict=True
        ):
            plain["epsilon_left"] = site.epsilon_left
        found["others"] = [{"folder": folder, "state": state} for folder, state in self.others]
        return found
