"""``--tokens``: what is taken of a transformer's layers, and what cannot be."""

import pytest

from elsewhere.storage import load_result

TRAINED = """
[network]
name = "vit-slim"
arguments = { layers = 1, width = 16 }
[canvas]
size = 48
object_size = 16
[[phase]]
name = "learn"
objects = "novel"
categories = 3
exemplars = { train = 1, held_out = 0 }
environment = "centre"
steps = 2
batch = 4
checkpoints = []
new_head = true
"""
NET = ("--model-arg", "layers=1", "--model-arg", "width=16", "--model-arg", "num_classes=3")
SHOWN = ("--objects", "novel", "--categories", "2", "--grid", "at:16,16;16,24", "--object-size", 16)
VIT = ("vit-slim", *NET, *SHOWN, "--layers", "encoder.ln,logits")


def test_layers_say_where_their_tokens_stand(run):
    assert "class, 8 x 8" in run("layers", "vit-slim").out
    rows = {row["name"]: row for row in run("layers", "vit-slim", "--json").json}
    assert rows["encoder.ln"]["tokens"]["first"] == 1
    assert rows["encoder.ln"]["stride"] == 8
    assert rows["conv_proj"]["tokens"] is None
    assert "tokens" not in run("layers", "small-cnn").out.split("\n")[0]


def test_a_part_is_recorded_and_named(run, refuse):
    made = run("similarity", *VIT, "--tokens", "class", "--out", "s.nc")
    assert "encoder.ln (class)" in made.out
    run("record", *VIT, "--tokens", "grid", "--out", "r.h5")
    says = "--tokens would change nothing"
    refuse("similarity", "r.h5", "--tokens", "class", "--out", "x.nc", says=says)
    refuse("record", *VIT, "--out", "r.h5", says="tokens")  # another recording is there


@pytest.mark.parametrize(
    ("model", "part", "said"),
    [
        (VIT, "head", "unknown part of the tokens 'head'"),
        (VIT, "registers", "65 tokens without registers; take --tokens all or grid or class"),
        (("small-cnn", *SHOWN), "grid", "none of the layers gives tokens, so that --tokens grid"),
    ],
)
def test_what_cannot_be_is_one_line(model, part, said, refuse, here):
    refuse("record", *model, "--tokens", part, "--out", "r.h5", says=said)
    assert not (here / "r.h5").exists()


def test_a_track_takes_a_part_and_another_part_is_another_result(run, refuse, here):
    (here / "c.toml").write_text(TRAINED)
    run("train", "c.toml", "--out", "run")
    asked = ("track", "run", "--layers", "encoder.ln,logits", "--grid", "2x2", "--per-category", 0)
    refuse(*asked, "--tokens", "head", "--out", "x.nc", says="unknown part of the tokens 'head'")
    refuse(*asked, "--tokens", "registers", "--out", "x.nc", says="tokens without registers")
    assert not (here / "x.nc").exists()
    found = {}
    for part in ("all", "class", "grid"):
        run(*asked, "--tokens", part, "--out", f"{part}.nc")
        found[part] = load_result(here / f"{part}.nc")
    assert [str(each["kept"].values[0]) for each in found.values()] == ["full", "class", "grid"]
    shown = [float(each["cosine_away"][-1, 0]) for each in found.values()]
    assert len({round(value, 6) for value in shown}) == 3
    logits = [float(each["cosine_away"][-1, 1]) for each in found.values()]
    assert len({*logits}) == 1
    files = len(list((here / "run" / "track").iterdir()))
    run(*asked, "--tokens", "class", "--out", "again.nc")
    assert len(list((here / "run" / "track").iterdir())) == files
    said = run("compare", "class.nc", "grid.nc", "--out", "both.nc")
    assert "other ones were taken: class in class, grid in grid" in said.err
    assert load_result(here / "both.nc")["layer"].values[0].tolist()[0] == "encoder.ln (class)"
