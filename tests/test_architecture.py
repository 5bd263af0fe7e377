"""The rules of the architecture: imports, sizes of folders and classes, and forbidden calls."""

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "medformer": {"medformer"},
    "client": {"client", "medformer", "server.protocol"},
    "server": {"server", "medformer"},
    "simulations": {"simulations", "client", "server", "medformer"},
}
OURS = set(ALLOWED)


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_no_two_test_files_have_the_same_name():
    """pytest refuses to collect the second file of a name."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("package", sorted(OURS))
def test_imports_point_one_way(package: str):
    """medformer <- client, server <- simulations; both sides meet in server/protocol/ only."""
    for path in (ROOT / package).rglob("*.py"):
        for name in imports(path):
            if name.split(".")[0] not in OURS:
                continue
            assert any(
                name == allowed or name.startswith(f"{allowed}.") for allowed in ALLOWED[package]
            ), f"{path.relative_to(ROOT)} imports {name}"


def test_the_model_knows_neither_flower_nor_opacus():
    """medformer is pure PyTorch."""
    for path in (ROOT / "medformer").rglob("*.py"):
        assert not {n for n in imports(path) if n.split(".")[0] in ("flwr", "opacus")}, path


def test_common_is_the_lowest_floor():
    """medformer/common knows nothing of the model: of ours it imports itself and errors only."""
    for path in (ROOT / "medformer" / "common").rglob("*.py"):
        ours = {n for n in imports(path) if n.split(".")[0] in OURS}
        above = {n for n in ours if not n.startswith(("medformer.common.", "medformer.errors."))}
        assert above <= {"medformer.common"}, path.relative_to(ROOT)


USED_OF_COMMON = {
    "medformer": {"fields", "yaml_file"},
    "medformer/objectives": set(),
    "medformer/phantoms": set(),
    "medformer/library": {"actions", "files", "rounding", "yaml_file"},
}
"""Folder of the model -> modules of medformer.common that it uses: how settings are written and
explained, how files are replaced, and how a card and the commands show numbers and help."""


@pytest.mark.parametrize("folder", sorted(USED_OF_COMMON))
def test_the_model_uses_little_of_the_machine(folder: str):
    """No part of the model knows processes, services, certificates or sockets."""
    used = {
        name.split(".")[2]
        for path in (ROOT / folder).glob("*.py")
        for name in imports(path)
        if name.startswith("medformer.common.")
    }
    assert used == USED_OF_COMMON[folder]


def test_common_loads_no_torch():
    """Code that needs a lock, a file or a certificate does not wait for a learning library."""
    names = sorted(p.stem for p in (ROOT / "medformer" / "common").glob("[!_]*.py"))
    loads = "; ".join(f"import medformer.common.{name}" for name in names)
    assert run_python(f"import sys; {loads}; print('torch' in sys.modules)") == "False"


MAX_ROOM = 15
"""Modules of one folder, without `__init__`, that a reader can take in at a glance."""


@pytest.mark.parametrize("package", sorted(OURS))
def test_no_folder_holds_more_modules_than_a_glance_takes_in(package: str):
    """A larger folder has parts, which get folders."""
    folders = {path.parent for path in (ROOT / package).rglob("*.py")}
    for folder in sorted(folders):
        modules = [p.name for p in folder.glob("*.py") if not p.name.startswith("__")]
        assert len(modules) <= MAX_ROOM, (folder.relative_to(ROOT), len(modules))


MAX_CLASS = 200
"""Lines of a class, docstrings included, that a reader can keep in mind."""


@pytest.mark.parametrize("package", sorted(OURS))
def test_no_class_is_longer_than_a_reader_keeps_in_mind(package: str):
    """A longer class has parts, which become functions or classes."""
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                assert lines <= MAX_CLASS, (path.relative_to(ROOT), node.name, lines)


def modules() -> dict[str, Path]:
    """Return every module of the packages by its dotted name."""
    paths = [p for package in sorted(OURS) for p in (ROOT / package).rglob("*.py")]
    return {
        ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p
        for p in paths
    }


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that import each other, directly or through others."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = list(graph[start])
        while waiting:
            if (name := waiting.pop()) not in seen:
                seen.add(name)
                waiting += graph[name]
        return seen

    every = {name: reached(name) for name in graph}
    groups = {tuple(sorted(o for o in every[n] if n in every[o])) for n in graph if n in every[n]}
    return [list(group) for group in sorted(groups)]


def test_imports_form_no_circle():
    """Imports inside functions and under TYPE_CHECKING count: a reader follows them, too."""
    known = modules()
    graph: dict[str, set[str]] = {}
    for name, path in known.items():
        targets = {n if n in known else n.rpartition(".")[0] for n in imports(path)}
        graph[name] = (targets & set(known)) - {name}
    assert circles(graph) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def test_protocol_imports_nothing_of_ours():
    """Both sides can read it without loading the other."""
    for path in (ROOT / "server" / "protocol").glob("*.py"):
        ours = {n for n in imports(path) if n.split(".")[0] in OURS}
        assert all(n.startswith("server.protocol.") for n in ours), path.name


def test_the_contract_loads_without_flower():
    """A scenario or a schedule is read, and a typing error answered, before Flower is loaded."""
    assert run_python("import sys, server.protocol; print('flwr' in sys.modules)") == "False"


def hazards(source: str) -> list[str]:
    """Return the calls that could run code from data: unpicklers, unsafe YAML, `eval`, a shell."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names]
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            roots = {name.split(".")[0] for name in names}
            found += sorted(roots & {"pickle", "cPickle", "_pickle", "dill", "joblib", "marshal",
                                     "shelve", "cloudpickle"})  # fmt: skip
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if name == "torch.load" and given.get("weights_only") != "True":
            found.append("torch.load without weights_only")
        if given.get("allow_pickle", "False") != "False":
            found.append(f"{name} with allow_pickle")
        if name.endswith(("np.load", "numpy.load")) and "allow_pickle" not in given:
            found.append("np.load that does not say allow_pickle=False")
        if name.startswith("yaml.") and "load" in name and name != "yaml.load":
            found.append(f"{name}, which has no limits: medformer.common.yaml_file.parse_yaml")
        if name == "yaml.load" and [ast.unparse(a) for a in node.args[1:]] != ["_Loader"]:
            found.append("yaml.load with another loader than that of medformer.common.yaml_file")
        if name in ("eval", "exec", "os.system", "os.popen") or given.get("shell") == "True":
            found.append(name)
    return found


