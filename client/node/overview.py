"""The text of `fedmedformer site status`: connection, questions, the run, the budget."""

import json
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from client.ledger.chain import FILE, LedgerError
from client.ledger.export import budget_lines, read
from client.lifetime.facts import Lifetime, Question, Refusal, Run, lifetime, utc
from client.node.folder import Node
from client.node.health import SERVER, connection
from medformer.common.health import SERVING, SINCE, WHY
from medformer.common.rounding import digits_up, rounded_up
from medformer.errors import ConfigError, one_line

ANNOUNCED = "announced.json"
"""File in the state folder that remembers which questions were announced, and how that went."""


@dataclass(frozen=True)
class Overview:
    """The state of one site at one moment."""

    folder: Path
    """The site's folder, as it was typed."""
    consortium: str
    """Name and address of the consortium; empty before there is a kit."""
    processes: dict[str, str]
    """`serving`, or what is wrong, by name; empty if the node is not up."""
    link: dict[str, str]
    """`since` and `why` of the connection to the server."""
    life: Lifetime | None
    """Content of the ledger; None before the first run."""
    told: dict[str, str]
    """Run -> how its announcement went."""
    ledger_error: LedgerError | None = None
    """Why the ledger cannot be read."""
    closed: bool = False
    """This user may not enter the state folder."""

    def values(self) -> dict[str, Any]:
        """Return everything as values for JSON; epsilons are exact."""
        life = self.life
        return {
            "consortium": self.consortium,
            "connected": self.processes.get(SERVER) == SERVING,
            **{key: self.link.get(key) for key in (SINCE, WHY)},
            "processes": self.processes,
            "ledger_error": str(self.ledger_error) if self.ledger_error else None,
            "waiting": [
                {
                    **asdict(one),
                    "announced": self.told.get(one.run_id),
                    "command": command(self.folder, one.run_id),
                }
                for one in (life.waiting if life else ())
            ],
            "run": _run_values(life.current) if life and life.current else None,
            "budget": _budget_values(life) if life else None,
            "last_refusal": asdict(life.refusals[-1]) if life and life.refusals else None,
        }

    def text(self) -> str:
        """Return the same in plain words."""
        lines = [f"consortium: {self.consortium or 'none yet: unpack its kit with site init'}"]
        lines += [f"{name}: {state}" for name, state in self.processes.items() if name != SERVER]
        lines.append(f"server: {self._server()}")
        if self.ledger_error:
            return "\n".join([*lines, f"ledger: cannot be read: {self.ledger_error}"])
        if self.closed:
            return "\n".join(
                [*lines, "ledger: closed to this user: ask as root or as the guard's user"]
            )
        if self.life is None:
            return "\n".join([*lines, "waits for an answer: nothing", "ledger: no run has asked"])
        return "\n".join([*lines, *self._life_lines(self.life)])

    def _server(self) -> str:
        """Say whether the site is connected, since when, and why not."""
        state, since = self.processes.get(SERVER), utc(self.link.get(SINCE, ""))
        if state == SERVING:
            return f"connected{f' since {since}' if since else ''}"
        if state is None:
            return "not connected: this node is not up"
        if not since:  # the node itself does not answer
            return f"not connected: {state}"
        return f"not connected since {since}: {self.link.get(WHY, '')}; {state}"

    def _life_lines(self, life: Lifetime) -> list[str]:
        """Return questions, the run, the budget and the last refusal as lines."""
        lines = [f"waits for an answer: {len(life.waiting) or 'nothing'}"]
        for one in life.waiting:
            lines.append(f"  {question_text(one, self.consortium)}")
            lines.append(f"  {command(self.folder, one.run_id)}")
            if (how := self.told.get(one.run_id, "done")) not in ("done", "started"):
                lines.append(f"  on_waiting failed: {one_line(how, 300)}")
        lines.append(f"run in progress: {_run_text(life.current) if life.current else 'none'}")
        budget = budget_lines(life.budget, life.total)
        lines += [f"budget of all runs: {line}" for line in budget]
        last = _refusal_text(life.refusals[-1]) if life.refusals else "none"
        return [*lines, f"last refusal: {last}"]


