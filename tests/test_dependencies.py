"""`make audit` says what is known of each dependency, and fails where nothing is."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

_SPEC = importlib.util.spec_from_file_location(
    "audit", Path(__file__).parent.parent / ".ci" / "audit.py"
)
assert _SPEC is not None
assert _SPEC.loader is not None
audit = importlib.util.module_from_spec(_SPEC)
sys.modules["audit"] = audit  # where dataclasses look for it
_SPEC.loader.exec_module(audit)

TOOLS = audit.ROOT / ".venv-audit" / "bin"
HOLE = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["2.0"]}
CONTROL = {"name": "jinja2", "version": "2.10", "vulns": [HOLE]}


def component(name: str, version: str = "1.0", *named: str) -> dict[str, Any]:
    entries = [{"license": {"name": n} if "::" in n else {"id": n}} for n in named]
    return {"name": name, "version": version, "licenses": entries}


def tool(folder: Path, name: str, code: str) -> None:
    file = folder / name
    file.write_text(f"#!{sys.executable}\nimport json, sys\n{code}\n")
    file.chmod(0o755)


@pytest.fixture
def around(tmp_path: Path) -> Path:
    """Write a lock file of two packages, and tools that find no fault in them."""
    (tmp_path / "lock").write_text("good==1.0\nb.a_d==1.0\n")
    bill = {"components": [component("good", "1.0", "MIT"), component("B-a-d", "1.0", "ISC"),
                           component("pip", "23", "MIT")]}  # fmt: skip
    tool(tmp_path, "cyclonedx-py",
         f"open(sys.argv[sys.argv.index('-o') + 1], 'w').write({json.dumps(bill)!r})")  # fmt: skip
    answers(tmp_path, CONTROL, package("good"), package("b.a_d"))
    return tmp_path


def package(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "version": "1.0", "vulns": [], **more}


def answers(folder: Path, control: Any, *others: Any) -> None:
    """Set the answers of pip-audit about the control and about the lock file."""
    tool(folder, "pip-audit",
         f"own = 'control' in sys.argv[2]\n"
         f"found = {[control]!r} if own else {list(others)!r}\n"
         f"print(json.dumps({{'dependencies': found}}))")  # fmt: skip


def run(folder: Path) -> int:
    return audit.main(
        ["--tools", str(folder), "--python", sys.executable, "--lock", str(folder / "lock"),
         "--out", str(folder / "out")]
    )  # fmt: skip


def test_all_known_and_allowed(around: Path, capsys: pytest.CaptureFixture[str]):
    """Licences go to stdout, the answer is kept."""
    assert run(around) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == ["b-a-d 1.0\tISC", "good 1.0\tMIT", "pip 23\tMIT"]
    assert "every dependency was looked up" in said.err
    assert len(json.loads((around / "out" / "vulnerabilities.json").read_text())) == 2


def test_a_known_hole_fails_unless_a_reason_is_written(
    around: Path, capsys: pytest.CaptureFixture[str]
):
    """A reason may name the hole by its own id or by an alias."""
    answers(around, CONTROL, package("good"), package("b.a_d", vulns=[HOLE]))
    assert run(around) == 1
    assert "b.a_d 1.0: PYSEC-1, mended in 2.0" in capsys.readouterr().err
    rules = around / "rules.toml"
    text = (audit.ROOT / ".ci" / "audit.toml").read_text()
    for id_ in ("PYSEC-1", "CVE-1"):
        rules.write_text(f'{text}\n{id_} = "no input of ours gets there"')
        found = audit.vulnerabilities(
            around, around / "lock", around / "v.json", audit.Allowed.of(rules)
        )
        assert list(found) == []
    rules.write_text(f'{text}\nPYSEC-1 = ""')
    with pytest.raises(audit.AuditError, match="PYSEC-1 in vulnerabilities has no reason"):
        audit.Allowed.of(rules)


@pytest.mark.parametrize(
    ("control", "others", "said"),
    [
        (CONTROL, [package("good"), {"name": "b.a_d", "skip_reason": "not found"}],
         "1 of 2 packages could not be looked up"),
        (CONTROL, [package("good")], "1 packages were not looked up, b-a-d the first"),
        ({**CONTROL, "vulns": []}, [package("good"), package("b.a_d")], "its silence about others"),
        ({"name": "jinja2", "skip_reason": "not found"}, [], "1 of 1 packages could not be"),
    ],
)  # fmt: skip
def test_what_was_not_asked_is_not_called_safe(
    around: Path, capsys: pytest.CaptureFixture[str], control: Any, others: Any, said: str
):
    """Mirrors answer for packages, not for their holes; pip-audit calls that "none found"."""
    answers(around, control, *others)
    assert run(around) == 1
    err = capsys.readouterr().err
    assert said in err
    assert "none is known" not in err


@pytest.mark.parametrize("code", ["raise ConnectionError('no route')", "print('{}')", ""])
def test_a_service_out_of_reach_is_one_sentence(
    around: Path, capsys: pytest.CaptureFixture[str], code: str
):
    """The audit prints one sentence, no traceback, and never the answer of an earlier audit."""
    assert run(around) == 0
    tool(around, "pip-audit", code)
    capsys.readouterr()
    assert run(around) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("audit: the vulnerability service could not be asked")
    assert not (around / "out" / "vulnerabilities.json").exists()
    (around / "pip-audit").unlink()
    assert run(around) == 1
    assert "pip-audit: cannot be run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("expression", "met"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("MIT AND GPL-3.0-only", False),
        ("MIT OR GPL-3.0-only", True),
        ("GPL-3.0-only OR (MIT AND BSD-3-Clause)", True),
        ("GPL-3.0-only OR MIT AND AGPL-3.0-only", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("Apache-2.0 WITH other-exception", False),
        ("MIT AND", False),
        ("", False),
        ("__import__('os')", False),
    ],
)
def test_licences_are_read_as_expressions(expression: str, met: bool):
    """All of AND, one of OR; what is no expression is not allowed."""
    allowed = audit.Allowed.of(audit.ROOT / ".ci" / "audit.toml")
    assert audit.permits(expression, allowed.licences) is met


def test_a_licence_that_nobody_allowed_is_named():
    """One that a package does not name as well; some packages have a written reason."""
    allowed = audit.Allowed.of(audit.ROOT / ".ci" / "audit.toml")
    bill = {"components": [
        component("a", "1", "MIT"), component("b", "1", "GPL-3.0-only"), component("c"),
        component("d", "1", "License :: OSI Approved :: BSD License"),
        component("e", "1", "MIT", "License :: Other/Proprietary License"),
        component("nvidia-cublas", "1", "License :: Other/Proprietary License"),
    ]}  # fmt: skip
    found = list(audit.forbidden(bill, allowed))
    assert [line.split(":")[0] for line in found] == ["b", "c", "e"]


def test_an_environment_other_than_the_lock_file_is_named():
    """Its licences and versions would be those of something else."""
    bill = {"components": [component("A_b", "1"), component("c", "2"), component("pip", "1")]}
    assert list(audit.strangers(bill, {"a-b": "1", "c": "2"})) == []
    found = list(audit.strangers(bill, {"a-b": "2", "d": "1"}))
    assert [line.split(":")[0] for line in found] == ["a-b", "c", "d"]


def test_every_dependency_here_has_an_allowed_licence():
    """The licences in the metadata of the locked packages are those of audit.toml."""
    from importlib.metadata import distributions

    allowed = audit.Allowed.of(audit.ROOT / ".ci" / "audit.toml")
    lock = audit.locked(audit.ROOT / "requirements.lock")
    bill = {"components": []}
    for one in distributions():
        classifiers = [c for c in one.metadata.get_all("Classifier", []) if "License ::" in c]
        expression = one.metadata.get("License-Expression")
        if audit._name(one.name) in lock and (expression or classifiers):
            named = [expression] if expression else classifiers
            bill["components"].append(component(one.name, one.version, *named))
    assert len(bill["components"]) > 50
    assert list(audit.forbidden(bill, allowed)) == []


@pytest.mark.skipif(not (TOOLS / "cyclonedx-py").exists(), reason="`make audit` installs the tools")
def test_the_bill_of_materials_is_valid_sorted_and_the_same_again(tmp_path: Path):
    """Two bills of the tools' own environment are the same valid CycloneDX 1.6."""
    bills = [audit.sbom(TOOLS, TOOLS / "python", tmp_path / f"{i}.json") for i in (1, 2)]
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()
    bill = bills[0]
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["name"] == "fedmedformer"
    names = [one["name"] for one in bill["components"]]
    assert names == sorted(names)
    assert {"pip_audit", "cyclonedx-bom"} <= set(names)
    assert str(audit.ROOT) not in (tmp_path / "1.json").read_text()