def test_nothing_runs_code_out_of_data():
    """The packages hold no unpickler, unsafe YAML, eval or shell, and limit what PyYAML reads."""
    for package in sorted(OURS):
        for path in (ROOT / package).rglob("*.py"):
            assert not hazards(path.read_text()), path.relative_to(ROOT)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import torch; torch.load(f)",
        "import torch; torch.load(f, weights_only=False)",
        "import numpy as np; np.load(f)",
        "import numpy as np; np.load(f, allow_pickle=True)",
        "np.lib.format.read_array(f, allow_pickle=yes)",
        "import yaml; yaml.load(t, yaml.Loader)",
        "import yaml; yaml.unsafe_load(t)",
        "import yaml; yaml.safe_load(t)",
        "eval(t)",
        "import subprocess; subprocess.run(t, shell=True)",
    ],
)
def test_each_hazard_would_be_seen(source: str):
    """The test before this one is not blind."""
    assert hazards(source)


def run_python(code: str, **environment: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_relay_loads_neither_torch_nor_opacus():
    """The app bundle is somebody else's code: it relays, and needs no learning library to do so."""
    code = "import sys, client.app; print([m for m in ('torch', 'opacus') if m in sys.modules])"
    assert run_python(code) == "[]"


def test_the_guard_works_without_simulations_and_so_has_no_plain_engine():
    """An installation without `simulations` trains under DP or not at all."""
    code = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] == 'simulations':
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import client.guard, client.training, client.privacy.engine
ours = ('client', 'medformer', 'server')
print(sorted(m for m in sys.modules if 'plain' in m and m.split('.')[0] in ours))
"""
    assert run_python(code) == "[]"


def test_the_guard_cannot_reach_what_trains_without_privacy():
    """client.local is a hospital's own use of a model: only its commands know it, benchmarks, and
    simulated hospitals after a run, without all of which a guard works (the test above)."""
    outside = (("client", "local"), ("simulations", "benchmarks"), ("simulations", "baselines"))
    for package in OURS:
        for path in (ROOT / package).rglob("*.py"):
            where = path.relative_to(ROOT)
            if where.parts[:2] in outside or where.parts[:2] == ("client", "commands"):
                continue
            assert not [n for n in imports(path) if f"{n}.".startswith("client.local.")], where
    loaded = "import sys, client.guard, client.guard_rpc.server, client.app; print([m for m in "
    assert run_python(loaded + "sys.modules if (m + '.').startswith('client.local.')])") == "[]"


def test_a_deployed_guard_cannot_reach_a_seed():
    """client.simulated, which knows seeds, is loaded by the relay's simulation path alone."""
    for path in (ROOT / "client").rglob("*.py"):
        if path.name != "simulated.py":
            assert "client.simulated" not in {n.rsplit(".", 1)[0] for n in imports(path)}, path
            assert "SeededNoise" not in path.read_text() or path.name == "noise.py", path


def test_help_answers_at_once():
    """No learning library is loaded to print help."""
    code = """
import contextlib, io, sys
from simulations.cli import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main(['--help'])
print([m for m in ('torch', 'flwr', 'opacus', 'ray', 'medmnist') if m in sys.modules])
"""
    assert run_python(code) == "[]"


def test_the_server_loads_neither_torch_nor_opacus():
    """It averages arrays; the libraries cost seconds and 0.4 GiB in every process."""
    code = """
import sys, tempfile
from pathlib import Path
import simulations.flower
from server.watching.board import board
board(Path(tempfile.mkdtemp()))
print([m for m in ('torch', 'opacus', 'medmnist') if m in sys.modules])
"""
    assert run_python(code) == "[]"


def test_the_waiting_launcher_does_not_load_torch():
    """It waits for minutes beside the processes that need the memory."""
    code = """
import sys
import simulations.launch.launcher, simulations.launch.fresh
import simulations.progress, simulations.run_folder
import simulations.commands.simulate
print([m for m in ('torch', 'opacus', 'medmnist', 'ray') if m in sys.modules])
"""
    assert run_python(code) == "[]"


def test_run_config_of_pyproject_and_launcher_are_the_same():
    """Flower drops keys that are not declared."""
    import tomllib

    from server.consortium.bundle import RUN_CONFIG

    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    assert declared == RUN_CONFIG
