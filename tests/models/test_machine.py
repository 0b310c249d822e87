"""What numerics say of a machine: of a CUDA device its kind; of a CPU what they always said."""

import pytest
import torch

from elsewhere.models.machine import describe_machine, describe_precision
from elsewhere.recording.engines import numerics

CPU = {"device", "threads", "cpu_capability", "processor", "blas", "torch"}


@pytest.fixture
def cards(monkeypatch):
    """Let torch know two cards of different kinds, on any machine."""
    names = {0: ("NVIDIA H100 80GB HBM3", (9, 0)), 1: ("NVIDIA A100-SXM4-40GB", (8, 0))}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: names[device.index][0])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: names[device.index][1])


def test_a_card_is_named(cards):
    here, there = (describe_machine(torch.device("cuda", number)) for number in (0, 1))
    assert here["card"] == "NVIDIA H100 80GB HBM3"
    assert here["capability"] == "9.0"
    assert {key for key in here if here[key] != there[key]} == {"card", "capability"}
    assert {*here} == CPU | {"card", "capability", "cuda", "cudnn"}


@pytest.mark.parametrize(("precision", "tf32"), [("float32", False), ("tf32", True)])
def test_whether_tf32_is_let_in_is_said(precision, tf32):
    found = describe_precision(torch.device("cuda"), precision)
    assert found == {"precision": precision, "tf32": tf32}


def test_a_cpu_says_what_it_always_said(model):
    assert {*numerics("dense", model, 8)} == CPU | {"engine", "precision", "batch_rows"}
