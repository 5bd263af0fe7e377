"""Reads the fenced blocks of README and docs/, and runs them as somebody would who follows a page.

A comment on the line above a block says when a test runs it, or why none does:

    <!-- run: slow -->               seconds to a minute: a run in one process
    <!-- run: flower -->             a run through Flower and Ray
    <!-- run: heavy -->              minutes
    <!-- parsed: REASON -->          the command line is parsed to the last option, not run
    <!-- not run: REASON -->         neither
    <!-- output -->                  a `text` block: what the block before it printed

Without a comment a block is run by the unit tests. `sh` blocks are typed line by line, `python`
blocks of a page share their names, and a `yaml` block is written to the file that the paragraph
above it names (`NAME`: ...). A page's blocks run in their order, in one folder. The lines of an
output are looked for among the real ones, numbers apart; `...` stands for lines left out.
"""

import contextlib
import functools
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted(
        page
        for page in (ROOT / "docs").rglob("*.md")
        if "_build" not in page.parts
    ),
]  # fmt: skip
ELSEWHERE = {
    "docs/hospital.md": "tests/deployment/test_tutorial.py",
    "docs/howto/extend.md": "tests/docs/test_extend.py",
}
"""Pages with a test of their own, which runs every block."""
LEVELS = ("fast", "slow", "flower", "heavy")
RUNNABLE = {"sh", "python", "yaml"}
BLOCK = re.compile(
    r"(?:^`(?P<file>[\w./-]+)`[^\n]*:\n\n)?"
    r"(?:^<!-- (?P<declared>(?:run: |parsed: |not run: |output)[^\n]*?) -->\n)?"
    r"^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
SHAPE = re.compile(r"^(\w+) = .*# (\(\d[\d, ]*\))", re.MULTILINE)
COMMAND = re.compile(r"^(?:\$ )?(?:fedmedformer|python3?|pip|make|pytest|flwr) ", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str
    """Path of the page in the repository."""
    line: int
    """Line of the page on which the block begins, for messages."""
    language: str
    text: str
    file: str | None
    """Name of the file that the block is, if the page gives one."""
    level: str | None
    """`fast`, `flower` or `heavy`; None if the block is declared as not run."""
    declared: str
    """`parsed`, `not run`, `output` or an empty string."""
    reason: str

    @property
    def lines(self) -> list[str]:
        """The command lines of an `sh` block, continuation lines joined, comments left out."""
        joined = self.text.replace("\\\n", " ").splitlines()
        return [line for line in joined if line.strip() and not line.lstrip().startswith("#")]


def make_block(found: re.Match[str], page: str = "page.md") -> Block:
    """Return the block that a match of `BLOCK` found on a page."""
    kind, _, reason = (found["declared"] or "run: fast").partition(": ")
    return Block(
        page=page,
        line=found.string.count("\n", 0, found.start("info")) + 1,
        language=found["info"].split(" ")[0],
        text=found["text"],
        file=found["file"],
        level=reason if kind == "run" else None,
        declared="" if kind == "run" else kind,
        reason="" if kind == "run" else reason,
    )


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page in their order."""
    for found in BLOCK.finditer(page.read_text()):
        yield make_block(found, str(page.relative_to(ROOT)))


@functools.cache
def all_blocks() -> tuple[Block, ...]:
    """Return the blocks of all pages but those that another test runs."""
    return tuple(
        block
        for page in PAGES
        if str(page.relative_to(ROOT)) not in ELSEWHERE
        for block in blocks(page)
    )


def understood(command: str) -> bool:
    """Return whether `fedmedformer` parses a command line down to its last option."""
    from unittest.mock import patch

    from simulations import cli

    with patch.object(cli, "_run", return_value=0):
        return cli.main(shlex.split(command, comments=True)[1:]) == 0


class Reader:
    """A reader who types the commands of a page in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: dict[str, object] = {"__name__": "__main__"}
        self._printed: list[str] = []
        (folder / ".venv").symlink_to(sys.prefix)
        for name in ("Makefile", "pyproject.toml", "requirements.lock"):
            shutil.copy(ROOT / name, folder / name)
        bin_ = Path(sys.prefix) / "bin"
        self._environment = {
            **os.environ,
            "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
        }

    def follow(self, block: Block) -> None:
        """Run a block, or write the file that it is."""
        if block.file is not None:
            file = self.folder / block.file
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text)
        elif block.language == "python":
            code = compile(block.text, f"{block.page}:{block.line}", "exec")
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(code, self._names)
            self._printed = [printed.getvalue()]
            self._compare_shapes(block)
        else:
            self._printed = []
            for line in block.lines:
                self._type(line, block)

    def compare(self, output: Block) -> None:
        """Look for each line of a block of output among those that the last commands printed.

        Digits count as equal, so do bars of progress, and runs of spaces count as one: times and
        losses differ from machine to machine, words and columns do not.
        """
        real = {_without_numbers(line) for text in self._printed for line in text.splitlines()}
        for line in output.text.splitlines():
            where = (output.page, output.line, line)
            assert line == "..." or _without_numbers(line) in real, (*where, self._printed)

    def _compare_shapes(self, block: Block) -> None:
        """Hold a comment such as `# (4, 5)` behind an assignment against the shape of its value."""
        for name, shape in SHAPE.findall(block.text):
            found = tuple(self._names[name].shape)  # type: ignore[attr-defined]
            assert str(found) == shape, (block.page, block.line, name)

    def _type(self, line: str, block: Block) -> None:
        plain = line.startswith("fedmedformer ") and not re.search(r"[|<>$*]", line)
        if plain and block.level == "fast":  # without a new process, which would load torch again
            from simulations import cli

            printed = io.StringIO()
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                try:
                    code = cli.main(shlex.split(line, comments=True)[1:])
                except SystemExit as end:  # help ends so
                    code = int(end.code or 0)
            self._printed.append(printed.getvalue())
            assert code == 0, (block.page, line, printed.getvalue())
            return
        if line.startswith("make "):  # the environment of the tests is the one it would set up
            line = line.replace("make ", "make -o .venv/.installed ", 1)
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        self._printed.append(done.stdout + done.stderr)
        assert done.returncode == 0, (block.page, block.line, line, done.stdout, done.stderr)


def _without_numbers(line: str) -> str:
    line = re.sub(r"\[[#.]+\]", "[]", line)  # a bar of progress goes by the time
    return re.sub(r"\s+", " ", re.sub(r"\d+", "0", line)).strip()
