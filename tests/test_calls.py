"""The commands as functions of Python: they do what the commands do, and print nothing."""

import inspect
import subprocess
import sys

import numpy as np
import pytest
import torch
import xarray
from torch import nn
from typer.testing import CliRunner

import elsewhere
from elsewhere import calls
from elsewhere.cli import app
from elsewhere.errors import ElsewhereError, InputError, UnknownNameError
from elsewhere.stimuli import Canvas, load_objects
from elsewhere.storage import load_result

NET = {"model_arg": {"channels": "4-6", "canvas": 24, "hidden": 12}, "canvas": 24}
SHOWN = {"objects": "novel", "object_size": 8, "categories": 3, "grid": "2x2"}
SMALL = NET | SHOWN
WORDS = [
    *("small-cnn", "--model-arg", "channels=4-6", "--model-arg", "canvas=24"),
    *("--model-arg", "hidden=12", "--canvas", "24", "--objects", "novel", "--object-size", "8"),
    *("--categories", "3", "--grid", "2x2"),
]
FUNCTIONS = [name for name, source in elsewhere._SOURCES.items() if source == "elsewhere.calls"]
FUNCTIONS = [name for name in FUNCTIONS if name in calls._commands()]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tiny():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 22 * 22, 3))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_option_of_a_command_is_an_argument(name):
    help_text = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"}).output
    function = getattr(elsewhere, name)
    taken = list(inspect.signature(function).parameters)
    for parameter in taken[:-1]:
        told = parameter.replace("_", "-")
        assert f"--{told}" in help_text or parameter.upper() in help_text.upper()
        assert f"\n    {parameter}\n" in function.__doc__
    assert taken[-1] == "progress"


def test_a_function_does_what_its_command_does(here, capsys):
    outcome = CliRunner().invoke(app, ["similarity", *WORDS, "--layers", "fc*", "--out", "a.nc"])
    assert outcome.exit_code == 0
    capsys.readouterr()
    result = elsewhere.similarity("small-cnn", layers="fc*", **SMALL)
    assert capsys.readouterr() == ("", "")
    told = load_result("a.nc")
    xarray.testing.assert_identical(
        result.drop_attrs(), told.drop_attrs().assign_attrs(result.drop_attrs().attrs)
    )
    assert {key for key in told.attrs if told.attrs[key] != result.attrs[key]} == {"command"}
    # the command that the result keeps does the same, once it is told where to
    words = result.attrs["command"].split()
    assert words[:3] == ["elsewhere", "similarity", "small-cnn"]
    assert CliRunner().invoke(app, [*calls_words(result), "--out", "b.nc"]).exit_code == 0
    xarray.testing.assert_equal(load_result("b.nc"), result)
    assert {path.name for path in here.iterdir()} == {"a.nc", "b.nc"}  # and nothing is left


def calls_words(result):
    return [word.strip("'") for word in result.attrs["command"].split()[1:]]


def test_recorded_measured_probed(here):
    path = elsewhere.record("small-cnn", "run.h5", layers=["fc*", "logits"], **SMALL)
    assert path.name == "run.h5"
    of_file = elsewhere.similarity("run.h5", out="sim.nc")
    xarray.testing.assert_identical(load_result("sim.nc"), of_file)
    with elsewhere.open(path) as recording:
        of_source = elsewhere.similarity(layers="fc*,logits", source=recording)
        xarray.testing.assert_equal(of_source, of_file)
        assert elsewhere.similarity(recording, layers="log*").layer.values.tolist() == ["logits"]
        probe = {"probe": "ridge", "folds": 1, "controls": []}
        assert elsewhere.probe(recording, **probe).attrs["probe"] == "ridge"
        elsewhere.measure(recording, "measures.nc", names="cosine")
        with pytest.raises(ElsewhereError, match="exists"):
            elsewhere.measure(recording, names="cosine", out="measures.nc")
    assert load_result("measures.nc").attrs["kind"] == "measures"


def test_a_network_in_memory_is_shown_what_is_asked_for_in_words(here):
    shown = {"canvas": 24, **SHOWN, "layers": "depth:1"}
    result = elsewhere.similarity(tiny(), metric="evoked", **shown)
    assert result.attrs["metric"] == "evoked"
    objects = load_objects("novel", size=8, categories=3)
    same = elsewhere.similarity(
        tiny(), metric="evoked", objects=objects, canvas=Canvas(24, 8), grid="2x2", layers="depth:1"
    )
    xarray.testing.assert_equal(result, same)
    path = elsewhere.record(tiny(), "own.h5", **shown)
    with elsewhere.open(path) as recording:
        xarray.testing.assert_allclose(elsewhere.similarity(recording, metric="evoked"), same)
    asked = elsewhere.accuracy(tiny(), **{**shown, "layers": None}, trained_at=[(12, 12)])
    assert asked.attrs["kind"] == "accuracy"
    maps = elsewhere.attribute(
        tiny(), method="saliency", target="logit:0", **{**SHOWN, "canvas": 24}
    )
    assert maps.attrs["method"] == "saliency"


