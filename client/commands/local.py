"""`fedmedformer site finetune|evaluate|predict`: a hospital's own use of a model, WITHOUT privacy.

Nothing that these commands write leaves the site by itself, and nothing that trains accepts it.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

NAMES = ("finetune", "evaluate", "predict")
Action = Callable[[str, str], argparse.ArgumentParser]
SITE = "what the site declares"


def configure(action: Action) -> None:
    """Add the three actions.

    Args:
        action: (name, help) -> the parser of a new action.
    """
    tune = action("finetune", "after a federation: fit the site's own model, without privacy")
    tune.epilog = "example: fedmedformer site finetune site.yaml model.safetensors -o local"
    tune.add_argument("site", type=Path, metavar="SITE.yaml", help=SITE)
    tune.add_argument("model", type=Path, metavar="MODEL.safetensors", help="that a run left")
    tune.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER",
                      help="new, of this user alone, apart from the guard's state")  # fmt: skip
    tune.add_argument("--state", type=Path, metavar="FOLDER", help="the guard's, with --run: try "
                      "the copy that this site trained alone too, and keep the better")  # fmt: skip
    tune.add_argument("--run", metavar="RUN", help="id of the run that left MODEL.safetensors")
    tune.add_argument("--whole", action="store_true", help="train the encoder too")
    tune.add_argument("--epochs", type=int, default=30, help="at most (%(default)s)")
    tune.add_argument("--batch", type=int, default=32, help="images a step (%(default)s)")
    tune.add_argument("--learning-rate", type=float, metavar="RATE",
                      help="of AdamW (heads 0.01, whole model 0.001)")  # fmt: skip
    tune.add_argument("--abstain", type=float, default=0.05, metavar="SHARE",
                      help="of good images that may get no answer (%(default)s)")  # fmt: skip
    tune.add_argument("--seed", type=int, default=0, help="of heads and batches (%(default)s)")

    judge = action("evaluate", "what a finetuned model does on the site's own split: a local page")
    judge.epilog = "example: fedmedformer site evaluate site.yaml local/model.safetensors -o a.html"
    judge.add_argument("site", type=Path, metavar="SITE.yaml", help=SITE)
    judge.add_argument("model", type=Path, metavar="MODEL", help="that site finetune made")
    judge.add_argument("-o", "--out", type=Path, required=True, metavar="PAGE.html",
                       help="PAGE.json is written beside it")  # fmt: skip
    judge.add_argument("--split", choices=("test", "val"), default="test", help="(%(default)s)")
    judge.add_argument("--resamples", type=int, default=1000, help="of intervals (%(default)s)")
    judge.add_argument("--seed", type=int, default=0, help="of the resamples (%(default)s)")

    say = action("predict", "calibrated answers, or abstentions, for image files: a CSV")
    say.epilog = "example: fedmedformer site predict site.yaml local/model.safetensors new -o a.csv"
    say.add_argument("site", type=Path, metavar="SITE.yaml", help=SITE)
    say.add_argument("model", type=Path, metavar="MODEL", help="that site finetune made")
    say.add_argument("images", type=Path, nargs="+", metavar="IMAGES",
                     help="files or folders: PNG, JPEG, BMP, TIFF, DICOM, NIfTI, npz")  # fmt: skip
    say.add_argument("-o", "--out", type=Path, required=True, metavar="OUT.csv")


def run(arguments: argparse.Namespace) -> None:
    """Do what was asked for.

    Raises:
        MedFormerError: Says what is wrong and what to do.
    """
    {"finetune": _finetune, "evaluate": _evaluate, "predict": _predict}[arguments.action](arguments)


def _finetune(arguments: argparse.Namespace) -> None:
    from pydantic import ValidationError

    from client.local import store
    from client.local.finetune import Epoch, Settings, finetune, own_copy
    from client.site import load_site
    from medformer.common.yaml_file import explain
    from medformer.errors import ConfigError

    site = load_site(arguments.site)
    try:
        settings = Settings(
            whole=arguments.whole,
            epochs=arguments.epochs,
            batch=arguments.batch,
            learning_rate=arguments.learning_rate,
            alpha=arguments.abstain,
            seed=arguments.seed,
        )
    except ValidationError as error:
        raise ConfigError(explain(error, Settings)) from error
    start = store.shared_start(arguments.model, site)
    if (arguments.state is None) != (arguments.run is None):
        raise ConfigError("--state and --run go together: the guard's folder, and a run's id in it")
    own = arguments.state and own_copy(start, site, arguments.state, arguments.run)
    store.make_folder(store.outside(arguments.out, site, arguments.site))
    began = time.monotonic()

    def told(epoch: Epoch) -> None:
        print(
            f"epoch {epoch.number}/{settings.epochs}: train loss {epoch.train_loss:.4f}, "
            f"val loss {epoch.val_loss:.4f}{' *' if epoch.best else ''}",
            file=sys.stderr,
            flush=True,
        )

    local, chosen, least = finetune(start, site, settings, told)
    what = "whole model" if settings.whole else "heads"
    from_copy = False
    if own:
        print("now from the copy that this site trained alone:", file=sys.stderr, flush=True)
        second, number, loss = finetune(own, site, settings, told, own=True)
        print(
            f"least validation loss: {least:.4f} from the shared model, {loss:.4f} from the copy",
            file=sys.stderr,
        )
        if from_copy := loss < least:
            local, chosen, what = second, number, f"{what} of the site's own copy of the model"
    how = f"Trained: {what}, epoch {chosen} of {settings.epochs}, seed {settings.seed}."
    path = store.save(arguments.out, local, arguments.model, how)
    print(f"epoch {chosen} is kept; {time.monotonic() - began:.0f} s", file=sys.stderr)
    if not chosen and not from_copy:
        print("warning: no epoch was better than an untrained head", file=sys.stderr)
    for kind, share in local.fitted.strangers.items():
        if share < 0.9:
            print(
                f"warning: it would answer {100 * (1 - share):.0f} % of {kind} phantoms: images of "
                "other kinds are not told reliably",
                file=sys.stderr,
            )
    print(f"{path}: dp: none, stays at {site.name}")


def _evaluate(arguments: argparse.Namespace) -> None:
    from client.local import store
    from client.local.evaluate import evaluate
    from client.local.page import write_page
    from client.site import load_site
    from medformer.errors import ConfigError

    site = load_site(arguments.site)
    if arguments.resamples < 100 or arguments.seed < 0:
        raise ConfigError("intervals need at least 100 resamples, and a seed of at least 0")
    if arguments.out.suffix not in (".html", ".htm"):
        raise ConfigError(f"{arguments.out}: the page's name must end in .html")
    out = store.outside(arguments.out, site, arguments.site)
    local = store.open_local(arguments.model, site)
    result = evaluate(
        local,
        arguments.model,
        site,
        arguments.split,
        arguments.resamples,
        arguments.seed,
        lambda text: print(text, file=sys.stderr, flush=True),
    )
    numbers = write_page(out, result)
    print(f"{out}, {numbers}: dp: none, stay at {site.name}")


def _predict(arguments: argparse.Namespace) -> None:
    from client.local import predict, store
    from client.site import load_site

    site = load_site(arguments.site)
    out = store.outside(arguments.out, site, arguments.site)
    local = store.open_local(arguments.model, site)

    def told(done: int) -> None:
        print(f"{done} images", file=sys.stderr, flush=True)

    answers = list(predict.predict(local, site, arguments.images, told))
    predict.write(out, predict.table(answers, site))
    silent = sum(bool(answer.reason) for answer in answers)
    print(f"{out}: {len(answers)} images, {silent} without an answer; stays at {site.name}")
