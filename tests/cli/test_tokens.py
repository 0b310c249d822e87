"""``--tokens``: what is taken of a transformer's layers, and what cannot be."""

import pytest

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
