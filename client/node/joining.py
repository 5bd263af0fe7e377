"""A hospital's first steps: its key, its request to join, drafts of site.yaml and policy.yaml."""

import json
import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from client.node.kit import signer_in, unpack
from client.node.users import separate, users_of
from client.policy import load_policy
from client.site import load_site
from medformer.common.files import replace_file, write_secret
from medformer.errors import ConfigError
from server.protocol import JoinRequest, fingerprint

KEY, PUBLIC, REQUEST = "node.key", "node.pub", "request.json"
ANCHOR = "anchor"
"""Folder of the ledger's anchor, in the drafted site.yaml."""
SITE = """\
# This file describes the site. `fedmedformer site check` reads everything and prints a data card.
name: {name}

# Public: the kind of image, as the consortium calls it. Other sites see this.
domain: {{name: {name}, modality: chest-xray, anatomy: chest, channels: 1, size: 224}}

# Tasks to learn from the labels. They stay here.
tasks:
  - {{name: finding, kind: binary-class, classes: 2, labels: finding}}

# Format and place of the records: dicom, nifti, folder, npz, medmnist or phantoms. The table
# `records/labels.csv` has the columns file and finding, and patient if the files do not name it.
data: {{source: dicom, path: records}}
# Where the ledger's newest row is kept, too: keep this folder out of every backup of `state`, and a
# ledger that was put back from an old copy is found.
ledger_anchor: anchor/newest.json
# withdrawn: /srv/north/withdrawn.txt  # patients to leave out from the next round on, one id a line

privacy:
  unit: patient
  epsilon: 3            # cost of one run
  epsilon_budget: 9     # limit for all runs together, for ever
  # rule: rdp           # if several runs are planned: 7 of epsilon 3 fit, and not 3; fixed for ever
  delta: 1.0e-6
  n_public: 1000        # patients: a rough public number; never counted from the data
  # n_labelled: 200     # those with a label, if fewer; 0: sit out phases that need labels
"""
POLICY = """\
# What the consortium may compute here. Everything that this file does not allow is refused.
# signer: ""                     # fingerprint of the consortium's signing key, by telephone
# Losses that a run may train: those of the recipes. All take the same private step.
objectives: [supervised, half_rescanned, orientation, inpainting, moments]
max_epsilon_per_run: 3
min_noise_multiplier: 0.5
max_rounds: 400
# accept_unit_image: true        # only where each patient has one image
# max_epsilon_evaluation: 1      # let the final model be measured here: counts leave, with noise
# max_epsilon_statistics: 0.5    # let the records be counted for planning: counts leave, with noise
# min_sites: 3                   # fewest sites whose masked answers are added up
# peers: {{}}                      # their guards' fingerprints, by telephone: site guard-key
# hours: ["20:00-06:00"]         # local time; at any time if left out
approval: manual                 # a person here approves each run: fedmedformer site approve
# on_waiting: [/usr/local/bin/tell-officer]  # a program that tells somebody of a run that waits

# May the layer that answers your question leave, with noise? Sites with the same kind of image can
# train it together, and answer better for it. Choose one:
#   true        send this site's part. Coordinator and members can then answer the question with the
#               shared model; about a record they learn nothing beyond epsilon.
#   own-heads   take part, but keep this site's answer here: it trains heads of its own instead.
#   false       refuse such runs.
concepts: true
"""


def init(folder: Path, name: str) -> str:
    """Make a site's folder: its key, its request, and drafts of site.yaml and policy.yaml.

    If the folder belongs to two users, it stays theirs: the new key is the node's.

    Args:
        folder: The site's folder; made if missing.
        name: Name of the site in the consortium.
    Returns:
        Fingerprint of the key, to be read to the consortium by telephone.
    Raises:
        ConfigError: There is a key already, the name is impossible, or nothing can be written.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    try:
        request = JoinRequest(site=name, public_key=public)
    except ValueError as error:
        raise ConfigError(
            f"{name!r} cannot be a site's name: use at most 40 small letters, digits and '-'"
        ) from error
    try:
        _write(folder, key, public, request)
    except FileExistsError as error:
        raise ConfigError(
            f"{folder / KEY}: this site has a key already. To make a new one, move it away, and "
            "tell the consortium the new fingerprint"
        ) from error
    except OSError as error:
        raise ConfigError(f"{error.filename}: cannot be written ({error.strerror})") from error
    if (users := users_of(folder)) is not None:
        separate(folder, users)
    return fingerprint(public)


def _write(
    folder: Path, key: ec.EllipticCurvePrivateKey, public: str, request: JoinRequest
) -> None:
    """Write the files of a new site; drafts that are there stay.

    Raises:
        FileExistsError: There is a key already.
        OSError: A file cannot be written.
    """
    if os.path.lexists(folder / KEY):
        raise FileExistsError(folder / KEY)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / ANCHOR).mkdir(exist_ok=True, mode=0o700)
    (folder / PUBLIC).write_text(public + "\n")
    (folder / REQUEST).write_text(json.dumps(request.model_dump(), indent=1) + "\n")
    for file, text in (("site.yaml", SITE), ("policy.yaml", POLICY)):
        if not (folder / file).exists():
            replace_file(folder / file, text.format(name=request.site).encode())
    # Last: an attempt that fails must not leave a key that would stop the next one.
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    write_secret(folder / KEY, private)


def known_by(folder: Path) -> str:
    """Return the fingerprint of a site's key, if the consortium was sent this key.

    Args:
        folder: The site's folder.
    Raises:
        ConfigError: The key cannot be read, or the public files belong to another key.
    """
    file = folder / KEY
    try:
        key = load_ssh_private_key(file.read_bytes(), None)
        own = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        shown = fingerprint(own)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            f"{file}: is not a node's key ({error}): restore it, or move it away and run "
            "fedmedformer site init again"
        ) from error
    # The consortium knows the key of the request that it was sent, and refuses any other for good.
    for name in (PUBLIC, REQUEST):
        other = folder / name
        if not other.exists() or own not in other.read_text(errors="replace"):
            raise ConfigError(
                f"{other}: is missing, or belongs to another key than {KEY}, which the consortium "
                f"may not know. Restore both, or move {KEY} away and run fedmedformer site init "
                "again"
            )
    return shown


def join(folder: Path, kit: Path) -> str:
    """Unpack the consortium's kit into a site's folder.

    Args:
        folder: The site's folder.
        kit: The zip file that the consortium sent.
    Returns:
        The next step, as a sentence or a command.
    Raises:
        ConfigError: `site init` has not made this folder, or the kit is not this site's.
    """
    site = load_site(folder / "site.yaml")
    signer = load_policy(folder / "policy.yaml").signer
    unpack(kit, folder / "kit", site.name, signer)
    if (users := users_of(folder)) is not None:
        separate(folder, users, site)
    # A person has to compare the fingerprint: the kit itself can claim anything.
    if signer is None:
        return (
            f'write `signer: "{signer_in(folder / "kit")}"` into {folder / "policy.yaml"} if the '
            "consortium reads the same to you by telephone"
        )
    return f"fedmedformer site check {folder / 'site.yaml'}"
