"""`fedmedformer site finetune|evaluate|predict`: a hospital's own use of a model, WITHOUT privacy.

Nothing that these commands write leaves the site by itself, and nothing that trains accepts it.
"""

import argparse
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from client.commands.given import FOLDER_OR_FILE, site_file, state_folder
from medformer.common.actions import Action

if TYPE_CHECKING:
    from client.local.finetune import Settings
    from client.local.store import LocalModel
    from client.site import Site
    from medformer.model import Medformer


def _configure_finetune(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("site", type=Path, metavar="FOLDER", help=FOLDER_OR_FILE)
    add("model", type=Path, metavar="MODEL.safetensors", help="the model that a run left")
    add("-o", "--out", type=Path, required=True, metavar="FOLDER",
        help="new folder, outside the guard's state; only this user can enter it")  # fmt: skip
    add(
        "--state",
        type=Path,
        metavar="FOLDER",
        help="the guard's state folder, with --run, if it is not in FOLDER",
    )
    add("--run", metavar="RUN",
        help="id of the run that left MODEL.safetensors: also start from the copy that this site "
        "trained alone in it, and keep the better of the two")  # fmt: skip
    add("--whole", action="store_true", help="train the encoder, too")
    add("--unlabelled", action="store_true",
        help="also fit features to all images first, and keep the better model")  # fmt: skip
    add("--passes", type=int, metavar="N",
        help="passes of self-supervision, with --unlabelled (0)")  # fmt: skip
    add("--epochs", type=int, default=30, metavar="N", help="epochs at most (%(default)s)")
    add("--batch", type=int, default=32, metavar="N", help="images in a step (%(default)s)")
    add("--learning-rate", type=float, metavar="RATE",
        help="learning rate of AdamW (0.01 for heads, 0.001 for the whole model)")  # fmt: skip
    add("--abstain", type=float, default=0.05, metavar="SHARE",
        help="share of good images that may get no answer (%(default)s)")  # fmt: skip
    add("--seed", type=int, default=0, metavar="N", help="seed of heads and batches (%(default)s)")


def _configure_evaluate(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("site", type=Path, metavar="FOLDER", help=FOLDER_OR_FILE)
    add("model", type=Path, metavar="MODEL", help="model file that site finetune made")
    add("-o", "--out", type=Path, required=True, metavar="PAGE.html",
        help="page to write; its numbers are written beside it as JSON")  # fmt: skip
    add("--split", choices=("test", "val"), default="test", help="images to use (%(default)s)")
    add("--resamples", type=int, default=1000, metavar="N",
        help="bootstrap resamples of the intervals (%(default)s)")  # fmt: skip
    add("--seed", type=int, default=0, metavar="N", help="seed of the resamples (%(default)s)")


def _configure_predict(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("site", type=Path, metavar="FOLDER", help=FOLDER_OR_FILE)
    add("model", type=Path, metavar="MODEL", help="model file that site finetune made")
    add("images", type=Path, nargs="+", metavar="IMAGES",
        help="files or folders: PNG, JPEG, BMP, TIFF, DICOM, NIfTI, npz")  # fmt: skip
    add("-o", "--out", type=Path, required=True, metavar="OUT.csv", help="table to write")


def _finetune(arguments: argparse.Namespace) -> None:
    """Train a model for the site's own use, and print where it is.

    Raises:
        ConfigError: An option is out of range, or --state comes without --run.
        MedFormerError: Model or records cannot be used.
    """
    from client.site import load_site
    from medformer.errors import ConfigError

    site = load_site(
        site_file(arguments.site)
    )  # before torch is loaded: a typo is answered at once
    from client.local import store
    from client.local.start import own_copy, shared_start

    settings = _settings(arguments)
    start = shared_start(arguments.model, site)
    # A state folder holds the copies of several runs.
    if arguments.state is not None and arguments.run is None:
        raise ConfigError("--state needs --run, the id of a run in that folder")
    state = arguments.state or state_folder(arguments.site)
    own = arguments.run and own_copy(start, site, state, arguments.run)
    # Before training, which takes minutes: a folder that cannot be used is refused at once.
    store.make_folder(store.outside(arguments.out, site, site_file(arguments.site)))
    began = time.monotonic()
    tuned = _better(start, own or None, site, settings)
    how = f"Trained: {tuned.what}, epoch {tuned.epoch} of {settings.epochs}, seed {settings.seed}."
    path = store.save(arguments.out, tuned.local, arguments.model, how)
    _say(f"epoch {tuned.epoch} is kept; {time.monotonic() - began:.0f} s")
    _warn(tuned)
    print(f"{path}: dp: none, stays at {site.name}")


@dataclass(frozen=True)
class _Tuned:
    """The better of the models that were trained."""

    local: "LocalModel"
    epoch: int
    """Epoch that is kept; 0 is the start, with untrained heads."""
    what: str
    """Part of the model that was trained, in words."""
    from_copy: bool
    """The site's own copy was the start, whose heads are trained from the beginning."""


def _settings(arguments: argparse.Namespace) -> "Settings":
    """Check the options.

    Raises:
        ConfigError: One of them is out of range.
    """
    from pydantic import ValidationError

    from client.local.finetune import Settings
    from medformer.common.yaml_file import explain
    from medformer.errors import ConfigError

    # Without the option the number would have no effect, and the user expects one.
    if arguments.passes is not None and not arguments.unlabelled:
        raise ConfigError("--passes counts passes of self-supervision: add --unlabelled")
    try:
        return Settings(
            whole=arguments.whole,
            unlabelled=arguments.unlabelled,
            **({} if arguments.passes is None else {"passes": arguments.passes}),
            epochs=arguments.epochs,
            batch=arguments.batch,
            learning_rate=arguments.learning_rate,
            alpha=arguments.abstain,
            seed=arguments.seed,
        )
    except ValidationError as error:
        raise ConfigError(explain(error, Settings)) from error


@dataclass(frozen=True)
class _Start:
    """A model from which training can start."""

    name: str
    model: "Medformer"
    settings: "Settings"
    is_copy: bool
    """It is the site's own copy, whose heads are kept."""


def _starts(start: "Medformer", own: "Medformer | None", settings: "Settings") -> list[_Start]:
    """List what is trained: both models, and with --unlabelled each of them with and without."""
    found = [_Start("the shared model", start, settings, is_copy=False)]
    if own is not None:
        found.append(_Start("the copy", own, settings, is_copy=True))
    if not settings.unlabelled:
        return found
    plain = settings.model_copy(update={"unlabelled": False})
    adapted = [replace(one, name=f"{one.name} after all images") for one in found]
    # These come first, so that a split without such images is refused before minutes of training.
    return [*adapted, *(replace(one, settings=plain) for one in found)]


def _better(
    start: "Medformer", own: "Medformer | None", site: "Site", settings: "Settings"
) -> _Tuned:
    """Train from every start, and return the model with the smallest validation loss."""
    from client.local.finetune import Epoch, finetune
    from client.local.unlabelled import Pass

    def show(epoch: Epoch) -> None:
        _say(
            f"epoch {epoch.number}/{settings.epochs}: train loss {epoch.train_loss:.4f}, "
            f"val loss {epoch.val_loss:.4f}{' *' if epoch.best else ''}"
        )

    def passed(done: Pass) -> None:
        _say(f"pass {done.number}/{done.passes} without labels: loss {done.loss:.4f}")

    found: list[tuple[float, _Tuned]] = []
    losses: list[str] = []
    for one in _starts(start, own, settings):
        if found:
            _say(f"now from {one.name}:")
        local, epoch, loss = finetune(
            one.model, site, one.settings, show, own=one.is_copy, on_pass=passed
        )
        found.append((loss, _Tuned(local, epoch, _words(one), from_copy=one.is_copy)))
        losses.append(f"{loss:.4f} from {one.name}")
    if len(found) > 1:
        # All compete by the same validation images.
        _say(f"lowest validation loss: {', '.join(losses)}")
    return min(found, key=lambda pair: pair[0])[1]


def _words(one: _Start) -> str:
    """Return what was trained from a start, for the card."""
    what = "whole model" if one.settings.whole else "heads"
    if one.is_copy:
        what += " of the site's own copy of the model"
    if one.settings.unlabelled:
        passes = one.settings.passes
        before = f", trained in {passes} passes without labels" if passes else ""
        what += f", on features fitted to all images of the split{before}"
    return what


def _warn(tuned: _Tuned) -> None:
    """Warn of a model that learned nothing, or that answers images of other kinds."""
    # The site's own copy has trained heads: it may be best as it is.
    if not tuned.epoch and not tuned.from_copy:
        _say("warning: no epoch was better than an untrained head")
    for kind, share in tuned.local.fitted.strangers.items():
        # Images of other kinds should be recognised as strange, and get no answer.
        if share < 0.9:
            _say(
                f"warning: it would answer {100 * (1 - share):.0f} % of {kind} phantoms: it does "
                "not reliably recognise images of other kinds"
            )


def _say(text: str) -> None:
    """Print progress to stderr; stdout has the result alone."""
    print(text, file=sys.stderr, flush=True)


def _evaluate(arguments: argparse.Namespace) -> None:
    """Measure a model on the site's own images, and print where the page is.

    Raises:
        ConfigError: An option is out of range.
        MedFormerError: Model or records cannot be used.
    """
    from client.site import load_site
    from medformer.errors import ConfigError

    site = load_site(site_file(arguments.site))
    # Fewer resamples give no 95 % interval worth printing.
    if arguments.resamples < 100 or arguments.seed < 0:
        raise ConfigError("intervals need at least 100 resamples, and a seed of at least 0")
    # Browsers open a file by the end of its name.
    if arguments.out.suffix not in (".html", ".htm"):
        raise ConfigError(f"{arguments.out}: the page's name must end in .html")
    from client.local import store
    from client.local.evaluate import evaluate
    from client.local.page import write_page

    out = store.outside(arguments.out, site, site_file(arguments.site))
    local = store.open_local(arguments.model, site)
    result = evaluate(
        local,
        arguments.model,
        site,
        arguments.split,
        arguments.resamples,
        arguments.seed,
        _say,
    )
    numbers = write_page(out, result)
    print(f"{out}, {numbers}: dp: none, stay at {site.name}")


def _predict(arguments: argparse.Namespace) -> None:
    """Answer image files, and print how many got an answer.

    Raises:
        MedFormerError: Model or images cannot be used.
    """
    from client.site import load_site

    site = load_site(site_file(arguments.site))
    from client.local import predict, store

    out = store.outside(arguments.out, site, site_file(arguments.site))
    local = store.open_local(arguments.model, site)

    answers = list(
        predict.predict(local, site, arguments.images, lambda done: _say(f"{done} images"))
    )
    predict.write(out, predict.table(answers, site))
    silent = sum(bool(answer.reason) for answer in answers)
    print(f"{out}: {len(answers)} images, {silent} without an answer; stays at {site.name}")


ACTIONS = (
    Action(
        "finetune",
        "after a federation: fit the shared model to the site's own labels, without privacy",
        "site finetune north model.safetensors -o local",
        _configure_finetune,
        _finetune,
    ),
    Action(
        "evaluate",
        "measure a finetuned model on the site's own images, and write a page",
        "site evaluate north local/model.safetensors -o a.html",
        _configure_evaluate,
        _evaluate,
    ),
    Action(
        "predict",
        "answer image files with calibrated probabilities, or abstain; writes a CSV",
        "site predict north local/model.safetensors new -o a.csv",
        _configure_predict,
        _predict,
    ),
)
