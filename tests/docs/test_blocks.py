"""Every command and snippet on a page is run by a test, or says why it is not."""

from pathlib import Path

import pytest

from tests.docs.blocks import (
    BLOCK,
    COMMAND,
    ELSEWHERE,
    LEVELS,
    PAGES,
    ROOT,
    RUNNABLE,
    Block,
    Reader,
    all_blocks,
    make_block,
    understood,
)

PAGES_AT = {
    level: sorted({block.page for block in all_blocks() if block.level == level
                   and block.language in RUNNABLE})
    for level in LEVELS
}  # fmt: skip


def follow(page: str, level: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a page's blocks up to `level` in their order."""
    monkeypatch.chdir(folder)
    reader = Reader(folder)
    allowed = LEVELS[: LEVELS.index(level) + 1]
    ran = False
    for block in all_blocks():
        if block.page != page:
            continue
        if block.declared == "output":
            if ran:
                reader.compare(block)
        elif block.language in RUNNABLE and (ran := block.level in allowed):
            reader.follow(block)


@pytest.mark.parametrize("page", PAGES_AT["fast"])
def test_a_page_is_right(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The quick blocks of a page work in their order, in an empty folder."""
    follow(page, "fast", tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES_AT["slow"])
def test_a_page_with_a_run_in_one_process_is_right(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Blocks that train a federation in one process work too."""
    follow(page, "slow", tmp_path, monkeypatch)


@pytest.mark.flower
@pytest.mark.parametrize("page", PAGES_AT["flower"])
def test_a_page_with_a_run_through_flower_is_right(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Blocks that train a federation through Flower work too."""
    follow(page, "flower", tmp_path, monkeypatch)


@pytest.mark.heavy
@pytest.mark.parametrize("page", PAGES_AT["heavy"])
def test_a_page_with_long_commands_is_right(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Blocks that take minutes work too."""
    follow(page, "heavy", tmp_path, monkeypatch)


def test_every_block_is_run_or_says_why_not():
    """A block has a level at which a test runs it, or a reason of several words."""
    for block in all_blocks():
        where = (block.page, block.line)
        if block.language in RUNNABLE:
            assert block.level in LEVELS or len(block.reason.split()) > 2, where
        elif not block.language.startswith("{"):
            assert block.language == "text", (*where, "name the language of the block")
            assert block.declared or not COMMAND.search(block.text), (*where, "commands are `sh`")
    unseen = sum(page.read_text().count("\n```") // 2 for page in PAGES if _own(page))
    assert len(all_blocks()) == unseen


def _own(page: Path) -> bool:
    return str(page.relative_to(ROOT)) not in ELSEWHERE


def test_a_page_that_another_test_runs_is_named_there():
    """The test that is said to run a page does read it."""
    for page, test in ELSEWHERE.items():
        assert Path(page).name in (ROOT / test).read_text()


@pytest.mark.parametrize(
    "block", [b for b in all_blocks() if b.declared == "parsed"], ids=lambda b: f"{b.page}:{b.line}"
)
def test_a_command_that_is_not_run_is_spelled_right(block: Block):
    """The parser knows every option of a command that takes hours."""
    for line in block.lines:
        assert line.startswith("fedmedformer "), line
        assert understood(line), line


def test_a_declaration_belongs_to_the_block_below_it():
    """A comment above a block is read with the block, and so is the name of its file."""
    page = (
        "`a/b.yaml`:\n\n```yaml\nx: 1\n```\n\n"
        "<!-- not run: too long for a test -->\n```sh\nls\n```\n"
    )
    first, second = BLOCK.finditer(page)
    assert (first["file"], first["declared"]) == ("a/b.yaml", None)
    assert second["declared"] == "not run: too long for a test"


@pytest.mark.parametrize(
    ("shown", "right"),
    [
        ("round 1/6  loss 0.688\n...\ndone in 21 s\n", True),
        ("round 2/6 loss 0.7\n", True),
        ("round 2/6 accuracy 0.7\n", False),
        ("done in 20 minutes\n", False),
    ],
)
def test_an_output_is_compared_without_its_numbers(tmp_path: Path, shown: str, *, right: bool):
    """Words and columns of a shown output are those of the real one; numbers may differ."""
    page = (
        "```sh\nprintf 'round 1/6  loss 0.512\\ndone in 9 s\\n'\n```\n\n"
        f"<!-- output -->\n```text\n{shown}```\n"
    )
    command, output = (make_block(found) for found in BLOCK.finditer(page))
    reader = Reader(tmp_path)
    reader.follow(command)
    if right:
        reader.compare(output)
    else:
        with pytest.raises(AssertionError):
            reader.compare(output)
