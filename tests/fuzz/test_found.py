"""Faults that the fuzzers have found, one test each, which do not depend on seeds."""

import gzip
import json
import os
import sqlite3
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from PIL import Image

from client.data import npz
from client.data.dicom.decoding import process as decoding
from client.data.errors import DataError, Unusable
from client.data.load import read
from client.data.sources import Folder, Npz
from client.guard import Guard
from client.ledger.chain import FILE, LedgerError
from client.ledger.ledger import Ledger
from client.site import Privacy, Site
from medformer.common.yaml_file import MAX_BYTES, parse_yaml, read_yaml
from medformer.config import Frozen, ModelConfig
from medformer.errors import ConfigError, MedFormerError, ModelFileError
from medformer.library.model_file import MAX_HEADER, read_header
from server.protocol import ProtocolError, Refusal, Schedule, TrainAnswer
from server.protocol.receipt import read_receipt
from server.protocol.wire import read_answer, to_content
from tests.conftest import admit
from tests.fuzz.images import FLAT, archive, npy, npz_members, saved, site_of
from tests.fuzz.texts import PRIVACY, plan

GREY = np.arange(24 * 24, dtype=np.uint8).reshape(24, 24)


# Records


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Three pictures in a folder, one beside it, and links of each kind."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for i in range(3):
        Image.fromarray(GREY + i).save(folder / f"{i}.png")
    Image.fromarray(GREY[::-1].copy()).save(tmp_path / "outside.png")
    (folder / "out.png").symlink_to(tmp_path / "outside.png")
    (folder / "up").symlink_to(tmp_path)
    (folder / "in.png").symlink_to(folder / "0.png")
    return folder


def table(folder: Path, *lines: str) -> Site:
    (folder / "labels.csv").write_text("\n".join(["file,kind,patient,split", *lines]))
    return site_of(Folder(source="folder", path=folder), FLAT)


@pytest.mark.parametrize(
    "name", ["../outside.png", "out.png", "up/outside.png", "{up}/outside.png"]
)
def test_a_table_names_nothing_outside_its_folder(scans: Path, name: str):
    """Not by `..`, not by a link, not by an absolute name; the other record is not touched."""
    records = read(
        table(scans, f"{name.format(up=scans.parent)},0,,train", "1.png,1,,train"), "train"
    )
    assert records.valid.tolist() == [False, True] or records.valid.tolist() == [True, False]
    assert "lies outside of data.path" in records.faults[0]


def test_a_mask_and_a_series_lie_inside_too(scans: Path):
    """A folder that holds a link which leads out is not entered."""
    from client.data.folder.table import inside

    assert inside(scans, "in.png") == (scans / "0.png").resolve()
    with pytest.raises(Unusable, match=r"lies outside of data\.path, or leads there"):
        inside(scans, ".")
    with pytest.raises(Unusable, match="not the name of a file"):
        inside(scans, "a\0b")


def test_what_a_table_says_reaches_no_terminal(scans: Path):
    """Escape sequences and text that runs backwards are shown, not obeyed; long names are cut."""
    records = read(table(scans, "\x1b[2Jx\u202e.png,0,,train", f"{'y' * 9_000},0,,train"), "train")
    assert all(fault.isprintable() and len(fault) <= 500 for fault in records.faults)
    assert any("\\x1b[2Jx\\u202e.png" in fault for fault in records.faults)
    assert str(MedFormerError("a\nb\x1b")) == "a b\\x1b"


def test_a_decoder_that_dies_costs_one_record():
    """Decoders in C and C++ can end their process: the next file is decoded by a new one. It is
    ended here by a signal, so that no file has to do it."""
    from pydicom.data import get_testdata_file

    good = Path(str(get_testdata_file("MR_small_RLE.dcm")))
    decoder = decoding.Decoder()
    try:
        first = decoder.decode(good, 2**20)
        assert first.shape == (64, 64)
        process = decoder._process
        assert process is not None
        os.kill(process.pid, 6)
        with pytest.raises(Unusable, match="the decoder crashed on it"):
            decoder.decode(good, 2**20)
        assert np.array_equal(decoder.decode(good, 2**20), first)
        with pytest.raises(Unusable, match="more than 0 MiB came out of it"):
            decoder.decode(good, 100)
    finally:
        decoder.close()


