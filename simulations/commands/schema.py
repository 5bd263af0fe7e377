"""`fedmedformer schema`: the keys of a settings file, or its JSON schema for an editor."""

import argparse
import json


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fedmedformer schema`."""
    from simulations.settings.files import FILES

    parser.add_argument("file", choices=tuple(FILES), metavar="FILE",
                        help=f"kind of settings file: {', '.join(FILES)}")  # fmt: skip
    parser.add_argument("--json", action="store_true",
                        help="print the JSON schema instead of text")  # fmt: skip
    parser.epilog = "example: fedmedformer schema scenario"


def run(arguments: argparse.Namespace) -> None:
    """Print the keys, their values, defaults and meanings."""
    from simulations.settings.files import schema, text

    print(json.dumps(schema(arguments.file), indent=1) if arguments.json else text(arguments.file))