def test_results_and_files_are_compared(here):
    results = [elsewhere.similarity("small-cnn", seed=seed, **SMALL) for seed in (0, 1)]
    for number, result in enumerate(results):
        elsewhere.save_result(result, f"{number}.nc")
    told = elsewhere.compare("0.nc", "1.nc", names="a,b")
    assert told["result"].values.tolist() == ["a", "b"]
    for found in (
        elsewhere.compare(results[0], "1.nc", names="a,b", out="both.nc"),
        elsewhere.compare(results, ["a", "b"]),
    ):
        xarray.testing.assert_equal(found, told)
    assert load_result("both.nc").attrs["kind"] == "comparison"


def test_arrays_are_measured(here):
    arrays = np.random.default_rng(0).normal(size=(4, 1, 3, 9))
    source = elsewhere.ArraySource({"fc": arrays}, y=[5], x=[5, 7, 9])
    assert elsewhere.similarity(source, out="a.nc").attrs["model"] == "arrays"
    places = [[5, 5], [5, 7], [5, 9]]
    assert elsewhere.measure(arrays[:, 0], places, names="cosine").attrs["kind"] == "measures"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: elsewhere.similarity("small-cnn", obejcts="novel"), "nearest: objects"),
        (lambda: elsewhere.similarity("small-cnn", canvas="wide"), "'--canvas'"),
        (lambda: elsewhere.similarity("small-cnn", canvas=object()), "canvas is a object"),
        (lambda: elsewhere.similarity("small-cnn", overwrite="yes"), "expected True or False"),
        (lambda: elsewhere.similarity("small-cnn", "a.nc", out="b.nc"), "out twice"),
        (lambda: elsewhere.similarity("small-cnn", "a.nc", 3), "source, out in this order"),
        (lambda: elsewhere.similarity("nowhere.h5"), "does not exist"),
        (lambda: elsewhere.similarity(), "missing|Missing"),
        (lambda: elsewhere.measure("small-cnn"), "which measures"),
        (lambda: elsewhere.measure(), "which measures"),
        (lambda: elsewhere.attribute(), "missing|asked for nothing"),
        (lambda: elsewhere.train("quick/vanilla"), "--out is missing"),
    ],
)
def test_what_cannot_be_is_one_line(call, said, here):
    with pytest.raises(ElsewhereError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert not list(here.iterdir())


def test_a_source_is_measured_as_it_is():
    source = elsewhere.ArraySource({"fc": np.ones((2, 1, 3, 4))}, y=[5], x=[5, 7, 9])
    with pytest.raises(InputError, match="grid would change nothing"):
        elsewhere.similarity(source, grid="2x2")
    with pytest.raises(UnknownNameError, match="nearest: metric"):
        elsewhere.similarity(source, metrics="cosine")


def test_values_are_written_as_on_a_command_line():
    named = calls.parameters("accuracy")
    given = {"source": "-x", "trained_at": [(1, 2), (3, 4)], "axis": {"scale": (0.5, 1)}}
    given |= {"categories": np.int64(3), "overwrite": True, "skip_broken": False, "gain": None}
    assert calls._words(named, given) == [
        *("--trained-at=1,2;3,4", "--axis=scale=0.5,1", "--categories=3", "--overwrite"),
        *("--", "-x"),
    ]


def test_progress_is_told_shown_or_neither(capsys):
    seen = []
    elsewhere.similarity("small-cnn", progress=lambda *each: seen.append(each), **SMALL)
    done, total = seen[-1]
    assert done == total > 0
    source = elsewhere.ArraySource({"fc": np.ones((2, 1, 3, 4))}, y=[5], x=[5, 7, 9])
    elsewhere.similarity(source, progress=lambda *each: seen.append(each))
    assert seen[-1][0] == seen[-1][1] == 6
    assert capsys.readouterr() == ("", "")
    elsewhere.similarity(source, progress=True)
    assert "comparing" in capsys.readouterr().err


def test_only_what_is_used_is_imported():
    code = (
        "import sys, elsewhere; before = set(sys.modules); elsewhere.similarity; "
        "print(*sorted({'numpy', 'typer', 'xarray', 'torch', 'h5py'} & before)); "
        "print(*sorted({'numpy', 'xarray', 'torch', 'h5py', 'matplotlib'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split("\n")[:2] == ["", ""]


def test_a_part_does_not_take_the_place_of_the_function_of_its_name():
    code = "import elsewhere.report, elsewhere; from elsewhere.report import catalogue\n"
    code += "from elsewhere import report; print(report is elsewhere.report, report.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True report\n"
