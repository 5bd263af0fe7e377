"""`fedmedformer classify`: one image, answered by the model of a simulated site."""

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fedmedformer classify`."""
    add = parser.add_argument
    add("image", type=Path, metavar="IMAGE",
        help="a picture file; a finished simulation has some in RUN/examples")  # fmt: skip
    add("--run", type=Path, metavar="RUN", dest="folder",
        help="run folder of the simulation (default: the one that IMAGE is in)")  # fmt: skip
    add("--site", metavar="NAME",
        help="site whose model answers (default: the name of IMAGE)")  # fmt: skip
    parser.epilog = "example: fedmedformer classify runs/quickstart/examples/chest-north.png"


def run(arguments: argparse.Namespace) -> None:
    """Print a probability for each class.

    Raises:
        MedFormerError: There is no such image, run or site, or the run is not complete.
    """
    from medformer.errors import ConfigError
    from simulations.run_folder import MARKER, load_prepared

    image: Path = arguments.image
    if not image.is_file():
        raise ConfigError(f"{image}: there is no such file")
    # The examples of a run lie in RUN/examples, and each is named after its site.
    folder: Path = arguments.folder or image.resolve().parent.parent
    site = arguments.site or image.stem
    if not arguments.folder and not (folder / MARKER).is_file():
        raise ConfigError(f"{image} lies in no run folder: name a finished run with --run")
    prepared = load_prepared(folder)  # before torch is loaded: a typo is answered at once
    if site not in (names := [s.name for s in prepared.sites]):
        raise ConfigError(f"--site: there is no site {site!r}; the sites are {', '.join(names)}")

    from server.run.model_file import model_files
    from simulations.examples import classify
    from simulations.simulation import shown

    answers = classify(folder, site, image)
    print(f"{shown(image.resolve())}: a simulation, not a medical device")
    shared = shown(folder.resolve() / model_files(prepared.federation)[site])
    print(f"answered by {site}: {shared} with its own heads")
    for answer in answers:
        likeliest = max(answer.probabilities, key=answer.probabilities.__getitem__)
        print(f"task {answer.task} of {site}")
        for name, share in answer.probabilities.items():
            mark = "  <- most likely" if name == likeliest else ""
            print(f"  {name:<20.20}{share:6.1%}{mark}")
        if answer.truth:
            print(f"truth: {answer.truth}")
