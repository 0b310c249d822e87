"""Texts that come from files: shown, not obeyed, by terminals and spreadsheets."""

import csv
import io
import json
import logging
import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
import xarray
from PIL import Image

import elsewhere
from elsewhere.storage import load_result, save_result, save_table
from elsewhere.terminal import VisibleFormatter, print_json, say, visible

ODD = "a\x1b[2J\nerror: b\r\x07\u202ec\u2028d\x9b1me"
SHOWN = r"a\x1b[2J\nerror: b\r\x07\u202ec\u2028d\x9b1me"


def test_text_becomes_one_visible_line(capsys):
    assert visible(ODD) == SHOWN
    assert visible("café 平仮名 naïve, 1 × 2") == "café 平仮名 naïve, 1 × 2"
    assert visible("caf\udce9") == r"caf\udce9"
    print_json({ODD: [ODD, "é"]})
    out = capsys.readouterr().out
    assert json.loads(out) == {ODD: [ODD, "é"]}
    assert out.replace("\n", "").isprintable()
    record = logging.LogRecord("n", logging.WARNING, "f", 1, "left out %s", (ODD,), None)
    assert VisibleFormatter("%(message)s").format(record) == f"left out {SHOWN}"


def test_what_has_millions_of_characters_is_cut(capsys):
    say(f"error: unknown category {'x' * 10**6}; name another one")
    found = capsys.readouterr().err
    assert len(found) < 9000
    assert found.startswith("error: unknown category xxx")
    assert found.endswith("xxx; name another one\n")


def test_only_the_terminal_module_prints():
    package = Path(elsewhere.__file__).parent
    printing = [
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(r"(typer|click)\.(echo|secho)\(|^\s*print\(", path.read_text(), re.M)
    ]
    assert printing == ["terminal.py"]


def picture(path, color):
    values = np.zeros((9, 9, 4), np.uint8)
    values[2:7, 2:7] = (*color, 255)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, format="PNG")


@pytest.mark.parametrize("name", [ODD.replace("/", ""), "caf\udce9", "=1+1"])
def test_a_category_of_any_name_goes_through_every_command(run, here, name):
    for number, folder in enumerate((name, "plain")):
        for exemplar in range(2):
            color = (50 * number + 60, 90, 250 - 60 * exemplar)
            picture(here / "set" / folder / f"{exemplar}.png", color)
    sweep = ("small-cnn", "--objects", "folder:set", "--per-category", 2, "--grid", "2x2")
    for command in (
        ("objects", "folder:set"),
        ("record", *sweep, "--out", "r.h5"),
        ("inspect", "r.h5"),
        ("inspect", "r.h5", "--json"),
        ("verify", "r.h5"),
        ("methods", "r.h5"),
        ("similarity", "r.h5", "--out", "s.nc"),
        ("probe", "r.h5", "--controls", "none", "--out", "p.nc"),
        ("table", "s.nc", "--out", "s.csv"),
    ):
        told = run(*command)
        for text in (told.out, told.err):
            assert text.replace("\n", "").isprintable(), command
    rows = list(csv.DictReader(io.StringIO((here / "s.csv").read_text(encoding="utf-8"))))
    cells = {cell for row in rows for cell in row.values() if cell}
    assert not any(cell.startswith(("=", "@", "\t", "\r")) for cell in cells)


def test_formulas_are_quoted_and_numbers_are_not(tmp_path):
    texts = ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "＝1+1"]
    texts += ["-5", "+1e3", "plain", "a=b", ""]
    result = xarray.Dataset(
        {"value": ("object", -np.arange(12.0))}, {"object": texts}, {"kind": "similarity"}
    )
    path = save_table(load_result(save_result(result, tmp_path / "r.nc")), tmp_path / "r.csv")
    found = pandas.read_csv(path, keep_default_na=False)
    assert found["object"].tolist()[7:] == texts[7:]
    assert found["object"].tolist()[:7] == [f"'{text}" for text in texts[:7]]
    assert found["value"].tolist() == (-np.arange(12.0)).tolist()
    assert found["value"].dtype == np.float64


def test_a_small_file_of_weights_that_unpacks_to_gigabytes(run, refuse, here):
    torch.save({"w": torch.zeros(2)}, here / "plain.pth")
    for name, method in (("bomb.pth", zipfile.ZIP_DEFLATED), ("small.pth", zipfile.ZIP_DEFLATED)):
        with (
            zipfile.ZipFile(here / "plain.pth") as plain,
            zipfile.ZipFile(here / name, "w", method, compresslevel=1) as archive,
        ):
            for entry in plain.infolist():
                archive.writestr(entry.filename, plain.read(entry))
            if name == "bomb.pth":
                with archive.open("plain/data/1", "w", force_zip64=True) as file:
                    for _ in range(2**9):
                        file.write(bytes(2**20))
    refuse("layers", "small-cnn", "--weights", "bomb.pth", says=("compressed", "512.0 MiB"))
    refuse("layers", "small-cnn", "--weights", "small.pth", says="does not fit the network")


def test_pictures_beyond_the_limit(run, refuse, here):
    picture(here / "set" / "a" / "1.png", (255, 0, 0))
    picture(here / "set" / "b" / "1.png", (0, 255, 0))
    for side, name in ((8200, "a"), (14_000, "b")):  # beyond ours; beyond PIL's own
        Image.new("1", (side, side)).save(here / "set" / name / "0.png")
    call = ("objects", "folder:set")
    refuse(*call, says=("a/0.png", "8200 x 8200", "67108864 px", "--skip-broken"))
    told = run(*call, "--skip-broken")
    assert "2 objects" in told.out


def test_names_that_no_file_can_have(run, refuse, made, here):
    long, deep = "n" * 300, "/".join(["d" * 200] * 30)
    os.symlink("loop", here / "loop")
    for name in (long, deep, "loop"):
        for command in (
            ("inspect", f"{name}.h5" if name != "loop" else name),
            ("verify", name),
            ("figure", name, "--out", "f.svg"),
            ("table", name, "--out", "t.csv"),
            ("layers", "small-cnn", "--weights", f"{name}.pth"),
            ("layers", f"{name}.safetensors"),
            ("similarity", f"{name}.h5", "--out", "s.nc"),
            ("train", f"{name}.toml", "--out", "run"),
            ("track", name, "--out", "t.nc"),
            ("objects", f"folder:{name}"),
            ("accuracy", f"{name}.safetensors", "--out", "a.nc"),
        ):
            refuse(*command, says="error", late=True)
    sweep = ("small-cnn", "--objects", "novel", "--categories", "2", "--grid", "2x2")
    for name in (long, "n" * 250, deep):
        refuse("record", *sweep, "--out", f"{name}.h5", says="name")
        refuse("similarity", made[0], "--out", f"{name}.nc", says="name")
    run("similarity", made[0], "--out", "n" * 200 + ".nc")
