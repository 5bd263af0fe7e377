"""Break the mechanism in every way we could think of, and see what notices.

    python -m tests.mutations --out docs/results/mutations.json [--only NAME]

Each mutation is a change of a line or two in a copy of the sources. Then two audits run there, and
the tests of the client. A mutation that neither notices is a hole in the tests: exit code 1.
docs/privacy.md shows the file as a table. About 40 minutes; goes on where it stopped.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulations.benchmarks import record

ROOT = Path(__file__).parent.parent
IMAGES = ("quickstart", "--site", "chest-north")
PATIENTS = """
name: patients
pretraining: false
privacy: {epsilon: 8, delta: 1.0e-5, epsilon_budget: 8, unit: patient}
phases:
  - {name: supervised, rounds: 16, local_steps: 2, objectives: {supervised: 1.0},
     learning_rate: 0.1, expected_batch_size: 128}
sites:
  - name: chest
    privacy: {n_public: 1000}
    domain: {name: chest, modality: chest-xray, anatomy: chest, channels: 1, size: 28}
    tasks: [{name: chest, kind: binary-class, classes: 2}]
    data: {source: folder, path: an audit reads no record}
"""
TESTS = (
    "tests/client",
    "--ignore=tests/client/test_canaries.py",  # an audit
    "--ignore=tests/client/test_mutations.py",  # notices any change of these lines
)
SHOWN = 3
"""Failing tests after which a run of them stops."""


@dataclass(frozen=True)
class Mutation:
    """One way to break the guarantee."""

    name: str
    file: str
    old: str
    """Occurs once in the file."""
    new: str


MUTATIONS = (
    Mutation(
        "no noise",
        "client/privacy/noise.py",
        "return release(total.double(), std, self)",
        "return total.double()",
    ),
    Mutation(
        "half the noise",
        "client/privacy/noise.py",
        "return release(total.double(), std, self)",
        "return release(total.double(), std / 2, self)",
    ),
    Mutation(
        "noise of the bound of one group where two are clipped apart",
        "client/privacy/plan.py",
        "max_grad_norm=phase.sensitivity,",
        "max_grad_norm=phase.max_grad_norm,",
    ),
    Mutation(
        "the whole batch clipped by its largest norm",
        "client/privacy/bookkeeping.py",
        "factors = torch.where(usable, (bound / (norms + 1e-6)).clamp(max=1.0), 0.0)",
        "factors = torch.where(usable, (bound / (norms.max() + 1e-6)).clamp(max=1.0), 0.0)",
    ),
    Mutation(
        "the batch's mean clipped, not its units",
        "client/privacy/bookkeeping.py",
        """            for name, total in table.weighted(factors, usable).items():
""",
        """            whole_sum = table.weighted(usable.float(), usable)
            length = torch.sqrt(sum(t.square().sum() for t in whole_sum.values())) / len(valid)
            factors = torch.where(usable, (bound / length).clamp(max=1.0), 0.0)
            for name, total in table.weighted(factors, usable).items():
