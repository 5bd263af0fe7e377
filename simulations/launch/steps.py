"""The steps of a simulation that need torch, for a process that has it.

Importing this module loads no torch, so that the launcher and the server can name a step without
the memory that it takes; each function imports what it needs when it is called in the helper.
"""

from collections.abc import Sequence
from pathlib import Path

from server.protocol import Tensors
from simulations.run_folder import load_prepared
from simulations.scenario import Baseline


def prepare_folder(
    folder: Path,
    scenario: str,
    settings: Sequence[str],
    data_root: Path | None,
    state_dir: Path | None,
) -> None:
    """Read the scenario, check budgets and data, and write the run folder.

    Args:
        scenario: Name of a shipped scenario, or path of a YAML file.
        settings: Overrides, KEY=VALUE.
        data_root: Folder of MedMNIST files.
        state_dir: Where sites keep ledger and tensors; in the run folder if left out.
    Raises:
        MedFormerError: Settings, budget or data do not allow the run.
    """
    from simulations.prepare.prepare import prepare
    from simulations.scenario_file import load_scenario

    wanted = load_scenario(scenario, settings)
    prepare(wanted, folder, data_root=data_root, state_dir=state_dir)


def train_here(folder: Path, data_root: Path | None, actors: int | None) -> None:
    """Train a prepared run folder without Flower; outcome.json says whether it is complete."""
    from simulations.launch.loop import run_loop

    run_loop(folder, data_root, actors=actors)


def single_threaded() -> None:
    """Keep torch to one thread, so that workers can be forked from this process later."""
    import torch

    torch.set_num_threads(1)


def compare_and_report(
    folder: Path, baselines: Sequence[Baseline] | None, canaries: int = 0
) -> None:
    """Train the baselines, attack the run if asked to, and write the report of a complete run.

    Args:
        folder: The run folder.
        baselines: The baselines to train; those of the scenario if None.
        canaries: Number of canaries of an audit; no audit if 0.
    Raises:
        AuditError: The audit refutes a claim of the run. The report is written, and says so.
    """
    from server.report.pictures import draw_pictures
    from simulations.baselines.fitted_heads import collect_heads
    from simulations.baselines.jobs import run_all
    from simulations.examples import write_examples
    from simulations.finish import finish
    from simulations.judging.roc import write_roc
    from simulations.progress import say

    prepared = load_prepared(folder)
    # An empty tuple means none; None means those of the scenario.
    if baselines != ():
        run_all(folder, say, baselines)
    # After the baselines, whose workers are forked before torch computes anything here.
    collect_heads(prepared)
    draw_pictures(folder)
    write_examples(prepared)
    write_roc(prepared)
    refuted = None
    if canaries:
        from simulations.audits.run import audit_run

        refuted = audit_run(prepared, canaries, say)
    finish(prepared)
    if refuted:
        from client.audit.canaries import AuditError

        raise AuditError(f"the audit refutes a claim of this run: {refuted}")


def public_start(folder: Path, data_root: Path | None) -> Tensors:
    """Return the shared tensors of round 0 of a prepared run folder."""
    from simulations.start.public import start_of

    return start_of(load_prepared(folder).federation, folder, data_root)
