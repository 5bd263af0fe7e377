"""The outcome of a privacy audit, as JSON and as text."""

import json
from dataclasses import asdict, dataclass

from pydantic import TypeAdapter

from client.audit.checks import Check
from client.privacy.plan import PhasePlan
from medformer.common.rounding import digits_up, rounded_down, rounded_up


@dataclass(frozen=True)
class Report:
    """The outcome of an audit: `epsilon_lower_bound` refutes a smaller `claimed_epsilon`."""

    site: str
    claimed_epsilon: float
    """Epsilon of every trained step, and of the class count if the plan has one."""
    delta: float
    unit: str
    adjacency: str
    steps: int
    canaries: int
    included: int
    """Number of canaries that were among the records."""
    guesses: int
    correct: int
    tried_guesses: tuple[int, ...]
    """Numbers of guesses, fixed before the training; they share the confidence."""
    confidence: float
    epsilon_lower_bound: float
    expected_if_correct: float
    """Bound that a correct mechanism exceeds in nine of ten audits like this one."""
    expected_at_half_noise: float
    """Bound that a mechanism with half the noise exceeds in nine of ten audits."""
    checks: tuple[Check, ...]
    passed: bool
    """True if the bound is at most the claim and every check holds. It proves no more than that."""
    phases: tuple[PhasePlan, ...]
    preset: str
    phantoms: int
    images_per_canary: int
    noise_source: str
    accountant: str
    method: str = "one run, Dirac canaries, white box (arXiv:2305.08846, Theorem 5.2)"

    def to_json(self) -> str:
        """Return the report as JSON, with the keys of `schema`."""
        return json.dumps(asdict(self), indent=1)

    @staticmethod
    def schema() -> dict[str, object]:
        """Return the JSON schema of `to_json`."""
        return TypeAdapter(Report).json_schema()

    def as_text(self) -> str:
        """Return the report as lines of text."""
        lines = [
            f"site {self.site}: claimed epsilon {rounded_up(self.claimed_epsilon)}, "
            f"delta {digits_up(self.delta)}, per {self.unit}, {self.steps} steps, "
            f"{self.noise_source} noise",
            f"  {self.canaries} canaries, each in with probability 1/2: {self.correct} of "
            f"{self.guesses} guesses right (numbers fixed beforehand: "
            f"{', '.join(map(str, self.tried_guesses))})",
            f"  epsilon is at least {rounded_down(self.epsilon_lower_bound)}, with "
            f"{100 * self.confidence:g} % confidence (Steinke et al. 2023, Theorem 5.2)",
            f"  expected in nine of ten audits: {rounded_down(self.expected_if_correct)} of a "
            f"correct mechanism, {rounded_down(self.expected_at_half_noise)} with half the noise",
        ]
        if any(phase.honest > 1 for phase in self.phases):
            lines.append(
                "  audited: the sum over all honest sites, each of which adds a share of the noise"
            )
        for check in self.checks:
            lines.append(
                f"  {'ok    ' if check.passed else 'FAILED'}  {check.name}: {check.measured:.4f}, "
                f"{check.limit}"
            )
        lines.append(f"  {self.verdict()}")
        return "\n".join(lines)

    def verdict(self) -> str:
        """Return the outcome in one sentence."""
        if problem := self.problem():
            return f"The audit refutes the claim: {problem}."
        return (
            f"The audit does not refute epsilon {rounded_up(self.claimed_epsilon)} at "
            f"{self.site}: {self.correct} of {self.guesses} guesses show at least "
            f"{rounded_down(self.epsilon_lower_bound)}. A mechanism with half the noise would "
            f"show {rounded_down(self.expected_at_half_noise)} in nine of ten audits, so that "
            "this one proves no more than the absence of large faults."
        )

    def problem(self) -> str | None:
        """Return the first fact that refutes the claim, in a sentence, or None."""
        # The bound is the stronger evidence, so it is named before the checks.
        if self.epsilon_lower_bound > self.claimed_epsilon:
            return (
                f"site {self.site}: epsilon is at least {rounded_down(self.epsilon_lower_bound)}, "
                f"the plan claims {rounded_up(self.claimed_epsilon)}: do not use this installation"
            )
        if failed := [check.name for check in self.checks if not check.passed]:
            return (
                f"site {self.site}: this is not the mechanism of the plan ({'; '.join(failed)}): "
                "do not use this installation"
            )
        return None