""",
    ),
    Mutation(
        "no clipping",
        "client/privacy/bookkeeping.py",
        "factors = torch.where(usable, (bound / (norms + 1e-6)).clamp(max=1.0), 0.0)",
        "factors = usable.float()",
    ),
    Mutation(
        "shuffled batches of a fixed size instead of Poisson sampling",
        "client/privacy/engine.py",
        "return (self._noise.uniform(count) < self._sample_rate).nonzero().flatten()",
        "return self._noise.uniform(count).argsort()[: round(count * self._sample_rate)].sort()[0]",
    ),
    Mutation(
        "sampling rate twice as high as accounted for",
        "client/privacy/engine.py",
        "self._sample_rate = plan.sample_rate",
        "self._sample_rate = min(1.0, 2 * plan.sample_rate)",
    ),
    Mutation(
        "division by the drawn batch's size",
        "client/privacy/engine.py",
        "total = self.accumulate(losses, valid, parts, units)\n        self._optimizer.step()",
        "total = self.accumulate(losses, valid, parts, units)\n"
        "        self._optimizer.expected_batch_size = max(1, len(valid))\n"
        "        self._optimizer.step()",
    ),
    Mutation(
        "local heads trained without noise",
        "client/privacy/engine.py",
        "self._total = self._noise.noised(self.total(), self._std)",
        "shared = sum(p.numel() for p in self.param_groups[0]['params'])\n"
        "        noisy = self._noise.noised(self.total()[:shared], self._std)\n"
        "        self._total = torch.cat([noisy, self.total()[shared:]])",
    ),
    Mutation(
        "noise seeded by the round's number alone",
        "client/simulated.py",
        "return SeededNoise(seed, site.name, reservation.row, round_, attempt)",
        "return SeededNoise(seed, site.name, round_)",
    ),
    Mutation(
        "the same noise in every step",
        "client/privacy/noise.py",
        "return release(total.double(), std, self)",
        "return release(total.double(), std, SeededNoise('again'))",
    ),
    Mutation(
        "epsilon of one round reported as the run's",
        "client/privacy/plan.py",
        "mechanisms = [p.mechanism() for p in phases]",
        "mechanisms = [p.mechanism(p.steps_per_round) for p in phases]",
    ),
    Mutation(
        "accountant reset with each run",
        "client/privacy/composition.py",
        "        total = self.nothing\n        for row in reservations:",
        "        total = self.nothing\n        for row in list(reservations)[-1:]:",
    ),
    Mutation(
        "spare rounds not charged",
        "client/privacy/plan.py",
        "parts = [(rate, rounds * steps) for _, _, rounds, steps, rate in rows]",
        "parts = [(rate, rounds * steps) for _, n, rounds, steps, rate in rows if n != SPARE]",
    ),
    Mutation(
        "budget reserved after the training",
        "client/guard.py",
        """        row = ledger.start_attempt(run.reservation, request.round, request.attempt, key)

        records""",
        """        row = ""

        records""",
    ),
    Mutation(
        "a lost round trained again at no cost",
        "client/privacy/ledger.py",
        "if attempt > 0 and spares_used >= reservation.spare_rounds:",
        "if attempt > 0 and spares_used > 1000:",
    ),
    Mutation(
        "a ledger put back from an old copy trained on",
        "client/guard.py",
        "if request.ledger_hash and not ledger.holds(request.ledger_hash):",
        "if request.ledger_hash and not ledger:",
    ),
    Mutation(
        "patients drawn and clipped as images",
        "client/training.py",
        'by_patient=privacy.unit == "patient"',
        "by_patient=False",
    ),
    Mutation(
        "each view of an image clipped as a unit of its own",
        "client/training.py",
        "return rows.repeat_interleave(views), units.repeat_interleave(views)",
        "return rows.repeat_interleave(views), None",
    ),
    Mutation(
        "norms of a patient's images summed instead of the norm of their mean",
        "client/privacy/bookkeeping.py",
        """            whole = Grouping(units, valid)
            entries = {name: entry.of_units(whole) for name, entry in entries.items()}
            valid = whole.valid
        sums: dict[str, Tensor] = {}
        for names, bound in groups:
            table = Table({n: entries[n] for n in names})
            norms = table.squares().sqrt()
""",
        """            whole = Grouping(units, valid)
            apart = whole.shares.square() * Table(entries).squares()
            entries = {name: entry.of_units(whole) for name, entry in entries.items()}
            valid = whole.valid
        sums: dict[str, Tensor] = {}
        for names, bound in groups:
            table = Table({n: entries[n] for n in names})
            norms = table.squares().sqrt()
            if units is not None:
                norms = torch.zeros_like(norms).index_add_(0, units, apart).sqrt()
