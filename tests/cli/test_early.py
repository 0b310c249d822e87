"""Names that nobody knows are refused at once: torch is not imported for it."""

import json
import subprocess
import sys
from typing import get_args

import pytest
import torch
import torchvision

from elsewhere.analyzer.attribution import methods
from elsewhere.models import list_layers, load_model, model_registry, zoo_table
from elsewhere.models.aliases import aliases
from elsewhere.models.names import torchvision_names, zoo_layers
from elsewhere.types import AttributionMethod

CHILD = """
import json, sys
from contextlib import redirect_stderr
from io import StringIO
from elsewhere.cli import app

for arguments in json.load(sys.stdin):
    said = StringIO()
    try:
        with redirect_stderr(said):
            app(arguments)
    except SystemExit as end:
        print(json.dumps([end.code, said.getvalue(), "torch" in sys.modules]))
"""
OUT = "--out x.nc"
REFUSED = {
    "record vgg17 --out x.h5": "unknown model 'vgg17'; nearest: vgg19, vgg16, vgg13",
    "plan resnet19": "nearest: resnet18, resnet152, resnet101",
    "layers swin_tt": "nearest: swin_t",
    f"similarity vgg17 {OUT}": "unknown model 'vgg17'",
    f"measure vgg17 --names cka {OUT}": "unknown model 'vgg17'",
    f"probe vgg17 {OUT}": "unknown model 'vgg17'",
    f"attribute vgg17 {OUT}": "unknown model 'vgg17'",
    f"sanity vgg17 {OUT}": "unknown model 'vgg17'",
    f"accuracy vgg17 {OUT}": "unknown model 'vgg17'",
    f"accuracy vgg16 --objects glyps {OUT}": "nearest: glyphs",
    "record gone.safetensors --out x.h5": "unknown model 'gone.safetensors'",
    "record vgg16 --objects glyps --out x.h5": "unknown object set 'glyps'; nearest: glyphs",
    f"measure vgg16 --objects nowhere:x --names cka {OUT}": "unknown object set 'nowhere'",
    f"attribute vgg16 --objects novle {OUT}": "nearest: novel",
    "layers vgg16 --layers fc8": "unknown layer 'fc8'; nearest: fc7, fc6; `elsewhere layers",
    "record resnet50 --layers layer5.0 --out x.h5": "nearest: layer4.0",
    "plan densenet121 --layers logits,features.denseblok*": "'features.denseblok*'",
    f"similarity vgg11_bn --layers relu9_1:1 {OUT}": "unknown layer 'relu9_1:1'",
    "record small-cnn --similarity-layers pool9 --similarity s.nc --out x.h5": "'pool9'",
    "record vgg16 --engine fast --out x.h5": "unknown engine 'fast'; nearest: auto; known: auto",
    f"probe vgg16 --engine fast {OUT}": "unknown engine 'fast'",
    f"sanity vgg16 --engine fast {OUT}": "unknown engine 'fast'",
    "track run --metric cosin --out x.nc": "unknown metric 'cosin'; nearest: cosine",
    f"similarity vgg16 --metric cosin {OUT}": "unknown metric 'cosin'; nearest: cosine",
    f"similarity vgg16 --protocol mine {OUT}": "unknown protocol 'mine'",
    f"measure vgg16 --names cosin {OUT}": "unknown measure 'cosin'; nearest: cosine",
    f"track run --measures identificaton {OUT}": "nearest: identification",
    f"probe vgg16 --probe logistics {OUT}": "unknown probe 'logistics'; nearest: logistic",
    f"probe vgg16 --controls pixel {OUT}": "unknown control 'pixel'; nearest: pixels",
    f"attribute vgg16 --method salience {OUT}": "unknown attribution method 'salience'; nearest",
    f"sanity vgg16 --method grad-cma {OUT}": "nearest: grad-cam",
    "train quick/fulll --out run": "unknown curriculum 'quick/fulll'; nearest: quick/full",
    "reproduce --scale laptip --out run": "unknown scale 'laptip'; nearest: laptop",
    "reproduce --scale laptip --plan": "unknown scale 'laptip'; nearest: laptop",
    f"similarity vgg16 --max-memory much {OUT}": "cannot read 'much' as a size",
    f"measure vgg16 --names cka --workers 0 {OUT}": "--workers must be at least 1; got 0",
    f"similarity vgg16 --engine dens {OUT}": "unknown engine 'dens'; nearest: dense",
    f"probe vgg16 --scheduler tcp://a:1 --workers 2 {OUT}": "--scheduler is a cluster; give one",
    f"similarity gone.h5 {OUT}": "gone.h5 does not exist; expected a recording",
    f"probe gone.h5 {OUT}": "gone.h5 does not exist; expected a recording",
}