def test_no_seed_spoils_what_other_peoples_decoders_read():
    """A file that crashes one of them has no place here, not even as the number of a seed."""
    from tests.fuzz.images import dicom_seeds

    compressed = b"1.2.840.10008.1.2.4."
    assert not [data for data in dicom_seeds() if compressed in data[:1_000]]
    assert [data for data in dicom_seeds() if b"1.2.840.10008.1.2.5" in data[:1_000]]


def test_a_length_that_lies_asks_for_no_memory(tmp_path: Path):
    """Four gigabytes of a file of four bytes are four bytes."""
    from client.data.dicom.files import Clipped

    (tmp_path / "a").write_bytes(b"abcd")
    tracemalloc.start()
    with Clipped(tmp_path / "a") as file:
        assert file.read(2**32) == b"abcd"
        assert file.read() == b""
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda m: [*m, m[0]], "lists an array twice"),
        (lambda m: [*m, ("../x.npy", b"")], "leads out of its folder"),
        (lambda m: [*m, ("/x.npy", b"")], "leads out of its folder"),
        (lambda m: [*m, ("C:\\x.npy", b"")], "leads out of its folder"),
        (lambda m: [(m[0][0], m[0][1] + b"x"), *m[1:]], "states .* it is damaged"),
        (lambda m: [(m[0][0], m[0][1][:-1]), *m[1:]], "states .* it is damaged"),
        (lambda m: [(m[0][0], saved(np.zeros((2**27,), "u1"))), *m[1:]], "decompression bomb"),
        (lambda m: [(m[0][0], npy("{'descr': '|u1', 'fortran_order': False, 'shape': (9**9,)}"))],
         "not a readable npz file|holds no"),
    ],
)  # fmt: skip
def test_an_archive_is_held_against_itself(tmp_path: Path, harm: Callable, reason: str):
    """Before an array is made: names, sizes, and what so few bytes may come to."""
    (tmp_path / "a.npz").write_bytes(archive(harm(npz_members())))
    with pytest.raises(DataError, match=reason):
        npz.read(tmp_path / "a.npz", "train")


def test_an_encrypted_archive_and_an_unknown_method_are_named(tmp_path: Path):
    """zipfile raises RuntimeError and NotImplementedError."""
    for offset, value in ((8, 1), (10, 99)):
        data = bytearray(archive(npz_members(), zipfile.ZIP_STORED))
        at = data.index(b"PK\x01\x02")
        struct.pack_into("<H", data, at + offset, value)
        (tmp_path / "a.npz").write_bytes(data)
        with pytest.raises(DataError, match="not a readable npz file"):
            npz.read(tmp_path / "a.npz", "train")


@pytest.mark.parametrize("rows", ["[-1]", "[4]", '["0"]', "[true]", "[0, 0]", "3", "[[0]]"])
def test_indices_name_rows_that_there_are_once(tmp_path: Path, rows: str):
    """A negative row would be another one, a repeated one two units."""
    (tmp_path / "a.npz").write_bytes(archive(npz_members()))
    (tmp_path / "rows.json").write_text(f'{{"train": {rows}}}')
    source = Npz(source="npz", path=tmp_path / "a.npz", indices=tmp_path / "rows.json")
    task = site_of(source, FLAT).tasks[0].model_copy(update={"labels": "labels"})
    with pytest.raises(DataError, match=r"rows\.json"):
        read(site_of(source, FLAT, (task,)), "train")


