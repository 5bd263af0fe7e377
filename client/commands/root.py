"""The option with which root insists on running the consortium's code as root."""

import argparse


def add_allow_root(parser: argparse.ArgumentParser) -> None:
    """Add --allow-root, and --one-user, its older name."""
    parser.add_argument(
        "--allow-root",
        "--one-user",
        action="store_true",
        dest="allow_root",
        help="run the consortium's code as root (not recommended)",
    )
