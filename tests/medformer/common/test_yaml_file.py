"""Settings: YAML 1.2 within limits, numbers that are numbers, and sentences for what is not."""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from pydantic import BaseModel, Field, StrictBool, StrictFloat, StrictInt

from client.policy import Policy
from client.site import Site
from medformer.common.yaml_file import load_yaml, parse_yaml, read_yaml
from medformer.common.yaml_text import dump
from medformer.config import Frozen, Name
from medformer.errors import ConfigError
from server.consortium.declarations import Consortium, RunFile
from simulations.scenario import Scenario
from simulations.scenario_file import load_scenario


class Inner(Frozen):
    """A part of some settings."""

    share: StrictFloat = Field(default=0.5, gt=0, lt=1)


class Some(Frozen):
    """Settings of every kind."""

    x: StrictFloat = 1.0
    n: StrictInt = 1
    on: StrictBool = False
    name: Name = "a"
    classes: tuple[str, ...] = ()
    file: Path | None = None
    rate: StrictFloat | Literal["sites"] = 1.0
    window: Literal["file"] | tuple[StrictFloat, StrictFloat] = "file"
    inner: Inner = Inner()


SITE = """
name: north
domain: {{name: north, modality: ct, anatomy: chest, channels: 1}}
tasks: [{{name: t, kind: binary-class, classes: 2}}]
data:
  source: folder
  path: {path}
privacy: {{n_public: 600}}
withdrawn: {withdrawn}
"""


def read(text: str | bytes, folder: Path, model: type[BaseModel] = Some) -> Any:
    file = folder / "some.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_yaml(file, model)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8", 8), ("-3", -3), ("+8", 8), ("0", 0), ("0o17", 15), ("0x1F", 31),
        ("1e-5", 1e-5), ("1E3", 1000.0), ("5.", 5.0), ("-.5", -0.5), ("6.02e+23", 6.02e23),
        ("true", True), ("FALSE", False), ("~", None), ("null", None), ("", None),
        ("yes", "yes"), ("no", "no"), ("on", "on"), ("Off", "Off"), ("y", "y"),
        ("0600", "0600"), ("017", "017"), ("00", "00"), ("017.5", "017.5"), ("0b11", "0b11"),
        ("1:30", "1:30"), ("12:30:45", "12:30:45"), ("1_000", "1_000"), ("1.0_1", "1.0_1"),
        ("2026-01-02", "2026-01-02"), ("2026-01-02 10:00:00", "2026-01-02 10:00:00"),
        ("'8'", "8"), ('"true"', "true"), ("=", "="), ("1,5", "1,5"), ("0o8", "0o8"),
    ],
)  # fmt: skip
def test_a_plain_scalar_means_what_the_core_schema_of_yaml_1_2_says(text: str, value: object):
    """Section 10.3.2; a number with zeros in front, which versions read differently, is text."""
    found = parse_yaml(f"a: {text}")["a"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("key", ["no", "on", "007", "1e3", "2026-01-02", "true", "~", "1:30"])
def test_a_key_is_text_as_it_is_written(key: str):
    """A site may be called `no`, a class `007`."""
    assert parse_yaml(f"{key}: 1") == {key: 1}


def test_a_file_that_is_not_there_is_no_broken_yaml(tmp_path: Path):
    """Nor is a folder: whoever looks for a mistake in it would look in vain."""
    with pytest.raises(ConfigError, match=r"a\.yaml: cannot be read: there is no such file"):
        load_yaml(tmp_path / "a.yaml")
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory\)"):
        load_yaml(tmp_path)


@pytest.mark.parametrize(
    "text", ["x: !!int 017", "x: !!bool no", "x: !!float 1:30", "x: !!timestamp 2026-01-02",
             "x: !!set {a}", "x: !!binary YQ==", "[a]: 1"],
)  # fmt: skip
def test_a_tag_makes_nothing_a_number_that_is_none(text: str):
    """Nor brings back the types of YAML 1.1."""
    with pytest.raises(ConfigError, match="cannot be read as YAML"):
        parse_yaml(text)


