"""What a command imports: counted by modules, since seconds tell of the machine."""

import json
import subprocess
import sys

import pytest

CHILD = """
import contextlib, io, json, sys
from elsewhere.cli import app

for arguments in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            app(arguments)
        except SystemExit as end:
            code = end.code
    print(json.dumps([code, sorted(sys.modules)]))
"""
NET = "small-cnn --model-arg channels=4-6 --model-arg canvas=24 --model-arg hidden=12"
SMALL = f"{NET} --canvas 24 --object-size 8 --objects novel --categories 3 --grid 2x2 --engine auto"
TORCH = ("torch", "torchvision", "pandas", "xarray", "h5py", "matplotlib", "sklearn", "captum")
COMPILER = ("torch._dynamo", "torch._inductor", "torch.onnx", "sympy", "triton")
VISION = ("torchvision", "torchvision.ops", "torchvision.models", "torchvision.models.detection")
OTHERS = ("sklearn", "scipy.stats", "captum", "matplotlib", "dask", "distributed", "joblib")
LOADED = {  # in this order in one process: later ones import more
    "--help": TORCH,
    "plan --help": TORCH,
    "reproduce --help": TORCH,
    "objects": TORCH,
    "objects novel": TORCH,
    "layers vgg16": TORCH,
    "train --show quick/vanilla": TORCH,
    f"plan {SMALL}": (*COMPILER, *VISION, *OTHERS),
    f"record {SMALL} --out run.h5": (*COMPILER, *VISION, *OTHERS),
}
"""Commands, and what is not imported after them."""


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """The exit status of each command, and the modules that are there after it."""
    found = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=json.dumps([line.split() for line in LOADED]),
        cwd=tmp_path_factory.mktemp("start"),
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(zip(LOADED, map(json.loads, found.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("line", LOADED)
def test_a_command_imports_only_what_it_needs(line, imported):
    code, modules = imported[line]
    assert code == 0
    assert not set(LOADED[line]) & set(modules)
