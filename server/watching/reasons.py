"""Says in one sentence why a run has ended without a model, and what to do about it."""

import shlex
from collections.abc import Mapping

from medformer.errors import one_line

MAX_SENTENCE = 900
"""Characters of a whole sentence; a long list of refusals is shortened in its middle."""
MAX_CAUSE = 600
BY_CODE: Mapping[str, str] = {
    "policy": "agree on a run.yaml that every policy.yaml allows",
    "approval-pending": "ask these sites for their approval, or give them more approval_hours",
    "budget-exhausted": "lower the epsilon of these sites, or leave them out",
    "ledger-rolled-back": "have these sites restore their newest ledger, or leave them out",
    "closed-now": "submit it when these sites are open, or give them more approval_hours",
    "bad-request": "install the same version at server and sites, and see the sites' logs",
}
"""Code of a refusal -> what helps."""


def sentence(kind: str, reason: str, refusals: Mapping[str, str], submit: str) -> str:
    """Return why a run has failed and what to do, as one sentence.

    Args:
        kind: Name of the error's class, as outcome.json has it; empty for a process that ended
            without an outcome.
        reason: The error's text.
        refusals: Site -> `code: reason`, for the sites that take no part.
        submit: Command line that submits the run again; empty if the reader has just typed it.
    """
    cause = one_line(reason, MAX_CAUSE).strip().rstrip(".")
    return one_line(f"{cause[:1].upper()}{cause[1:]}: {_remedy(kind, cause, refusals, submit)}.",
                    MAX_SENTENCE)  # fmt: skip


def submit_command(folder: str, file: str, out: str) -> str:
    """Return the command line that submits a run again.

    Args:
        folder: Folder of the consortium.
        file: run.yaml.
        out: The run folder.
    """
    words = ("fedmedformer", "consortium", "submit", folder, file, "--out", out)
    return shlex.join(words)


def _remedy(kind: str, cause: str, refusals: Mapping[str, str], submit: str) -> str:
    again = "submit it again to go on from the last finished round"
    again += f" ({submit})" if submit else ""
    if kind in ("RunInterrupted", "SuperLinkError"):
        return again
    if not kind:
        return f"if nobody stopped it on purpose, {again}"
    if kind == "FederationError" and "other sources" in cause:
        return (
            "once all have the same version, submit it again, into a new folder if the server's "
            "version is another one now"
        )
    if kind == "FederationError":
        return _for_refusals(refusals)
    if kind == "CheckpointError":
        return f"make room and check the permissions of the run folder, then {again}"
    if kind in ("ConfigError", "ModelFileError"):
        return f"correct what it names, then {again}"
    return (
        f"this was not expected ({kind}); the SuperLink's logs have the details; {again}, and "
        "report it if it comes back"
    )


def _for_refusals(refusals: Mapping[str, str]) -> str:
    """Return what helps against the refusals of a run that could not begin."""
    codes = dict.fromkeys(text.partition(":")[0] for text in refusals.values())
    advice = [BY_CODE[code] for code in codes if code in BY_CODE]
    wanted = ", ".join(advice) or "see which site it names, and its log"
    return f"{wanted}, then submit it again, into a new folder if run.yaml has changed"
