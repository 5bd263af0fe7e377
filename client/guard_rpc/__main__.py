"""`python -I -m client.guard_rpc`: the guard of one site, as the hospital runs it.

-I keeps the working folder, the user's own packages and PYTHONPATH out: the bundle of a consortium
has packages of the same names.
"""

import argparse
import logging
import signal
import sys
import threading
from pathlib import Path


def main() -> int:
    """Serve until a signal comes.

    Returns:
        0 after SIGTERM or SIGINT, 1 if the guard cannot be served.
    """
    parser = argparse.ArgumentParser(prog="python -I -m client.guard_rpc")
    parser.add_argument("--site", type=Path, required=True, metavar="SITE.yaml")
    parser.add_argument("--policy", type=Path, required=True, metavar="POLICY.yaml")
    parser.add_argument("--state", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--socket", type=Path, required=True, metavar="PATH")
    parser.add_argument(
        "--user", type=int, action="append", default=[], metavar="UID", help="of the relay"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    from medformer.errors import MedFormerError

    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    try:
        _serve(arguments, stopped)
    except MedFormerError as error:
        print(f"guard: {error}", file=sys.stderr)
        return 1
    return 0


def _serve(arguments: argparse.Namespace, stopped: threading.Event) -> None:
    import client
    from client.data.load import load
    from client.data.withdrawn import names
    from client.guard import Guard
    from client.guard_rpc.server import GuardService
    from client.node.joining import KEY
    from client.node.permissions import installed_code, only_ours, private_key
    from client.policy import load_policy
    from client.privacy.noise import SecureNoise
    from client.site import load_site

    installed_code(Path(str(client.__file__)).parent)
    only_ours(arguments.site)
    only_ours(arguments.policy)
    if (key := arguments.site.parent / KEY).exists():
        private_key(key)
    site, policy = load_site(arguments.site), load_policy(arguments.policy)
    if site.withdrawn is not None:
        names(site.withdrawn)  # said at the start, not in the first round
        only_ours(site.withdrawn)
    guard = Guard(site, arguments.state, lambda *_: SecureNoise(), policy=policy)
    with GuardService(guard, arguments.socket, arguments.user):
        load(site, "train")  # warm before the first round
        logging.info("guard of site %s: serving at %s", site.name, arguments.socket)
        stopped.wait()


if __name__ == "__main__":
    sys.exit(main())