""",
    ),
    Mutation(
        "gradients that are not finite let through",
        "client/privacy/bookkeeping.py",
        "usable = norms.isfinite() & valid",
        "usable = valid",
    ),
    Mutation(
        "invalid rows counted",
        "client/privacy/bookkeeping.py",
        "usable = norms.isfinite() & valid",
        "usable = norms.isfinite()",
    ),
    Mutation(
        "noise in floating point, off the grid",
        "client/privacy/discrete.py",
        "rounded = (total / unit).round_().clamp_(-(2.0**51), 2.0**51)",
        "rounded = (total / unit).clamp_(-(2.0**51), 2.0**51)",
    ),
    Mutation(
        "exact loss sent by a deployment",
        "client/guard.py",
        "exact_loss=loss if self.exact else None,",
        "exact_loss=loss,",
    ),
    Mutation(
        "local tensors sent",
        "client/training.py",
        "return {n: named[n].detach().numpy().copy() for n in shared_names(names)}",
        "return {n: named[n].detach().numpy().copy() for n in names}",
    ),
)


def mutated(mutation: Mutation, source: str) -> str:
    """The file's text with the change.

    Raises:
        ValueError: What is to be replaced is not there exactly once.
    """
    if source.count(mutation.old) != 1:
        raise ValueError(f"{mutation.name}: {mutation.file} no longer holds what it replaces")
    return source.replace(mutation.old, mutation.new)


def as_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """What docs/privacy.md shows of the result, in the order of `MUTATIONS`."""
    by_name = {row["mutation"]: row for row in rows}
    lines = ["| mutation | audit | tests |", "|---|---|---|"]
    for mutation in MUTATIONS:
        row = by_name[mutation.name]
        audit = (row["audit"] or "-").partition(": ")[2] or row["audit"] or "-"
        told = audit.removesuffix(": do not use this installation")
        told = told.removeprefix("this is not the mechanism of the plan ").strip("()")
        first = row["tests"][0].replace("::", " `", 1) + "`" if row["tests"] else "-"
        more = f" and {len(row['tests']) - 1} more" if len(row["tests"]) > 1 else ""
        lines.append(f"| {mutation.name} | {told} | {first}{more} |")
    return "\n".join(lines)


def run(mutation: Mutation, folder: Path) -> dict[str, Any]:
    """What notices the mutation, in a copy of the sources that becomes `folder`."""
    _copy(folder)
    file = folder / mutation.file
    file.write_text(mutated(mutation, file.read_text()))
    (folder / "patients.yaml").write_text(PATIENTS)
    audits = [_audit(folder, IMAGES), _audit(folder, ["patients.yaml"])]
    command = ["pytest", "-q", "-m", "not flower and not heavy", f"--maxfail={SHOWN}", "--tb=no"]
    done = _python(folder, [*command, "-p", "no:cacheprovider", *TESTS])
    failed = re.findall(r"^(?:FAILED|ERROR) (?:\S+/)?(\S+)", done.stdout, re.MULTILINE)
    return {
        "mutation": mutation.name,
        "file": mutation.file,
        "audit": next((found for found in audits if found), None),
        "tests": failed[:SHOWN],
        "caught": bool(failed or any(audits)),
        "commit": record.commit(),
    }


def _copy(folder: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((ROOT / name).read_bytes())


def _audit(folder: Path, scenario: Sequence[str]) -> str | None:
    """How the audit failed, if it did."""
    command = ["simulations.cli", "audit", *scenario, "--seed", "0", "--canaries", "4000"]
    done = _python(folder, command)
    if done.returncode == 0:
        return None
    return done.stderr.strip().splitlines()[-1].removeprefix("fedmedformer: ")


def _python(folder: Path, arguments: list[str]) -> "subprocess.CompletedProcess[str]":
    """Modules of the copy come first: the current folder does."""
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def main() -> int:
    """Run what is not in the file yet."""
    parser = argparse.ArgumentParser(description="Break the mechanism, see what notices.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", help="run this one again")
    arguments = parser.parse_args()
    rows = json.loads(arguments.out.read_text())["rows"] if arguments.out.exists() else []
    for mutation in MUTATIONS:
        known = [row["mutation"] for row in rows]
        if arguments.only != mutation.name and (arguments.only or mutation.name in known):
            continue
        with tempfile.TemporaryDirectory() as folder:
            row = run(mutation, Path(folder))
        rows = [r for r in rows if r["mutation"] != mutation.name] + [row]
        record.save(arguments.out, "mutations", rows)
        print(f"{mutation.name}: audit: {row['audit']}; tests: {row['tests']}", flush=True)
    missed = [row["mutation"] for row in rows if not row["caught"]]
    print(f"{len(rows) - len(missed)} of {len(rows)} caught; missed: {missed or 'none'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
