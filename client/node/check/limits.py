"""The lines of `site check` about what a run may cost and compute: ledger and policy."""

import os
from pathlib import Path

from client.ledger import export as ledger_file
from client.ledger.anchor import held_by_anchor
from client.ledger.budget import registrable
from client.ledger.chain import FILE
from client.ledger.home import refuse_copy
from client.node.check.line import Check
from client.node.check.place import Lines, Place
from client.node.permissions import ExposedError, only_ours
from client.policy import load_policy
from client.privacy.composition import Budget, Cost
from medformer.common.rounding import digits_down, exact, percent_down, rounded_down
from medformer.errors import ConfigError


def check_budget(place: Place) -> Lines:
    """Check that the ledger is whole and has budget left for another run.

    Args:
        place: The site and its folder.
    Raises:
        ConfigError: The ledger of a site that has trained is missing or empty.
        LedgerError: The ledger cannot be read, is older than its anchor, or is a copy.
    """
    file, privacy = place.state / FILE, place.site.privacy
    rows = ledger_file.read(file) if file.exists() else []
    # A new ledger beside old runs would hand out a budget that is already spent.
    if not rows and (place.state / "runs").exists():
        raise ConfigError(
            f"{file}: is missing or empty, but this site has trained, and so has spent budget. "
            "Restore the newest copy of the ledger"
        )
    if place.site.ledger_anchor is not None:
        held_by_anchor(rows, place.site.ledger_anchor, file)
    if rows:
        refuse_copy(rows, file)
    cohorts = [row.values for row in rows if row.kind == "cohort"]
    declared = registrable(cohorts, privacy, file)
    total = declared.total(row.values for row in rows if row.kind == "reservation")
    runs = sum(row.kind == "reservation" for row in rows)
    text = f"{runs} runs so far; {_left(declared, total)} for all later ones"
    # Under the RDP rule a run's curve is known only when it is planned: assume the cheapest.
    one = Cost(privacy.epsilon, privacy.delta, declared.nothing.renyi)
    if declared.fits(total + one) and declared.used(total) < 1:
        yield Check("budget", "OK", text)
    else:
        yield Check("budget", "FIX", (
            f"{text}, but one may cost epsilon {exact(privacy.epsilon)}, "
            f"delta {exact(privacy.delta)}. Spent budget never comes back: lower privacy.epsilon "
            "and delta to make runs cheaper, or leave the federation"
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


def check_policy(place: Place) -> Lines:
    """Check that site.yaml and policy.yaml together allow at least one run.

    Args:
        place: The site and its folder.
    Raises:
        ConfigError: policy.yaml cannot be used.
    """
    policy, site = load_policy(place.folder / "policy.yaml"), place.site
    allowed = [name for name in policy.objectives if name in site.objectives]
    limit = policy.max_epsilon_per_run
    wrong = []
    if site.privacy.unit == "image" and not policy.accept_unit_image:
        wrong.append(
            "site.yaml protects single images, which policy.yaml does not accept: set unit: "
            "patient, or accept_unit_image: true where each patient has one image"
        )
    # The guard would refuse every run at its admission.
    if site.privacy.epsilon > limit:
        wrong.append(
            f"a run may cost epsilon {exact(site.privacy.epsilon)} in site.yaml, but only "
            f"{exact(limit)} in policy.yaml: noise would be planned for the former, and the run "
            f"refused. Set privacy.epsilon: {exact(limit)}"
        )
    if not allowed:
        wrong.append("site.yaml and policy.yaml allow no objective in common: edit one of them")
    if policy.on_waiting:
        wrong += _not_started(Path(policy.on_waiting[0]))
    yield from (Check("policy", "FIX", text) for text in wrong)
    if not wrong:
        yield Check("policy", "OK", (
            f"{', '.join(allowed)}; epsilon up to {exact(limit)} a run; approval {policy.approval}"
        ))  # fmt: skip


def _not_started(program: Path) -> list[str]:
    """Say why the program of `on_waiting` would not be started; nothing if it would."""
    try:
        only_ours(program)
    except (ExposedError, OSError) as error:
        return [f"on_waiting: {error}"]
    if not os.access(program, os.X_OK):
        return [f"on_waiting: {program} cannot be executed by the guard's user (chmod +x)"]
    return []