def test_a_zipped_volume_is_counted_before_it_is_unpacked(tmp_path: Path):
    """The error names the setting with which a site allows more."""
    nib = pytest.importorskip("nibabel")
    from client.data import nifti
    from tests.fuzz.images import VOLUME

    header = nib.Nifti1Image(np.zeros((64, 64, 64), np.uint8), np.eye(4)).to_bytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(header))
    with pytest.raises(Unusable, match=r"more than 0 MiB .*raise data\.max_mib"):
        nifti.image(tmp_path / "a.nii.gz", VOLUME, "full", 2**19)
    assert nifti.image(tmp_path / "a.nii.gz", VOLUME, "full")[0].shape == (1, 64, 64, 64)


@pytest.mark.parametrize("begins", [1e9, float("nan")])
def test_voxels_that_begin_far_off(tmp_path: Path, begins: float):
    """nibabel reads, and unzips, whatever lies before them."""
    nib = pytest.importorskip("nibabel")
    from client.data import nifti
    from tests.fuzz.images import VOLUME

    data = bytearray(nib.Nifti1Image(np.zeros((16, 16, 16), np.uint8), np.eye(4)).to_bytes())
    struct.pack_into("<f", data, 108, begins)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(bytes(data)))
    with pytest.raises(Unusable, match="its voxels begin at byte"):
        nifti.image(tmp_path / "a.nii.gz", VOLUME, "full")


@pytest.mark.parametrize("length", [2**31 - 1, 0, -9])
def test_an_extension_is_no_longer_than_there_is_room(tmp_path: Path, length: int):
    """nibabel reads, and unzips, as much as it says; a real one is passed over."""
    nib = pytest.importorskip("nibabel")
    from client.data import nifti
    from tests.fuzz.images import VOLUME

    made = nib.Nifti1Image(np.zeros((16, 16, 16), np.uint8), np.eye(4))
    made.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 50))
    data = bytearray(made.to_bytes())
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(bytes(data)))
    assert nifti.image(tmp_path / "a.nii.gz", VOLUME, "full")[0].shape == (1, 16, 16, 16)
    struct.pack_into("<i", data, 352, length)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(bytes(data)))
    with pytest.raises(Unusable, match=f"its extension has {length} bytes"):
        nifti.image(tmp_path / "a.nii.gz", VOLUME, "full")


def test_voxels_from_one_end_of_float32_to_the_other(tmp_path: Path):
    """Their range is no float32: the image still lies in [0, 1]."""
    nib = pytest.importorskip("nibabel")
    from client.data import nifti
    from tests.fuzz.images import VOLUME

    values = np.linspace(-3e38, 3e38, 4096, dtype=np.float64).astype(np.float32).reshape(16, 16, 16)
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii")
    found, _ = nifti.image(tmp_path / "a.nii", VOLUME, "full")
    assert torch.isfinite(found).all()
    assert (float(found.min()), float(found.max())) == (0.0, 1.0)


# Settings


class OneNumber(Frozen):
    """One number."""

    x: float = 1.0


