"""`python -I -m client.guard_rpc`: the guard of one site, as the hospital runs it.

-I keeps the working folder, the user's own packages and PYTHONPATH off the import path: a
consortium's bundle has packages of the same names, and none of its code may run in the guard.
"""

import argparse
import logging
import signal
import sys
import threading
from pathlib import Path


def main() -> int:
    """Serve one site until a signal comes.

    Returns:
        0 after SIGTERM or SIGINT, 1 if the guard cannot be served; the reason is on stderr.
    """
    parser = argparse.ArgumentParser(prog="python -I -m client.guard_rpc")
    parser.add_argument("--site", type=Path, required=True, metavar="SITE.yaml")
    parser.add_argument("--policy", type=Path, required=True, metavar="POLICY.yaml")
    parser.add_argument("--state", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--socket", type=Path, required=True, metavar="PATH")
    parser.add_argument(
        "--user", type=int, action="append", default=[], metavar="UID", help="user id of the relay"
    )
    arguments = parser.parse_args()
    # Imports of this project come after the options, so that a wrong option is named at once.
    from medformer.common.logs.line import use
    from medformer.errors import MedFormerError

    use("guard")
    stopped = threading.Event()
    # The handler only sets a flag: a request that is being answered may finish.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    try:
        _serve(arguments, stopped)
    except MedFormerError as error:
        print(f"guard: {error}", file=sys.stderr)
        return 1
    return 0


def _serve(arguments: argparse.Namespace, stopped: threading.Event) -> None:
    """Check files and installed code, and serve until `stopped` is set.

    Raises:
        MedFormerError: A file is not valid, or others can change the files or code of the guard.
    """
    import client
    from client.data.load import load
    from client.data.withdrawn import names
    from client.guard import Guard
    from client.guard_rpc.server import GuardService
    from client.node.joining import KEY
    from client.node.permissions import (
        installed_code,
        installed_extensions,
        only_ours,
        private_key,
    )
    from client.policy import load_policy
    from client.privacy.noise import SecureNoise
    from client.site import load_site

    # Before anything else: code that other users can change must not read a record.
    installed_code(Path(str(client.__file__)).parent)
    only_ours(arguments.site)
    only_ours(arguments.policy)
    # A guard needs no key itself, but one that others can read lets them join as this site.
    if (key := arguments.site.parent / KEY).exists():
        private_key(key)
    site, policy = load_site(arguments.site), load_policy(arguments.policy)
    installed_extensions([*policy.extensions, *site.own_code])
    if site.withdrawn is not None:
        names(site.withdrawn)  # a damaged list is reported at the start, not in the first round
        only_ours(site.withdrawn)
    guard = Guard(site, arguments.state, lambda *_: SecureNoise(), policy=policy)
    with GuardService(guard, arguments.socket, arguments.user):
        load(site, "train")  # fill the cache before the first round
        logging.info("guard of site %s: serving at %s", site.name, arguments.socket)
        stopped.wait()


if __name__ == "__main__":
    sys.exit(main())
