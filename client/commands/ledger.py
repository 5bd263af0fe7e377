"""`fedmedformer site ledger|report|restored`: what the site's privacy has cost so far."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from client.commands.given import FOLDER, SITE, ledger_of, site_file, site_folder, state_folder
from medformer.common.actions import Action, add_actions, run_action

if TYPE_CHECKING:
    from client.ledger.chain import Row


def _place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "place",
        type=Path,
        metavar="FOLDER",
        help="the site's folder; a state folder, a ledger or an export of one works, too",
    )


def _read(arguments: argparse.Namespace) -> "list[Row]":
    """Read the ledger as the guard's user, who owns it."""
    from client.ledger import export as ledger_file
    from client.node.launch import act_as_guard

    place = ledger_of(arguments.place)
    act_as_guard(place.parent)
    return ledger_file.read(place)


def _show(arguments: argparse.Namespace) -> None:
    """Print budget and runs.

    Raises:
        LedgerError: There is no ledger, or its chain is broken.
    """
    from client.ledger.export import as_text

    print(as_text(_read(arguments)))


def _configure_verify(parser: argparse.ArgumentParser) -> None:
    _place(parser)
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="report.json of a run: the ledger must hold the row that it names",
    )
    parser.add_argument("--site", metavar="NAME", help="this site's name in the report")


def _verify(arguments: argparse.Namespace) -> None:
    """Recompute the hash chain.

    Raises:
        LedgerError: There is no ledger, its chain is broken, or it is older than the report.
    """
    from client.ledger.export import held_against

    rows = _read(arguments)
    # An old copy of the ledger has an intact chain, too. Only a report shows that rows are gone.
    if arguments.report:
        held_against(rows, arguments.report, arguments.site)
    # The hash of the newest row vouches for all rows before it.
    newest = f", newest {rows[-1].hash}" if rows else ""
    print(f"{len(rows)} rows, chain intact{newest}")


def _configure_export(parser: argparse.ArgumentParser) -> None:
    _place(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write")


def _export(arguments: argparse.Namespace) -> None:
    """Write all rows as JSON lines.

    Raises:
        LedgerError: There is no ledger, or its chain is broken.
    """
    from client.ledger import export as ledger_file

    rows = ledger_file.read(
        ledger_of(arguments.place)
    )  # as this user: the guard's may not write to --out
    ledger_file.export(rows, arguments.out)
    print(f"{len(rows)} rows: {arguments.out}")


def _configure_report(parser: argparse.ArgumentParser) -> None:
    _place(parser)
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="PAGE.html",
        help="page to write; the same as JSON is written beside it",
    )  # fmt: skip


def _report(arguments: argparse.Namespace) -> None:
    """Write the lifetime page and its JSON, and print their names.

    Raises:
        ConfigError: The page's name does not end in .html.
        LedgerError: There is no ledger, its chain is broken, or a file cannot be written.
    """
    import json

    from client.ledger import export as ledger_file
    from client.ledger.chain import LedgerError
    from client.ledger.rows import utc_now
    from client.lifetime.document import document
    from client.lifetime.facts import lifetime
    from client.lifetime.page import page
    from medformer.common.files import replace_file
    from medformer.errors import ConfigError

    out: Path = arguments.out
    # Browsers open a file by the end of its name.
    if out.suffix not in (".html", ".htm"):
        raise ConfigError(f"{out}: the page's name must end in .html")
    life = lifetime(ledger_file.read(ledger_of(arguments.place)))  # as this user, as for export
    found = document(_site_name(arguments.place), life, utc_now())
    try:
        replace_file(out.with_suffix(".json"), json.dumps(found, indent=1).encode() + b"\n")
        replace_file(out, page(found).encode())
    except OSError as error:
        raise LedgerError(f"{out}: cannot be written ({error.strerror})") from error
    runs = "1 run" if len(life.runs) == 1 else f"{len(life.runs)} runs"
    print(f"{out}, {out.with_suffix('.json')}: {runs} in {len(life.rows)} rows")


def _site_name(place: Path) -> str:
    """Return the name that site.yaml has, or else that of the place."""
    from client.site import load_site

    file = site_folder(place) / SITE
    return load_site(file).name if file.exists() else place.name


VERBS = (
    Action(
        "show",
        "print the budget, what is left of it, and every run",
        "site ledger show north",
        _place,
        _show,
    ),
    Action(
        "verify",
        "recompute the hash chain of the ledger or of an export",
        "site ledger verify north --report report.json --site north",
        _configure_verify,
        _verify,
    ),
    Action(
        "export",
        "write all rows as JSON lines",
        "site ledger export north --out ledger.jsonl",
        _configure_export,
        _export,
    ),
)


def _configure_restored(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=site_folder, metavar="FOLDER", help=FOLDER)
    parser.add_argument(
        "--why", required=True, metavar="REASON", help="why it is used here now, as one line"
    )


def _restored(arguments: argparse.Namespace) -> None:
    """Take a restored or moved state folder into use, as a row of its ledger.

    Raises:
        ConfigError: The reason is not one line.
        LedgerError: There is no ledger, it is older than its anchor, or it was changed.
    """
    import getpass

    from client.ledger.home import restore
    from client.node.launch import act_as_guard
    from client.site import load_site

    site = load_site(site_file(arguments.folder))
    who = getpass.getuser()  # before this process becomes the guard's user
    act_as_guard(arguments.folder)
    row = restore(site, state_folder(arguments.folder), who, arguments.why)
    if row is None:
        print("in use here already: there is nothing to do")
        return
    print(f"in use here from row {row.seq} on: {row.hash}")
    print("Delete the other copy, or close it away: a guard there would spend the budget twice.")
    if site.ledger_anchor is None:
        print(
            "site.yaml has no ledger_anchor: nothing shows whether this copy is the newest. Runs "
            "that were admitted after it was made are missing from its budget."
        )


def _configure(parser: argparse.ArgumentParser) -> None:
    add_actions(parser, VERBS, dest="verb", metavar="VERB")


def _run(arguments: argparse.Namespace) -> None:
    run_action(VERBS, arguments, dest="verb")


ACTIONS = (
    Action(
        "ledger",
        "show, verify or export what the site's privacy has cost so far; reads no record",
        "site ledger show north",
        _configure,
        _run,
    ),
    Action(
        "report",
        "write the ledger's lifetime as a page for the data-protection officer; reads no record",
        "site report north -o north.html",
        _configure_report,
        _report,
    ),
    Action(
        "restored",
        "take a restored or moved state folder into use, when the other copy is gone for good",
        "site restored north --why 'new machine, the old one is scrapped'",
        _configure_restored,
        _restored,
    ),
)