def test_settings_have_limits(tmp_path: Path):
    """Size, depth, repetition, numbers and tags have limits. A repeated key is an error, because
    its meaning is unclear."""
    laughs = "a: &a [x, x]\n" + "".join(
        f"{c}: &{c} [{', '.join([f'*{chr(ord(c) - 1)}'] * 9)}]\n" for c in "bcdefghij"
    )
    for text, reason in (
        (laughs, "repeat each other"),
        ("[" * 30 + "]" * 30, "more than 24 levels"),
        ("[" * 100_000, "more than 24 levels"),
        ("x: 1\nx: 2", "'x' is given twice"),
        ("a: {b: {x: 1, x: 2}}", "'x' is given twice"),
        (f"x: 0x{'f' * 100}", "a number of 102 characters"),
        ("x: &a [*a]", "repeat each other|recursive|levels"),
        ("!!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("x: !!timestamp y", "cannot be read as YAML"),
        ("x: !!bool y", "cannot be read as YAML"),
    ):
        with pytest.raises(ConfigError, match=reason):
            parse_yaml(text)
    (tmp_path / "x.yaml").write_text("#" * (MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="more than 256 KiB"):
        read_yaml(tmp_path / "x.yaml", OneNumber)
    assert parse_yaml("a: &a [1, 2]\nb: *a") == {"a": [1, 2], "b": [1, 2]}


def test_no_setting_is_infinite(tmp_path: Path):
    """`epsilon_budget: .inf` would be training without an end, under a name of privacy."""
    for value in (".inf", ".nan"):
        (tmp_path / "x.yaml").write_text(f"x: {value}")
        with pytest.raises(ConfigError, match="finite"):
            read_yaml(tmp_path / "x.yaml", OneNumber)
    with pytest.raises(ValueError, match="finite"):
        Privacy(epsilon=3, n_public=10, epsilon_budget=float("inf"))


def test_a_header_that_is_too_long_is_not_parsed(tmp_path: Path):
    """Nor is metadata without end."""
    path = tmp_path / "m.safetensors"
    size = MAX_HEADER + 1
    path.write_bytes(struct.pack("<Q", size) + b"{" * size)
    with pytest.raises(ModelFileError, match="and that of a model at most"):
        read_header(path)
    head = json.dumps({"__metadata__": {"medformer": "[" * 100_000}}).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head)
    with pytest.raises(ModelFileError, match="is not that of a model"):
        read_header(path)
    names = tuple(f"w{i}" for i in range(2_000))
    tracemalloc.start()  # an error for each of many words takes a thousand times their memory
    with pytest.raises(ValueError, match="is not a stem"):
        ModelConfig(stems=names * 100, modalities=("a",), anatomies=("a",), domains=("a",))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24
    with pytest.raises(ValueError, match="at most 1024"):
        ModelConfig(stems=("2d-1",), modalities=("a",), anatomies=("a",), domains=names)


# Ledgers


def test_an_index_that_lost_a_row_hides_no_cost(tmp_path: Path):
    """Rows are found by an index: a ledger whose index lacks a reservation would allow another."""
    with Ledger(tmp_path / FILE, PRIVACY) as ledger:
        ledger.reserve("run-1", "{}", "{}", plan())
    with sqlite3.connect(tmp_path / FILE, isolation_level=None) as db:
        db.execute("PRAGMA writable_schema=ON")
        (sql,) = db.execute("SELECT sql FROM sqlite_master WHERE name = 'by_run'").fetchone()
        db.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'by_run'",
                   [f"{sql} WHERE kind != 'reservation'"])  # fmt: skip
    db.close()
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute("REINDEX by_run")
    db.close()
    with sqlite3.connect(tmp_path / FILE, isolation_level=None) as db:
        db.execute("PRAGMA writable_schema=ON")
        db.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'by_run'", [sql])
    db.close()
    with pytest.raises(LedgerError, match="missing from index"):
        Ledger(tmp_path / FILE, PRIVACY)


def test_a_run_id_that_is_no_name_reaches_no_ledger(
    open_guard: Callable[..., Guard], site: Site, schedule: Schedule
):
    """It would become the name of a folder later."""
    for run_id in ("", "../x", "a\n", "r" * 65, "\u202e"):
        answer = open_guard(site).handle(admit(schedule, run_id))
        assert isinstance(answer, Refusal)
        assert answer.code == "bad-request"


# Messages


def answered(**arrays: Array) -> RecordDict:
    content = to_content(TrainAnswer("north", 1, 0, {"a": np.ones((2, 2), "f4")}))
    content["tensors"] = ArrayRecord(arrays)
    return content


