"""docs/data.md lists every format with its test, and every setting with its default."""

import re
from pathlib import Path

import pytest
from pydantic_core import PydanticUndefined

from client.data.dicom.decoding import codecs
from client.data.pictures import reading as pictures
from client.data.sources import Dicom, Folder, MedMnist, Nifti, Npz, Phantoms
from medformer.config import Frozen

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "data.md").read_text()
ROWS = [[cell.strip() for cell in row.split("|")[1:-1]]
        for row in TEXT.splitlines() if row.startswith("|") and "---" not in row]  # fmt: skip
KINDS: dict[str, type[Frozen]] = {
    "folder": Folder, "dicom": Dicom, "nifti": Nifti, "npz": Npz, "medmnist": MedMnist,
    "phantoms": Phantoms,
}  # fmt: skip


def test_every_format_has_a_test():
    """Every source that site.yaml can name has a row, and each row names a test."""
    start = ROWS.index(["`source`", "format", "test"])
    formats = ROWS[start + 1 : ROWS.index(["setting", "of", "if left out"])]
    assert {row[0].strip("`") for row in formats if row[0]} == set(KINDS)
    assert not [row for row in formats if not re.search(r"`test_\w+`", row[2])]


def test_every_suffix_and_transfer_syntax_stands_there_and_no_other():
    """Suffixes are those that are read, and transfer syntaxes those that a test decodes."""
    (line,) = re.findall(r"Pictures are files that end in (.*?), in any case", TEXT, re.DOTALL)
    assert set(re.findall(r"\.\w+", line)) == pictures.SUFFIXES
    (line,) = re.findall(r"1\.2\.840\.10008\.1\.2 followed by (.*?RLE)", TEXT, re.DOTALL)
    told = {f"1.2.840.10008.1.2{end}" for end in re.findall(r"(?<![\w.])\.[\d.]*\d", line)}
    assert told == set(codecs.NEEDED)


@pytest.mark.parametrize("source", KINDS)
def test_every_setting_stands_there_with_its_default(source: str):
    """The page lists each setting of a source, with its default, and no other."""
    told: dict[str, str] = {}
    for names, kinds, default in ROWS[ROWS.index(["setting", "of", "if left out"]) + 1 :]:
        if source in kinds.split(", "):
            told |= dict.fromkeys(re.findall(r"`(\w+)`", names), default)
    fields = {k: v for k, v in KINDS[source].model_fields.items() if k != "source"}
    assert set(told) == set(fields)
    for name, field in fields.items():
        if field.default is PydanticUndefined:
            assert "has to be given" in told[name], name
        elif isinstance(field.default, str | int | float):
            words = str(field.default).lower().removesuffix(".0")
            assert re.search(rf"(?<![\w.]){re.escape(words)}(?![\w.]*\w)", told[name]), name