def test_aliases_and_merged_keys_are_read_and_share_nothing():
    """A value that is changed later changes alone."""
    found = parse_yaml("a: &a {p: 1}\nb: {<<: *a, q: 2}\nc: *a")
    assert found == {"a": {"p": 1}, "b": {"p": 1, "q": 2}, "c": {"p": 1}}
    assert found["a"] is not found["c"]


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("a:\n\tb: 1", "line 2, column 1: .*indent with spaces"),
        ("a: 1\n---\nb: 2", "line 2, .*one file holds one document"),
        ("a: 1\nhost: ::", "line 2, .*a colon in quotes"),
        ("hosts: [::1]", "line 1, .*in quotes"),
        ("a: \x1b[0m", "special characters are not allowed"),
        ("a:\n  b:1\n  c: 2", "line 3, .*with a space"),
        ("a: %HOME%", "line 1, .*in quotes"),
        (r'a: "C:\images"', r"line 1, .*or use single quotes"),
        ("x: 1\nx: 2", "line 2: the key 'x' is given twice"),
        ("a: 1\n\nb: 8\u00a0", r"line 3: the invisible character U\+00A0 stands beside '8'"),
        ("a: [\u200b8]", r"line 1: the invisible character U\+200B"),
        ("a\ufeff: 8", r"line 1: the invisible character U\+FEFF"),
        ("a:\n\u00a0b: 1\n  c: 2", r"line 3, .*; line 2 begins with U\+00A0, which is not a space"),
    ],
)
def test_what_is_no_yaml_is_refused_with_the_line_and_a_remedy(text: str, remedy: str):
    """Tabs, several documents, addresses of IPv6."""
    with pytest.raises(ConfigError, match=remedy):
        parse_yaml(text)


@pytest.mark.parametrize(
    ("written", "right"),
    [
        ("0600", "write 600, or 0o600 for the octal number 384"), ("017", "write 17"),
        ("08", "write 8"), ("007.5", "write 7.5, without zeros"), ("1:30", "1:30 .* is 90"),
        ("true", "got true"), ("no", "for switches"), ("8,0", "write 8.0, with a point"),
        ("1,000", "write 1.*, or 1000, without"), ("1_000", "write 1000"),
        ("1.000.000", "write 1000000"), ("1 000", "write 1000"), ("1.234,5", "write 1234.5"),
        ("2026-01-02", "that is a date"), ("'8'", "write 8, without quotes"),
        ("'1e-5'", "write 1e-5, without quotes"), ("5%", "write 0.05"), ("1/5", "write 0.2"),
        ("8 GiB", "in MiB.* it is 8192"), ("30 s", "write 30, without the unit"),
        ("10^-5", "write 1e-5"), ("\N{MINUS SIGN}5", "write -5"), ("0b11", "write 3"),
        ("inf", "finite"), (".inf", "finite"), (".nan", "finite"), ("1e999", "finite"),
        ("~", "got nothing"), ("ten", "got 'ten'"), ("[1]", "got a list"), ("{a: 1}", "got keys"),
        ("0o9", "not digits in base 8"),
        ("1 e-5", "write 1e-5"), ("1e -5", "write 1e-5"), ("1,5e-5", "write 1.5e-5"),
        ("1*10^-5", "write 1e-5"), ("1x10-5", "write 1e-5"), ("2 × 10^3", "write 2e3"),
        ("1,e-5", "write 1e-5"), ("1e1.0", r"got '1e1.0'\.$"), ("2k", "write 2000"),
        ("\uff18", "write 8, in plain digits"), ("'8 '", "write 8, in plain digits"),
    ],
)  # fmt: skip
def test_what_is_no_number_is_refused_with_the_right_spelling(
    written: str, right: str, tmp_path: Path
):
    """The error suggests a spelling; YAML 1.1 reads the first of these as 384, 15, 90, 1, 0."""
    for key in ("x", "n", "rate"):
        with pytest.raises(ConfigError, match=rf"some.yaml, line 2: `{key}`: .*{right}"):
            read(f"# some\n{key}: {written}", tmp_path)