def safetensors(header: object, body: bytes = bytes(16), length: int | None = None) -> bytes:
    """Return a safetensors file with the given header, valid or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + body


def test_tensors_are_what_their_bytes_are():
    """Nothing is unpickled, no other type is read, and no more memory is used than bytes came."""
    whole = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}

    def made(body: bytes = bytes(16), **changes: object) -> Array:
        return sent(safetensors({"a": {**whole, **changes}}, body))

    def sent(data: bytes, stype: str = "safetensors") -> Array:
        return Array("uint8", (len(data),), stype, data)

    good = read_answer(answered(safetensors=made()))
    assert isinstance(good, TrainAnswer)
    assert good.tensors["a"].shape == (2, 2)
    two = {"a": whole, "b": whole}
    many = {f"a{i}": {**whole, "shape": [0], "data_offsets": [0, 0]} for i in range(5_000)}
    for bad in (
        made(shape=[1_000_000, 1_000_000]),
        made(shape=[-2, -2]),
        made(shape=[0, 2**63], data_offsets=[0, 0], body=b""),
        made(shape=[1] * 9, data_offsets=[0, 4], body=bytes(4)),
        made(dtype="F64", data_offsets=[0, 32], body=bytes(32)),
        made(dtype="F4", shape=[2, 16]),
        made(body=bytes(15)),
        made(body=bytes(17)),
        sent(safetensors(two)),
        sent(safetensors(many, b"")),
        sent(safetensors(b"{", length=2**63)),
        sent(safetensors(b" " * 2**21)),
        sent(safetensors(b"[" * 10_000)),
        sent(b"\x80\x04N."),
        sent(b""),
        sent(safetensors({"a": whole}), "pickle"),
    ):
        with pytest.raises(ProtocolError, match=r"^tensors"):
            read_answer(answered(safetensors=bad))
    for several in ({}, {"a": made()}, {"safetensors": made(), "a": made()}):
        with pytest.raises(ProtocolError, match="must be one array"):
            read_answer(answered(**several))


def test_values_that_no_field_may_have():
    """Types are those of the contract, numbers have limits, codes are known."""
    for answer, changes in (
        (TrainAnswer("n", 1, 0, {}, 0.5), {"exact_loss": float("nan")}),
        (TrainAnswer("n", 1, 0, {}, 0.5), {"exact_loss": "x"}),
        (TrainAnswer("n", 1, 0, {}), {"round": -1}),
        (TrainAnswer("n", 1, 0, {}), {"attempt": 2**40}),
        (TrainAnswer("n", 1, 0, {}), {"site": "x" * 5_000}),
        (Refusal("policy", "no"), {"code": "whatever"}),
    ):
        content = to_content(answer)
        content["fields"] = ConfigRecord({**content["fields"], **changes})
        with pytest.raises(ProtocolError, match="must be"):
            read_answer(content)
    content = to_content(Refusal("policy", "no"))
    content["more"] = ConfigRecord()
    with pytest.raises(ProtocolError, match="no part 'more'"):
        read_answer(content)


def test_a_receipt_is_one_of_a_plan():
    """A receipt whose epsilon is not finite, or that lacks a field, is refused."""
    text = plan().to_json()
    assert read_receipt(text)["epsilon"] == plan().epsilon
    values = json.loads(text)
    for harm in (
        {"epsilon": float("nan")}, {"epsilon": float("inf")}, {"epsilon": -1.0}, {"unit": "none"},
        {"delta": 2.0}, {"phases": []}, {"progress": [["a", 1.0]]}, {"more": 1}, {"epsilon": "3"},
    ):  # fmt: skip
        with pytest.raises(ProtocolError, match="not that of a privacy plan"):
            read_receipt(json.dumps({**values, **harm}))
    for text in ("", "[]", "[" * 100_000, "{}"):
        with pytest.raises(ProtocolError, match="not that of a privacy plan"):
            read_receipt(text)


def test_a_picture_bomb_is_no_picture(tmp_path: Path):
    """Pixels are counted by the header."""
    from random import Random

    from client.data.pictures.reading import picture
    from tests.fuzz.images import png_bomb

    for seed in range(6):
        (tmp_path / "a.png").write_bytes(png_bomb(Random(seed)))
        with pytest.raises((Unusable, OSError, ValueError)):
            picture(tmp_path / "a.png", 1)
