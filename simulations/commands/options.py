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
    if optional:
        _add_dataset(parser)


def _add_dataset(parser: argparse.ArgumentParser) -> None:
    """Add what names a MedMNIST set in place of a scenario."""
    add = parser.add_argument
    add("--dataset", metavar="NAME",
        help="a MedMNIST set to divide over hospitals, in place of a scenario")  # fmt: skip
    add("--sites", type=int, metavar="N", help="with --dataset: number of hospitals (default: 4)")
    add("--size", type=int, metavar="PIXELS",
        help="with --dataset: side of its images (default: 28)")  # fmt: skip


def named(arguments: argparse.Namespace) -> tuple[str, list[str]]:
    """Return the scenario that a command names, and its overrides.

    Args:
        arguments: Of a parser whose scenario can be left out.
    Raises:
        ConfigError: Neither a scenario nor a set is named, a set and another scenario are, or an
            option of a set comes without one.
    """
    from medformer.errors import ConfigError

    given = {"sites": arguments.sites, "size": arguments.size}
    if not arguments.dataset:
        if alone := [name for name, value in given.items() if value is not None]:
            raise ConfigError(f"--{alone[0]} goes with --dataset: name the set, or leave it out")
        if not arguments.scenario:
            raise ConfigError("name a scenario, or a MedMNIST set with --dataset; or use --list")
        return arguments.scenario, list(arguments.settings)
    # `--list` names the scenario that a set is divided in: naming it as well is no contradiction.
    if arguments.scenario not in (None, "medmnist"):
        raise ConfigError(
            f"{arguments.scenario} and --dataset {arguments.dataset} both say what to train on: "
            "give one of them"
        )
    known = {"dataset": arguments.dataset, **given}
    chosen = [f"split.{name}={value}" for name, value in known.items() if value is not None]
    return "medmnist", [f"name={arguments.dataset}", *chosen, *arguments.settings]