@pytest.fixture(scope="module")
def refusals(tmp_path_factory):
    """What a process says to each of these commands, and whether torch was there after it."""
    found = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=json.dumps([line.split() for line in REFUSED]),
        cwd=(here := tmp_path_factory.mktemp("early")),
        capture_output=True,
        text=True,
        check=True,
    )
    assert list(here.iterdir()) == []
    return dict(zip(REFUSED, map(json.loads, found.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("line", REFUSED)
def test_a_name_that_nobody_knows_is_refused_without_torch(line, refusals):
    code, said, torch_is_there = refusals[line]
    assert code == 1
    assert said.startswith("error: "), said
    assert said.count("\n") == 1, said
    assert REFUSED[line] in said
    assert not torch_is_there


def test_the_names_of_torchvision_are_read_from_its_source():
    listed = torchvision.models.list_models(module=torchvision.models)
    assert sorted(torchvision_names()) == sorted(listed)


@pytest.mark.parametrize("name", model_registry)
def test_the_names_of_layers_are_those_of_the_network(name):
    plain = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    with torch.device("meta"):
        network = model_registry.get(name)(**plain)
    modules = [module for module, _ in network.named_modules() if module]
    assert set(zoo_layers()[name]) == {*aliases(network), *modules, "logits"}


@pytest.mark.parametrize("name", ["small-cnn", "vgg16-slim", "resnet18", "alexnet"])
def test_the_table_of_layers_is_what_a_pass_of_the_network_finds(name):
    compare_with_table(name)


@pytest.mark.long
@pytest.mark.parametrize("name", model_registry)
def test_the_table_of_layers_is_what_passes_of_all_networks_find(name):
    compare_with_table(name)


def compare_with_table(name):
    loaded = load_model(name)
    assert loaded.doubts == ()  # the table prints none
    parts = (
        "name",
        "module",
        "kind",
        "shape",
        "layout",
        "tokens",
        "stride",
        "receptive_field",
        "bytes",
        "beside",
    )
    found, listed = list_layers(loaded, containers=True), zoo_table(name)
    assert [[getattr(layer, part) for part in (*parts, "repeats")] for layer in listed] == [
        [getattr(layer, part) for part in (*parts, "repeats")] for layer in found
    ]


def test_what_is_not_as_it_stands_is_asked_of_the_network(run):
    as_it_stands = run("layers", "small-cnn", "--json").json
    assert run("layers", "small-cnn", "--json", "--seed", "1").json == as_it_stands
    other = run("layers", "small-cnn", "--json", "--canvas", "96").json
    assert (as_it_stands[0]["shape"], other[0]["shape"]) == ([8, 48, 48], [8, 96, 96])
    args = ["--model-arg", "channels=4-8", "--model-arg", "canvas=16"]
    assert run("layers", "small-cnn", "--json", *args).json[0]["shape"] == [4, 16, 16]
    assert len(run("layers", "small-cnn", "--json", "--layers", "conv*").json) == 4


@pytest.mark.parametrize("canvas", [(), ("--canvas", "32")])  # from the table, and from a pass
def test_layers_beside_the_main_branch_say_so(run, canvas):
    listed = run("layers", "resnet18-slim", *canvas, "--json").json
    assert {row["name"] for row in listed if row["beside"]} == {
        f"layer{number}.0.downsample{part}" for number in (2, 3, 4) for part in ("", ".0", ".1")
    }
    heads, *lines = run("layers", "resnet18-slim", *canvas).out.splitlines()[: len(listed) + 1]
    at = heads.index("branch")
    assert [line[at:].split()[0] for line in lines] == [
        "beside" if row["beside"] else "main" for row in listed
    ]
    assert "branch" not in run("layers", "small-cnn", *canvas).out


def test_the_names_of_methods_are_those_of_the_registry():
    assert get_args(AttributionMethod) == tuple(methods)
