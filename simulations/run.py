"""A simulation as a Python function: `fedmedformer.simulate`.

The simulation runs in a process of its own, as the command does: it starts helpers in new
interpreters, which would import a caller's script once more.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from medformer.errors import ConfigError
from server.run.metrics import RoundRow, read_metrics
from simulations.comparing.curve import CurvePoint, curve
from simulations.comparing.roc import RocCurve, roc_curves
from simulations.errors import SimulationError
from simulations.scenario import Scenario
from simulations.scenario_file import load_scenario
from simulations.simulation import Engine

if TYPE_CHECKING:
    from medformer.model import Medformer
    from simulations.judging.map_plot import ImageMap

COMMAND = (
    "import sys; sys.path.append({root!r}); from simulations.cli import main; sys.exit(main())"
)
"""Code of the new process; `root` is the folder in which this package was found."""
PREFIX = "fedmedformer: "
"""Text that the command prints before the sentence of an error."""


class Metric(NamedTuple):
    """One exact metric of one model at one site, without noise: simulations only."""

    site: str
    task: str
    model: str
    """`federated-dp`, or the name of a baseline."""
    metric: str
    """`auc`, `accuracy` or `dice`."""
    split: str
    """`val` or `test`."""
    value: float | None
    """None where the metric is not defined on this split."""


@dataclass(frozen=True)
class Run:
    """The results of a complete simulation, read from its run folder.

    Args:
        folder: The run folder.
    """

    folder: Path

    @property
    def report(self) -> dict[str, Any]:
        """The content of report.json.

        Raises:
            ConfigError: The folder has no report.
        """
        try:
            report: dict[str, Any] = json.loads((self.folder / "report.json").read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self.folder}: holds no report of a complete run") from error
        return report

    @property
    def results(self) -> list[Metric]:
        """Every metric of the final models, those of baselines included."""
        return [
            Metric(**{key: row[key] for key in Metric._fields}) for row in self.report["results"]
        ]

    @property
    def curve(self) -> list[CurvePoint]:
        """Learning curve: loss, validation AUC and epsilon so far by round, means over sites."""
        return curve(self.folder, self.report)

    @property
    def roc(self) -> list[RocCurve]:
        """ROC curve of every class and label at every site, on its test images."""
        return roc_curves(self.folder)

    @property
    def rounds(self) -> list[RoundRow]:
        """Loss, epsilon so far and duration of each round at each site."""
        return [row for row in read_metrics(self.folder) if row["event"] == "round"]

    @property
    def epsilon(self) -> dict[str, float]:
        """Site -> epsilon of the whole run there."""
        return {site["name"]: site["epsilon"] for site in self.report["sites"]}

    @property
    def test_auc(self) -> dict[str, float]:
        """Site -> mean AUC of its tasks on its test images, federated under DP."""
        values: dict[str, list[float]] = {}
        for row in self.results:
            known = row.value is not None and row.metric == "auc" and row.split == "test"
            if known and row.model == "federated-dp":
                values.setdefault(row.site, []).append(float(row.value or 0))
        return {site: fmean(found) for site, found in values.items()}

    def image_maps(self, images: str = "phantoms") -> "list[ImageMap]":
        """Map public images by the shared model; loads torch.

        Args:
            images: `phantoms`, or the MedMNIST set that the run declared public.
        Raises:
            ConfigError: The images may be a site's private records.
        """
        from simulations.judging.maps import image_maps

        return image_maps(self.folder, images)

    def model(self, site: str | None = None) -> "Medformer":
        """Load the trained model.

        Args:
            site: A site's model with its own task heads, which a hospital would keep; the part
                that all sites share if None. A run that shared within kinds of image has no such
                part: name a site, or load the file of a kind.
        Raises:
            ConfigError: There is no such site.
            ModelFileError: The model file cannot be read.
        """
        if site is None:
            import medformer

            return medformer.load(self.folder / "model.safetensors")
        from simulations.examples import model_of
        from simulations.run_folder import load_prepared

        prepared = load_prepared(self.folder)
        for one in prepared.sites:
            if one.name == site:
                return model_of(prepared, one)
        names = ", ".join(one.name for one in prepared.sites)
        raise ConfigError(f"there is no site {site!r}; the sites are {names}")


def simulate(
    scenario: str | Path | Mapping[str, Any] | Scenario,
    *,
    out: str | Path | None = None,
    data_root: str | Path | None = None,
    state_dir: str | Path | None = None,
    engine: Engine = "flower",
    baselines: bool | None = None,
    audit: int = 0,
    overwrite: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> Run:
    """Train a federation of simulated hospitals, compare and report, as `fedmedformer simulate`.

    Args:
        scenario: Name of a shipped scenario, path of a YAML file, or its content.
        out: The run folder; `runs/NAME` if left out.
        data_root: Folder of MedMNIST files.
        state_dir: Folder of the sites' ledgers, which runs that use it share.
        engine: `flower`, or `local` for the same results without Flower's processes.
        baselines: True trains every one, False none; those of the scenario if None.
        audit: Number of canaries of an audit at the end, at least 1,000; no audit if 0.
        overwrite: Replace an earlier run in the folder.
        quiet: Show no progress on stderr.
        **settings: Overrides of the scenario, by the keys of `--set`: `seed=1`,
            `privacy={"epsilon": 3}` or `**{"privacy.epsilon": 3}`.
    Returns:
        The results.
    Raises:
        ConfigError: A setting is unknown, of the wrong type or out of range.
        SimulationError: The run was refused or failed; the sentence says why.
    """
    changed = tuple(overrides(settings))
    with tempfile.TemporaryDirectory(prefix="fedmedformer-") as scratch:
        name = as_file(scenario, Path(scratch))
        checked = load_scenario(name, changed)  # raises here, with the error's own type
        stem = checked.name if isinstance(scenario, Mapping | Scenario) else Path(name).stem
        folder = Path(out or Path("runs") / stem).absolute()
        words = ["simulate", name, "--out", str(folder), "--engine", engine]
        words += [word for setting in changed for word in ("--set", setting)]
        for option, path in (("--data-root", data_root), ("--state-dir", state_dir)):
            words += [option, str(path)] if path is not None else []
        if baselines is not None:
            words.append("--baselines" if baselines else "--no-baselines")
        words += ["--audit", str(audit)] if audit else []
        words += ["--overwrite"] if overwrite else []
        _run(words, quiet=quiet)
    return Run(folder)


def as_file(scenario: str | Path | Mapping[str, Any] | Scenario, scratch: Path) -> str:
    """Return a scenario as the command takes it; its content is written to a file first.

    Args:
        scenario: Name of a shipped scenario, path of a YAML file, or its content.
        scratch: Folder for the file.
    """
    if isinstance(scenario, str | Path):
        return str(scenario)
    # The process reads a file, so that a mapping and a file are checked by the same code.
    content = scenario.model_dump(mode="json") if isinstance(scenario, Scenario) else dict(scenario)
    file = scratch / "scenario.yaml"
    file.write_text(json.dumps(content, default=str))  # JSON is YAML
    return str(file)


def overrides(settings: Mapping[str, Any], before: str = "") -> Iterator[str]:
    """Yield KEY=VALUE for each setting; a mapping sets each of its keys.

    Args:
        settings: Overrides, nested or with dotted keys.
        before: Beginning of each key.
    """
    for key, value in settings.items():
        # An empty mapping is a value of its own: it replaces what the scenario has.
        if isinstance(value, Mapping) and value:
            yield from overrides(value, f"{before}{key}.")
        else:
            yield f"{before}{key}={json.dumps(value, default=str)}"


def _run(words: Sequence[str], *, quiet: bool) -> None:
    """Run the command in a process of its own, and pass its progress on."""
    code = COMMAND.format(root=str(Path(__file__).parents[1]))
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    last = ""
    with process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                last = line.strip() or last
                if not quiet:
                    print(line, end="", file=sys.stderr, flush=True)
        except BaseException:  # a notebook interrupts this process alone
            process.terminate()
            raise
    if process.returncode:
        raise SimulationError(last.removeprefix(PREFIX) or f"ended with {process.returncode}")
