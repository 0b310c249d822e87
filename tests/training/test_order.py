"""Networks are trained in the faster order of memory, but where that damages memory."""

import json
import os
import subprocess
import sys

import pytest
import torch

from elsewhere.models import load_model
from elsewhere.models.forward import harmed_by_channels_last, trains_channels_last

CPU = torch.device("cpu")
TRAINED = """
import json, sys
from elsewhere.training import Curriculum, train
train(Curriculum.from_dict(json.loads(sys.argv[1])), sys.argv[2], device="cpu")
"""


@pytest.mark.parametrize(
    ("name", "width", "harmed"),
    [
        ("resnet18-slim", 8, "layer2.0.downsample.0"),
        ("resnet18-slim", 12, "layer2.0.downsample.0"),
        ("resnet18-slim", 16, ""),
        ("vgg11-slim", None, ""),
    ],
)
def test_narrow_strided_convolutions_are_trained_channels_first(name, width, harmed):
    arguments = {} if width is None else {"width": width}
    network = load_model(name, model_args={"canvas": 48, **arguments}).module
    assert harmed_by_channels_last(network) == harmed
    assert trains_channels_last(network, CPU, "float32") is not bool(harmed)
    assert not trains_channels_last(network, torch.device("cuda"), "float32")
    assert trains_channels_last(network, torch.device("cuda"), "bfloat16")


def test_a_narrow_residual_network_is_trained(tmp_path):
    """In a process of its own: where it goes wrong, the process ends with a signal."""
    asked = {
        "name": "narrow",
        "network": {"name": "resnet18-slim", "arguments": {"width": 8}},
        "canvas": {"size": 48, "object_size": 11},
        "phase": [
            {
                "name": "learn", "objects": "glyphs", "categories": 4, "steps": 2, "batch": 32,
                "environment": "centre",
            }
        ],
    }  # fmt: skip
    arguments = [sys.executable, "-c", TRAINED, json.dumps(asked), str(tmp_path / "run")]
    environment = dict(os.environ, OMP_NUM_THREADS="1", MALLOC_CHECK_="3")
    child = subprocess.run(arguments, env=environment, check=False, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr[-2000:]