@pytest.mark.parametrize("written", ["1" + 3_000 * ":59", "0" + 5_000 * "1"])
def test_a_number_of_thousands_of_digits_is_refused_without_a_suggestion(
    written: str, tmp_path: Path
):
    """Python prints no such number, so that the error itself could not be written."""
    with pytest.raises(ConfigError, match="`rate`"):
        read(f"rate: {written}", tmp_path)


def test_a_number_is_never_a_switch_nor_a_quoted_word(tmp_path: Path):
    """A boolean is never made of `0`, `1` or a quoted word."""
    for written in ("1", "0.0", "'false'", "'no'", "nein", "y", "~"):
        with pytest.raises(ConfigError, match="`on`: Input should be true or false, got"):
            read(f"on: {written}", tmp_path)
    for written, meant in (("yes", True), ("On", True), ("no", False), ("OFF", False)):
        assert read(f"on: {written}", tmp_path).on is meant


def test_the_model_decides_what_a_scalar_is(tmp_path: Path):
    """Names, classes and files that look like numbers are text; 6e2 is a whole number."""
    found = read(
        "name: 007\nclasses: [0, 1e3, 1.0, no, true, 01, 2026-01-02]\nfile: 12\nn: 6e2", tmp_path
    )
    assert found.name == "007"
    assert found.classes == ("0", "1e3", "1.0", "no", "true", "01", "2026-01-02")
    assert (found.file, found.n) == (Path("12"), 600)
    with pytest.raises(ConfigError, match="put it in quotes, 'null'"):
        read("classes: [null, tumour]", tmp_path)
    with pytest.raises(ConfigError, match=r"valid integer, got 600\.5"):
        read("n: 600.5", tmp_path)


