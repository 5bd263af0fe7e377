"""`make audit`: what this project depends on, under which licences, with which known holes.

Writes OUT/sbom.json (CycloneDX 1.6) and OUT/vulnerabilities.json, prints the licences. Says of
every dependency that it was looked up, or fails: a service that cannot be asked knows of no holes
either, and pip-audit then ends with "No known vulnerabilities found".
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CONTROL = "jinja2==2.10"
"""Has had known holes since 2019 (CVE-2019-10906): a service that knows of none knows nothing."""
INSTALLERS = {"pip", "setuptools"}
"""Packages that are in every environment and in no lock file."""


class AuditError(Exception):
    """Something could not be found out; one sentence."""


@dataclass(frozen=True)
class Allowed:
    """audit.toml."""

    licences: frozenset[str]
    classifiers: frozenset[str]
    packages: Mapping[str, str]
    vulnerabilities: Mapping[str, str]

    @classmethod
    def of(cls, file: Path) -> "Allowed":
        """Read it.

        Raises:
            AuditError: Something passes without a reason.
        """
        known = tomllib.loads(file.read_text())
        for table in ("packages", "vulnerabilities"):
            if bare := [name for name, why in known[table].items() if not str(why).strip()]:
                raise AuditError(f"{file}: {bare[0]} in {table} has no reason")
        return cls(
            frozenset(known["licences"]), frozenset(known["classifiers"]),
            known["packages"], known["vulnerabilities"],
        )  # fmt: skip


def locked(file: Path) -> dict[str, str]:
    """Return the packages of a lock file with their versions."""
    lines = [line.split("#")[0].strip() for line in file.read_text().splitlines()]
    return {_name(n): v for n, _, v in (line.partition("==") for line in lines if line)}


def sbom(tools: Path, python: Path, out: Path) -> dict[str, Any]:
    """Write the bill of materials of an environment; the same environment gives the same bytes.

    Args:
        tools: Folder of cyclonedx-py.
        python: Of the environment.
    Raises:
        AuditError: It cannot be made, or is not valid CycloneDX.
    """
    command = [
        str(tools / "cyclonedx-py"), "environment", "--pyproject", str(ROOT / "pyproject.toml"),
        "--sv", "1.6", "--of", "JSON", "--output-reproducible", "--validate", "-o", str(out),
        str(python),
    ]  # fmt: skip
    done = _ran(command)
    if done.returncode:
        raise AuditError(f"no bill of materials: {_last(done.stderr)}")
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def strangers(bill: Mapping[str, Any], lock: Mapping[str, str]) -> Iterator[str]:
    """Yield each difference between the environment and the lock file."""
    there = {_name(c["name"]): str(c.get("version")) for c in bill["components"]}
    for name in INSTALLERS - set(lock):
        there.pop(name, None)
    for name in sorted({*lock, *there}):
        if there.get(name) != lock.get(name):
            yield (
                f"{name}: {there.get(name, 'missing')} in the environment, "
                f"{lock.get(name, 'missing')} in the lock file"
            )


def licences(component: Mapping[str, Any]) -> list[str]:
    """Return the SPDX expressions, or classifiers, that a package names."""
    found = []
    for entry in component.get("licenses", []):
        known = entry.get("license", {})
        found.append(entry.get("expression") or known.get("id") or known.get("name", ""))
    return found


def forbidden(bill: Mapping[str, Any], allowed: Allowed) -> Iterator[str]:
    """Yield packages under licences that nobody has allowed."""
    for component in bill["components"]:
        name, found = _name(component["name"]), licences(component)
        if any(fnmatchcase(name, pattern) for pattern in allowed.packages):
            continue
        if not found:
            yield f"{name}: names no licence"
        for one in found:
            if one not in allowed.classifiers and not permits(one, allowed.licences):
                yield f"{name}: {one!r} is not an allowed licence"


def permits(expression: str, ids: Set[str]) -> bool:
    """Tell whether these licences meet an SPDX expression: all of AND, one of OR."""
    tokens = re.findall(r"[()]|[^()\s]+ WITH [^()\s]+|[^()\s]+", expression)
    words = {"AND": "and", "OR": "or", "(": "(", ")": ")"}
    truths = " ".join(words.get(token, str(token in ids)) for token in tokens)
    try:  # nothing but `and`, `or`, brackets, True and False, which bind as in SPDX
        return bool(eval(truths, {"__builtins__": {}}))
    except SyntaxError:
        return False


def vulnerabilities(tools: Path, lock: Path, out: Path, allowed: Allowed) -> Iterator[str]:
    """Yield the known vulnerabilities of the locked packages.

    Raises:
        AuditError: Not every package could be looked up.
    """
    with tempfile.TemporaryDirectory() as folder:
        control = Path(folder) / "control.txt"
        control.write_text(CONTROL + "\n")
        if not any(package.get("vulns") for package in _asked(tools, control)):
            raise AuditError(
                f"the vulnerability service knows of no hole in {CONTROL}, which has several: its "
                "silence about others means nothing. Try another machine, or another service"
            )
    found = _asked(tools, lock)
    out.write_text(json.dumps(found, indent=1) + "\n")
    names = {_name(package["name"]) for package in found}
    if missing := sorted(set(locked(lock)) - names):
        raise AuditError(f"{len(missing)} packages were not looked up, {missing[0]} the first")
    for package in found:
        for hole in package["vulns"]:
            if not ({hole["id"], *hole.get("aliases", [])} & set(allowed.vulnerabilities)):
                fixed = ", ".join(hole["fix_versions"]) or "no version"
                yield f"{package['name']} {package['version']}: {hole['id']}, mended in {fixed}"


def _asked(tools: Path, file: Path) -> list[dict[str, Any]]:
    """Return pip-audit's answer for each package of a file."""
    command = [
        str(tools / "pip-audit"), "-r", str(file), "--no-deps", "--disable-pip", "-f", "json",
        "--progress-spinner", "off",
    ]  # fmt: skip
    done = _ran(command)
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError) as error:
        raise AuditError(
            "the vulnerability service could not be asked, so nothing is known: "
            f"{_last(done.stderr)}"
        ) from error
    if skipped := [package for package in found if "vulns" not in package]:
        raise AuditError(
            f"{len(skipped)} of {len(found)} packages could not be looked up, so nothing is known "
            f"of them: {skipped[0].get('skip_reason', skipped[0]['name'])}"
        )
    return found


