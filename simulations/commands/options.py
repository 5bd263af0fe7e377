"""Options that several commands on scenarios share."""

import argparse
from pathlib import Path


class _Set(argparse.Action):
    """Collects KEY=VALUE; the word `help` prints every key and ends the command."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        value: object,
        *_: object,
    ) -> None:
        if value == "help":
            from simulations.settings.files import text

            print(text("scenario"))
            parser.exit()
        setattr(namespace, self.dest, [*getattr(namespace, self.dest), str(value)])


def add_scenario(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """Add the scenario, its overrides and the folder of its data.

    Args:
        parser: Parser of the command.
        optional: Let the scenario be left out.
    """
    parser.add_argument("scenario", nargs="?" if optional else None, metavar="SCENARIO",
                        help="name of a shipped scenario, or a .yaml file")  # fmt: skip
    parser.add_argument("--set", action=_Set, default=[], metavar="KEY=VALUE", dest="settings",
                        help="override a key of the scenario, such as privacy.epsilon=3; "
                        "`--set help` lists all keys")  # fmt: skip
    parser.add_argument("--data-root", type=Path, metavar="FOLDER",
                        help="folder with MedMNIST files (default: ~/.medmnist)")  # fmt: skip
