"""Settings that are valid one by one and impossible together are refused when they are read."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from client.policy import load_policy
from client.site import load_site
from medformer.errors import ConfigError
from server.consortium.declarations import load, load_run
from simulations.scenario_file import load_scenario

DOMAIN = {"name": "north", "modality": "ct", "anatomy": "chest", "channels": 1}
TASK = {"name": "t", "kind": "binary-class", "classes": 2}
RECORDS = {"source": "nifti", "path": "records"}
SITE = {
    "name": "north",
    "domain": DOMAIN,
    "tasks": [TASK],
    "data": RECORDS,
    "privacy": {"n_public": 600, "delta": 1e-6},
}
POLICY = {"objectives": ["supervised"], "max_epsilon_per_run": 3}
CONSORTIUM = {"name": "lungs", "hosts": ["server.org"]}
PHASE = {"name": "p", "rounds": 2, "objectives": {"supervised": 1.0}}
RUN = {"name": "run", "phases": [PHASE], "sites": {"north": DOMAIN, "south": DOMAIN}}
PHANTOMS = {"source": "phantoms", "kind": "chest"}
SCENARIO = {"name": "s", "phases": [PHASE], "sites": [{"name": "a", "data": PHANTOMS}]}
KEY = "8c1f 02aa 9b7e 4410 5d3c e0f1 77aa 1b2c"


def refuses(reader: Any, folder: Path, name: str, settings: dict[str, Any], said: str) -> None:
    (folder / name).write_text(yaml.safe_dump(settings))
    with pytest.raises(ConfigError, match=said):
        reader(folder if reader is load else folder / name)


def scenario(file: Path) -> object:
    return load_scenario(str(file))


@pytest.mark.parametrize("source", ["nifti", "dicom"])
@pytest.mark.parametrize(
    ("window", "said"),
    [
        ([1500, -600], r"write \[-600, 1500\]; width 1500 and level -600 are \[-1350, 150\]"),
        ([0, -5], r"larger one shown white, got \[0, -5\]: write \[-5, 0\]"),
        ([7, 7], r"got \[7, 7\]: leave it out, or give two values"),
    ],
)
def test_a_window_grows(source: str, window: list[float], said: str, tmp_path: Path):
    """Else every image is black."""
    data = {"source": source, "path": ".", "window": window}
    refuses(load_site, tmp_path, "site.yaml", {**SITE, "data": data}, f"`data.window`: .*{said}")
    data["window"] = [-1350, 150]
    (tmp_path / "site.yaml").write_text(yaml.safe_dump({**SITE, "data": data}))
    assert load_site(tmp_path / "site.yaml").data.window == (-1350, 150)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tasks": [{**TASK, "classes": 3}]}, "binary-class has 2 classes, got 3.* multi-class"),
        ({"tasks": [TASK, TASK]}, "tasks need distinct names"),
        ({"privacy": {"n_public": 600, "n_upper": 500}}, "n_upper 500 is less than n_public 600"),
        ({"privacy": {"n_public": 600, "n_labelled": 601}}, "n_labelled 601 is more than"),
        ({"privacy": {"n_public": 600, "delta": 2e-3}}, "not below 1/n_public = 0.0017"),
        ({"privacy": {"n_public": 600, "delta": 1e-4, "delta_budget": 9e-3}},
         "delta_budget 0.009 is not below"),
        ({"privacy": {"n_public": 600, "delta": 1e-5, "delta_budget": 1e-6}},
         "delta_budget 1e-06 is less than the delta 1e-05 of one run: no run could start"),
        ({"privacy": {"n_public": 600, "epsilon": 8, "epsilon_budget": 4}}, "no run could start"),
        ({"privacy": {"n_public": 600, "images_per_step": 8}}, "set unit: patient, or leave"),
        ({"domain": {**DOMAIN, "rank": 3, "size": 224}}, "at most 128 voxels a side, got size 224"),
        ({"domain": {**DOMAIN, "rank": 3},
          "data": {"source": "nifti", "path": ".", "max_side": 256}}, "max_side 256 allows"),
        ({"data": {"source": "phantoms", "kind": "brain"}}, "no phantom kind 'brain'; use"),
        ({"data": {"source": "nifti", "path": ".", "max_side": 32, "multiple": 64}},
         "max_side 32 and multiple 64 leave sides of 0 pixels"),
        ({"data": {"source": "folder", "path": ".", "max_side": 32, "multiple": 64}},
         "max_side 32 and multiple 64 leave sides of 0 pixels"),
        ({"data": {**PHANTOMS, "scanner": {"gamma": 0}}}, "gamma is out of range: got 0"),
        ({"data": {**PHANTOMS, "scanner": {"noise": -1}}}, "noise is out of range: got -1"),
        ({"withdrawn": "a.txt", "ledger_anchor": "a.txt"}, "name one file, a.txt"),
        ({"withdrawn": "a.txt", "ledger_anchor": "b/../a.txt"}, "name one file, a.txt"),
        ({"withdrawn": "records/labels.csv"}, "withdrawn names records/labels.csv, which has anot"),
        ({"ledger_anchor": "./policy.yaml"}, "ledger_anchor names policy.yaml, which has ano"),
        ({"ledger_anchor": "x.npz", "data": {"source": "npz", "path": "x.npz"}}, "names x.npz, wh"),
        ({"tasks": [{**TASK, "labels": "split"}]}, "column 'split', which data.columns takes for"),
        ({"data": {**RECORDS, "columns": {"patient": "labels"}}}, "takes for the patient: a colu"),
        ({"data": {**RECORDS, "columns": {"ignored": ["labels"]}}}, "which data.columns ignores"),
        ({"data": {**RECORDS, "columns": {"file": ""}}}, "a column without a name cannot be named"),
        ({"data": {**RECORDS, "classes": ["a", " "]}}, "an empty cell means unlabelled"),
        ({"withdrawn": "no"}, "`withdrawn`: names a file, got no: leave the key out"),
        ({"ledger_anchor": False}, "`ledger_anchor`: names a file, got false"),
        ({"objectives": []}, "`objectives`: .*at least 1 item"),
    ],
)  # fmt: skip
def test_what_a_site_cannot_be(changes: dict[str, Any], said: str, tmp_path: Path):
    """Budgets no run fits, bounds that are none, promises without meaning, files of two kinds."""
    refuses(load_site, tmp_path, "site.yaml", {**SITE, **changes}, said)


def test_what_a_policy_cannot_be(tmp_path: Path):
    """Hours that end when they start are refused; they used to mean the whole day."""
    hours = {**POLICY, "hours": ["20:00-20:00"]}
    refuses(load_policy, tmp_path, "policy.yaml", hours, "starts when it ends: leave `hours` out")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"port": 9095}, "port and health_port are both 9095"),
        ({"sites": {"north": KEY, "south": KEY.replace(" ", "")}}, "have the same fingerprint"),
        ({"sites": {"North": KEY}}, "'North' cannot be a site's name: use 1 to 40 small letters"),
        ({"hosts": ["server.org:9092"]}, "an IP address: write the port as `port: 9092`"),
        ({"hosts": ["10.0"]}, "'10.0' is neither a host name nor an IP address"),
        (
            {"hosts": ["https://server.org/x"]},
            "is neither a host name nor an IP address: write server.org",
        ),
        ({"hosts": ["-a..org"]}, "'-a..org' is neither a host name"),
        ({"hosts": ["server.org."]}, "'server.org.' is neither a host name"),
        ({"hosts": ["0.0.0.0"]}, "'0.0.0.0' is an address to listen at"),
        ({"listen": "here there"}, "'here there' is neither a host name"),
    ],
)
def test_what_a_consortium_cannot_be(changes: dict[str, Any], said: str, tmp_path: Path):
    """Ports, keys, names and hosts."""
    refuses(load, tmp_path, "consortium.yaml", {**CONSORTIUM, **changes}, said)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"quorum": 3}, "a quorum of 3 needs as many sites: 2"),
        ({"phases": [PHASE, PHASE]}, "phases need distinct names"),
        ({"phases": [{**PHASE, "objectives": {"domain_adversarial": 1.0}}]},
         "all sites name the same one, 'north'"),
        ({"pretraining": False, "phases": [{**PHASE, "objectives": {"alignment": 0.1}}]},
         "alignment draws features towards those of public images, and this run has no public"),
        ({"phases": [{**PHASE, "shared_with": "nobody"}]}, "share nothing in any phase"),
        ({"phases": [{**PHASE, "alone": True}]}, "write shared_with: nobody in place of alone"),
        ({"sites": {"North_1": DOMAIN}}, "'North_1' cannot be a member's name"),
        ({"pretraining": {"source": "bloodmist"}}, "Did you mean 'bloodmnist'"),
        ({"seed": 2**60}, "less than or equal to"),
        ({"aggregation": {"secure": True, "colluders": 1}}, "all sites share one noise_multiplier"),
        ({"aggregation": {"secure": True, "colluders": 1, "noise_multiplier": 2.0}},
         "write freeze_own: true"),
    ],
)  # fmt: skip
def test_what_a_run_cannot_be(changes: dict[str, Any], said: str, tmp_path: Path):
    """Known when run.yaml is read, not when it is submitted."""
    refuses(load_run, tmp_path, "run.yaml", {**RUN, **changes}, f"run.yaml.*: .*{said}")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"phases": [PHASE, PHASE]}, "phases need distinct names"),
        ({"baselines": ["local-dp", "local-dp"]}, "baselines: each runs once"),
        ({"sites": [], "split": {"dataset": "bloodmnist"},
          "pretraining": {"source": "bloodmnist"}}, "a site's private records: no epsilon"),
        ({"sites": [{"name": "a", "data": {"source": "medmnist", "dataset": "breastmnist"}}],
          "pretraining": {"source": "breastmnist"}}, "a site's private records: no epsilon"),
    ],
)  # fmt: skip
def test_what_a_scenario_cannot_be(changes: dict[str, Any], said: str, tmp_path: Path):
    """Schedules that are none, and images that would be public and private."""
    refuses(scenario, tmp_path, "s.yaml", {**SCENARIO, **changes}, f"s.yaml.*: .*{said}")