def look(folder: Path, processes: dict[str, str], health_port: int | None = None) -> Overview:
    """Look at a site: its kit, its node's connection and its ledger.

    Args:
        folder: The site's folder.
        processes: As `client.node.health.status` found them; empty if the node is not up.
        health_port: Port of the SuperNode's health page.
    """
    link = connection(folder, health_port) if processes else {}
    life, wrong, closed = None, None, False
    try:
        life = _life(folder)
        told = announced(Node(folder).state / ANNOUNCED)["told"]
    except LedgerError as error:
        wrong, told = error, {}
    except PermissionError:  # the node's user may look at the processes, and at nothing else
        closed, told = True, {}
    return Overview(folder, consortium_of(folder), processes, link, life, told, wrong, closed)


def _life(folder: Path) -> Lifetime | None:
    """Read the ledger of a site; None if it has none yet."""
    state = Node(folder).state
    return lifetime(read(state)) if (state / FILE).exists() else None


def consortium_of(folder: Path) -> str:
    """Return name and address of the consortium as the kit has them; empty if there is no kit.

    Args:
        folder: The site's folder.
    """
    try:
        kit = Node(folder).kit()
        return one_line(f"{kit['consortium']} ({kit['hosts'][0]}:{kit['port']})", 200)
    except (ConfigError, KeyError):
        return ""


def announced(file: Path) -> dict[str, Any]:
    """Read which questions were announced; a file that is damaged is as good as none.

    Args:
        file: `ANNOUNCED` in the state folder.
    Returns:
        `told`: run -> how it went; `starts`: times at which the hospital's program was started.
    """
    try:
        found = json.loads(file.read_bytes())
        starts = [float(start) for start in found["starts"]]
        return {"told": {str(k): str(v) for k, v in found["told"].items()}, "starts": starts}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {"told": {}, "starts": []}


def command(folder: Path, run_id: str) -> str:
    """Return the command line that shows a waiting run, for a person to type.

    Args:
        folder: The site's folder.
        run_id: Letters, digits and `-`.
    """
    return f"fedmedformer site approve {shlex.quote(str(folder))} {run_id}"


def question_text(one: Question, consortium: str) -> str:
    """Return a waiting question in one line.

    Args:
        one: The question.
        consortium: Name of the consortium.
    """
    cost = (
        "its cost is shown by the command"
        if one.epsilon is None
        else f"it would cost epsilon {rounded_up(one.epsilon)}, delta {digits_up(one.delta or 0)}"
    )
    who = consortium.split(" ")[0] or "the consortium"
    return f"run {one.run_id}, asked by {who} since {utc(one.since)}; {cost}"


def _run_text(run: Run) -> str:
    """Describe a run that has planned rounds left."""
    charged = f"epsilon {rounded_up(run.plan.epsilon)} charged for all of them at its admission"
    if run.newest is None:
        return f"{run.run_id}, admitted {utc(run.admitted)}, no round yet; {charged}"
    done = "answered" if run.newest.answered else "started"
    return (
        f"{run.run_id}, round {run.newest.round} of {run.plan.rounds} {done}, last asked "
        f"{utc(run.newest.time)}; {charged} (a site is not told when a run is given up)"
    )


def _refusal_text(one: Refusal) -> str:
    times = f", {one.count} times or more since {utc(one.first)}" if one.count > 1 else ""
    return f"{utc(one.last)}{times}, run {one.run_id or 'unknown'}: {one.code}: {one.reason}"


def _run_values(run: Run) -> dict[str, Any]:
    """Return a run for JSON."""
    return {
        "run_id": run.run_id,
        "admitted": run.admitted,
        "rounds": run.plan.rounds,
        "newest": asdict(run.newest) if run.newest else None,
        "epsilon_charged": run.plan.epsilon,
        "delta_charged": run.plan.delta,
    }


def _budget_values(life: Lifetime) -> dict[str, Any]:
    """Return the budget for JSON: what all runs together cost, and the limit."""
    epsilon, delta = life.budget.spent(life.total)
    return {
        "unit": life.unit,
        "rule": life.budget.rule,
        "epsilon_budget": life.budget.epsilon,
        "delta_budget": life.budget.delta,
        "epsilon": epsilon,
        "delta": delta,
        "used": life.budget.used(life.total),
    }