@pytest.mark.parametrize("written", ["1.000", "600.000", "+20.000"])
def test_a_point_before_three_digits_makes_no_whole_number(written: str, tmp_path: Path):
    """A thousand to some and one to others: n_public would be wrong by a factor of 1,000."""
    whole, part = written.split(".")
    said = f"`n`: .*integer, got .{{2,8}}: write .?{whole[-3:]}, or .?{whole[-3:]}{part}, without"
    with pytest.raises(ConfigError, match=said.replace("+", "")):
        read(f"n: {written}", tmp_path)
    assert read("n: 1.0\nx: 1.000", tmp_path).n == 1


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("~/images", "`~` is another folder"), ("'~'", "or ./~ for a name"),
        ("$HOME/images", "variables are not replaced"),
        ("/data/${SITE}/x", "variables are not replaced"), ("'%DATA%/x'", "variables are not"),
        (r"C:\images", "is a path of Windows"), ("D:/images", "is a path of Windows"),
        (r"\\server\share", "is a path of Windows"), ("s3://bucket/x", "is an address"),
        ("file:///images", "is an address"), ("''", "names no file or folder"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("key", ["path", "withdrawn"])
def test_a_path_is_taken_as_it_is_or_refused(path: str, said: str, key: str, tmp_path: Path):
    """Nothing in it is expanded: guard and node are two users, and a list of the withdrawn that is
    not found leaves out everything."""
    site = {"path": "images", "withdrawn": "list", key: path}
    text = SITE.format(**site)
    with pytest.raises(ConfigError, match=f"`(data.)?{key}`: .*{re.escape(said)}"):
        read(text, tmp_path, Site)


def test_odd_names_of_files_are_names(tmp_path: Path):
    """They are accepted where they only resemble paths of another system."""
    for path in ("./~x", "a~b", "data$", "nas/$1", "a:b", "x%y%z", "OCT2017 (1)/a", "."):
        found = read(SITE.format(path=path, withdrawn="list"), tmp_path, Site)
        assert found.data.path == Path(path)


def test_an_error_names_the_file_the_line_and_the_key(tmp_path: Path):
    """It does so where keys are nested, and where a value has alternatives."""
    for text, said in (
        ("x: 1\ninner:\n  share: 1.5", "some.yaml, line 3: `inner.share`: .*less than 1, got 1.5"),
        ("inner: {}\nwindow: [1, a]", r"line 2: `window.1`: .*number, got 'a'"),
        ("rate: most", "`rate`: Input should be a valid number or 'sites', got 'most'"),
        ("x: 1\nclasses: a", r"line 2: `classes`: .* a list, such as \[a, b\], got 'a'"),
        ("inner: [1]", "`inner`: Input should be keys and values, got a list"),
        ("{x: 8,0}", "unknown key `0`. A comma separates values: .*such as 8.0"),
        ("x: 1\nnmae: a", "line 2: unknown key `nmae`. Did you mean `name`"),
        ("", "some.yaml: Input should be keys and values, got nothing"),
    ):
        with pytest.raises(ConfigError, match=said):
            read(text, tmp_path)


def test_texts_of_windows_are_read(tmp_path: Path):
    """UTF-16 and UTF-8 with their marks; other encodings are named."""
    text = "name: a\r\nclasses: [gesund, Läsion]\r\n"
    for data in (codecs.BOM_UTF16_LE + text.encode("utf-16-le"), text.encode("utf-8-sig")):
        assert read(data, tmp_path).classes == ("gesund", "Läsion")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        read(text.encode("latin-1"), tmp_path)
    for encoding in ("utf-16-le", "utf-16-be", "utf-32"):
        with pytest.raises(
            ConfigError, match=r"zero bytes, .*Save the file with the encoding UTF-8"
        ):
            read(text.encode(encoding), tmp_path)


@pytest.mark.parametrize("model", [Site, Policy, Consortium, RunFile, Scenario])
def test_no_setting_takes_text_or_a_switch_for_a_number(model: type[BaseModel]):
    """Every number and switch of every settings file is strict."""
    schema = model.__pydantic_core_schema__
    loose = [s for s in _scalars(schema) if not s.get("strict")]
    assert not loose


def _scalars(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if schema.get("type") in ("int", "float", "bool"):
            yield schema
        for part in schema.values():
            yield from _scalars(part)
    elif isinstance(schema, (list, tuple)):
        for part in schema:
            yield from _scalars(part)


@pytest.mark.parametrize("word", ["no", "1e5", "0o17", "0600", "1:30", "true", "~", "", "1_000"])
def test_what_is_written_is_read_by_every_version_of_yaml(word: str):
    """Text is read as text and a number as a number, by YAML 1.1 and 1.2."""
    value = {"a": word, word: [1, 1e-5, True, None]}
    assert parse_yaml(dump(value).decode()) == yaml.safe_load(dump(value)) == value


def test_a_setting_of_the_command_line_is_read_as_in_the_file():
    """The same numbers, the same refusals; it changes nothing that an alias repeats elsewhere."""
    found = load_scenario("segmentation", ["privacy.delta=1e-6", "sites.0.tasks.0.weight=2"])
    assert found.privacy.delta == 1e-6
    assert [site.tasks[0].weight for site in found.sites] == [2, 1]
    assert load_scenario("quickstart", ["name=007"]).name == "007"
    assert load_scenario("quickstart", ["concepts=no"]).concepts is False
    assert load_scenario("quickstart", ["pretraining=no"]).pretraining is None
    for setting, said in (
        ("privacy.epsilon=0600", "`privacy.epsilon`: .*write 600"),
        ("seed=true", "`seed`: .*got true"),
        ("pretraining=0", "`pretraining`: .*keys and values"),
        ("seed=[", "--set seed=.*cannot be read as YAML"),
        ("sites.9.name=a", "no such place"),
        ("seed.a=1", "no such place"),
    ):
        with pytest.raises(ConfigError, match=said):
            load_scenario("quickstart", [setting])