def _ran(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=900)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AuditError(f"{command[0]}: cannot be run ({type(error).__name__})") from error


def _last(text: str) -> str:
    """Return the last line that a tool printed."""
    return (text.strip().splitlines() or ["it says nothing"])[-1][:300]


def _name(text: str) -> str:
    """Return a package's name as PEP 503 normalises it."""
    return re.sub(r"[-_.]+", "-", text).lower()


def main(argv: Sequence[str] | None = None) -> int:
    """Do all of it, whatever the first parts find.

    Returns:
        0 if all is known and allowed, else 1.
    """
    parser = argparse.ArgumentParser(prog="python -m tools.audit", description="See `make audit`.")
    parser.add_argument("--tools", type=Path, required=True, help="bin folder of the two tools")
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="what is audited")
    parser.add_argument("--lock", type=Path, default=ROOT / "requirements.lock")
    parser.add_argument("--allowed", type=Path, default=ROOT / ".ci" / "audit.toml")
    parser.add_argument("--out", type=Path, default=ROOT / "build")
    arguments = parser.parse_args(argv)
    problems: list[str] = []
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
        allowed = Allowed.of(arguments.allowed)
        bill = sbom(arguments.tools, arguments.python, arguments.out / "sbom.json")
        for component in sorted(bill["components"], key=lambda c: _name(c["name"])):
            named = "; ".join(licences(component)) or "-"
            print(f"{_name(component['name'])} {component.get('version', '')}\t{named}")
        problems += strangers(bill, locked(arguments.lock))
        problems += forbidden(bill, allowed)
        file = arguments.out / "vulnerabilities.json"
        file.unlink(missing_ok=True)
        problems += vulnerabilities(arguments.tools, arguments.lock, file, allowed)
    except AuditError as error:
        problems.append(str(error))
    for problem in problems:
        print(f"audit: {problem}", file=sys.stderr)
    if not problems:
        print("audit: every dependency was looked up, and none is known to be bad", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
