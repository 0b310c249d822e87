"""What the child processes of tests compute: networks that count their images, and a curriculum."""

from collections import Counter
from pathlib import Path

NETWORKS = """
import os
import torch
from torch import nn

class Counting(nn.Module):
    '''Notes which process sees how many images that are not the empty canvas.'''
    def forward(self, values):
        shown = (values.amax((1, 2, 3)) != values.amin((1, 2, 3))).sum().item()
        if isinstance(shown, int):  # it is none while the network is traced
            stage = os.environ.get({stage!r}, {outside!r})
            with open({log!r}, "a") as file:
                file.write(f"{{os.getpid()}} {{shown}} {{stage}}\\n")
        return values

def build(num_classes=6, canvas=24):
    torch.manual_seed(0)
    side = (canvas - 5) // 2 + 1
    network = nn.Sequential(Counting(), nn.Conv2d(3, 4, 5, stride=2), nn.ReLU(), nn.Flatten(),
                            nn.Linear(4 * side * side, num_classes))
    network.canvas_size = canvas
    return network

def deep(num_classes=6, canvas=24):
    torch.manual_seed(0)
    side = (canvas - 4) // 2
    network = nn.Sequential(Counting(), nn.Conv2d(3, 4, 5), nn.ReLU(), nn.MaxPool2d(2),
                            nn.Flatten(), nn.Linear(4 * side * side, 12), nn.ReLU(),
                            nn.Dropout(0.1), nn.Linear(12, num_classes))
    network.canvas_size = canvas
    return network

def windowed():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 5, stride=2), nn.ReLU(), nn.Conv2d(4, 4, 3))
    network.canvas_size = 24
    return network
"""

OWN_LOOK = 23
"""Images by which a process sees what its network does: those of `elsewhere.models.conduct.observe`
that are not the empty canvas."""

CURRICULUM = """
name = "tiny"
[network]
name = "{network}"
arguments = {arguments}
gain = 4.0
[canvas]
size = 16
object_size = 7
[[phase]]
name = "learn"
objects = "glyphs"
categories = 3
exemplars = {{train = 4, held_out = 2}}
environment = "one"
steps = {steps}
batch = 4
checkpoints = {checkpoints}
"""
SMALL = ("small-cnn", '{channels = "4-8", hidden = 12}')
COUNTED = ("tiny_networks:build", "{canvas = 16}")
DEEP = ("tiny_networks:deep", "{canvas = 20}")
STAGE, OUTSIDE = "TINY_STAGE", "-"
"""The variable of the environment that names what a process computes, and its value elsewhere."""


def write_networks(folder: Path) -> Path:
    """Write the module ``tiny_networks``; return the log of the images that `build` is shown."""
    log = folder.resolve() / "work.log"
    (folder / "tiny_networks.py").write_text(
        NETWORKS.format(log=str(log), stage=STAGE, outside=OUTSIDE)
    )
    return log


def images_by_process(log: Path) -> Counter[int]:
    """Return how many images each process computed since the last call."""
    found: Counter[int] = Counter()
    for process, count, *_ in _lines(log):
        found[int(process)] += int(count)
    log.unlink(missing_ok=True)
    return found


def images_by_stage(log: Path) -> Counter[str]:
    """Return for what the images were computed, by the environment's `STAGE`; keep the log."""
    found: Counter[str] = Counter()
    for _, count, *stage in _lines(log):
        found[" ".join(stage)] += int(count)
    return found


def _lines(log: Path) -> list[list[str]]:
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


def curriculum(network=SMALL, *, steps: int = 40, checkpoints="[0, 20, 40]") -> str:
    """Return the TOML of a curriculum that takes a second."""
    name, arguments = network
    return CURRICULUM.format(
        network=name, arguments=arguments, steps=steps, checkpoints=checkpoints
    )
