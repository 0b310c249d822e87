"""Which state of a file is the network's: averages, prefixes, ties, types."""

import json
import subprocess
import sys

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from elsewhere.errors import InputError, WeightsError
from elsewhere.models import load_model
from elsewhere.models.state_files import choose_state


class Small(nn.Module):
    """A few layers, one of them with running statistics."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 5)

    def forward(self, x):
        return self.fc(self.norm(self.conv(x)).mean((2, 3)))


class Wrapped(nn.Module):
    """A child that is called as parallel networks call theirs."""

    def __init__(self):
        super().__init__()
        self.module = Small()

    def forward(self, x):
        return self.module(x)


class Tied(nn.Module):
    """An encoder and a decoder that share their weight."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.one, self.two = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.two(self.one(self.conv(x).mean((2, 3))))


def small():
    return Small()


def wrapped():
    return Wrapped()


def tied():
    return Tied()


@pytest.fixture(autouse=True)
def _importable(monkeypatch, request):
    monkeypatch.syspath_prepend(str(request.path.parent))


def state_of(seed, factory=Small):
    torch.manual_seed(seed)
    network = factory()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
    return network.state_dict()


def load(tmp_path, content, factory="small", name="w.pth", **options):
    path = tmp_path / name
    if name.endswith("safetensors"):
        safetensors.torch.save_file(content, path)
    else:
        torch.save(content, path)
    module = __name__.rpartition(".")[2]
    return load_model(f"{module}:{factory}", weights=str(path), **options)


def holds(model, state):
    own = model.module.state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[k], state[k]) for k in own)


def prefixed(state, prefix):
    return {prefix + key: value for key, value in state.items()}


RAW, OTHER = state_of(1), state_of(2)
AMBIGUOUS = {
    "timm": ({"state_dict": RAW, "state_dict_ema": OTHER}, "state_dict_ema", "state_dict"),
    "model and average": ({"model": RAW, "model_ema": OTHER, "epoch": 3}, "model_ema", "model"),
    "parallel average": (
        {"model": RAW, "ema": prefixed(OTHER, "module.")},
        "ema",
        "model",
    ),
    "average of parameters only": (
        {"model": RAW, "ema": {k: v for k, v in OTHER.items() if "running" not in k}},
        None,
        "model",
    ),
    "moco": (
        {
            "state_dict": prefixed(OTHER, "module.encoder_q.")
            | prefixed(RAW, "module.encoder_k.")
            | {"module.queue": torch.zeros(8, 4)}
        },
        "state_dict.module.encoder_q",
        "state_dict.module.encoder_k",
    ),
    "lightning with an average": (
        {"state_dict": prefixed(RAW, "model.") | prefixed(OTHER, "ema.module.")},
        "state_dict.ema",
        "state_dict.model",
    ),
    "teacher and student": ({"teacher": OTHER, "student": RAW}, "teacher", "student"),
    "one mapping": (RAW | prefixed(OTHER, "ema."), "ema", "."),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_several_states_that_fit_are_named(name, tmp_path):
    content, other, raw = AMBIGUOUS[name]
    with pytest.raises(WeightsError, match=r"w.pth holds 2 states that fit.*--state-key") as caught:
        load(tmp_path, content)
    assert raw in str(caught.value)
    assert holds(load(tmp_path, content, state_key=raw), RAW)
    if other is not None:
        found = load(tmp_path, content, state_key=other)
        assert holds(found, OTHER)
        assert any("w.pth" in note and "was taken" in note for note in found.notes)
    with pytest.raises(WeightsError, match=f"no state 'nothing'.*{raw}"):
        load(tmp_path, content, state_key="nothing")


def averaged():
    network = Small()
    network.load_state_dict(RAW)
    return AveragedModel(network).state_dict()


ONE = {
    "plain": (RAW, None),
    "lightning": (
        {
            "epoch": 1,
            "state_dict": prefixed(RAW, "model.") | {"loss.weight": torch.ones(3)},
            "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(4)}}}],
        },
        "1 other key ",
    ),
    "average": (averaged(), "1 other key "),
    "compiled and parallel": (prefixed(RAW, "module._orig_mod."), None),
    "optimiser beside": (
        {"model_state_dict": RAW, "optimizer": {"state": {0: {"exp_avg": torch.zeros(4)}}}},
        None,
    ),
    "twice the same": ({"model": RAW, "best": dict(RAW)}, None),
    "encoder and projector": (
        {"state_dict": prefixed(RAW, "encoder.") | {"projector.0.weight": torch.ones(3, 3)}},
        "state_dict.encoder",
    ),
}

BACK = {key: value for key, value in RAW.items() if not key.startswith("fc.")}
HEAD = {key: value for key, value in RAW.items() if key.startswith("fc.")}
ONE |= {
    "mmcv": (
        {
            "meta": {"epoch": 100, "CLASSES": ["a", "b"]},
            "state_dict": prefixed(BACK, "backbone.")
            | prefixed(HEAD, "head.")
            | {"neck.scale": torch.ones(1)},
        },
        "the prefix 'backbone.' of its names was taken off, and 'head.' of fc.weight, fc.bias; 1 "
        "other key of that state was left out (neck.scale)",
    ),
    "ours, parallel, in lightning": (
        {"state_dict": prefixed(RAW, "model.module.")},
        "model.module",
    ),
    "lightning, compiled": ({"state_dict": prefixed(RAW, "model._orig_mod.")}, "'model.'"),
}


@pytest.mark.parametrize("name", ONE)
def test_the_state_that_fits_is_found_and_said(name, tmp_path):
    content, said = ONE[name]
    model = load(tmp_path, content)
    assert holds(model, RAW)
    assert model.random_keys == ()
    taken = [note for note in model.notes if "was taken" in note]
    assert len(taken) == (said is not None)
    assert said is None or said in taken[0]


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_a_prefix_is_kept_where_the_network_has_it(prefix, tmp_path):
    state = state_of(3, Wrapped)
    assert all(key.startswith("module.") for key in state)
    assert holds(load(tmp_path, prefixed(state, prefix), "wrapped"), state)


@pytest.mark.parametrize("kept", ["one", "two"])
def test_tied_tensors_that_a_file_leaves_out_are_there(kept, tmp_path):
    state = state_of(4, Tied)
    left = "two" if kept == "one" else "one"
    shorter = {k: v.clone() for k, v in state.items() if k != f"{left}.weight"}
    model = load(tmp_path, shorter, "tied", "w.safetensors")
    assert holds(model, state)
    assert model.random_keys == ()
    assert model.module.one.weight is model.module.two.weight
    with pytest.raises(WeightsError, match=r"one in the network: one.weight and two.weight"):
        load(tmp_path, state | {"two.weight": torch.ones(4, 4)}, "tied")
    del shorter[f"{kept}.weight"]
    with pytest.raises(WeightsError, match="2 missing: one.weight, two.weight"):
        load(tmp_path, shorter, "tied")


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.complex64, torch.bool, torch.int64, torch.float8_e4m3fn]
)
def test_other_kinds_of_numbers_are_refused(dtype, tmp_path):
    state = RAW | {"fc.weight": torch.ones(5, 4).to(dtype)}
    said = str(dtype).removeprefix("torch.")
    with pytest.raises(WeightsError, match=f"of another type: fc.weight {said} instead of float32"):
        load(tmp_path, state)
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        load(tmp_path, RAW | {"fc.weight": torch.ones(5, 4).to(kind)})


@pytest.mark.filterwarnings("ignore:.*quantized tensor creation")
def test_quantised_tensors_are_refused(tmp_path):
    packed = torch.quantize_per_tensor(RAW["fc.weight"], 0.1, 0, torch.qint8)
    with pytest.raises(WeightsError, match="of another type: fc.weight qint8"):
        load(tmp_path, RAW | {"fc.weight": packed})


NESTED = {
    "deep": {"checkpoint": {"nets": {"student": RAW, "teacher": OTHER}}},
    "deep and prefixed": {"run": {"student": prefixed(RAW, "backbone."), "teacher": OTHER}},
    "prefixes": {
        "state_dict": prefixed(RAW, "net.student.module.") | prefixed(OTHER, "net.teacher.module.")
    },
}


@pytest.mark.parametrize("name", NESTED)
def test_a_key_is_found_where_it_is_nested(name, tmp_path):
    for key, state in (("student", RAW), ("teacher", OTHER)):
        model = load(tmp_path, NESTED[name], state_key=key)
        assert holds(model, state)
        (said,) = [note for note in model.notes if "was taken" in note]
        assert key in said
    with pytest.raises(WeightsError, match="no state 'stud'"):
        load(tmp_path, NESTED[name], state_key="stud")


def test_a_nested_key_that_several_have_is_no_choice(tmp_path):
    content = {"a": {"student": RAW}, "b": {"student": OTHER}}
    with pytest.raises(WeightsError, match=r"holds 2 states that fit.*a.student, b.student"):
        load(tmp_path, content, state_key="student")
    assert holds(load(tmp_path, content, state_key="b"), OTHER)


def test_a_head_is_not_taken_from_another_network(tmp_path):
    own = {f"part{number}.weight": torch.ones(2) for number in range(12)}
    shorter = {key: value for key, value in own.items() if key != "part7.weight"}
    both = {"": prefixed(shorter, "model.") | prefixed(own, "ema.")}
    taken, _ = choose_state(both, own, source="w.pth", key="model")
    assert taken.keys() == shorter.keys()
    turned = {key: value.T if value.ndim == 2 else value for key, value in HEAD.items()}
    with pytest.raises(WeightsError, match="2 missing: fc.weight, fc.bias"):
        load(tmp_path, prefixed(BACK, "backbone.") | prefixed(turned, "head."))


@pytest.mark.parametrize("prefix", ["model.", "module.", "_orig_mod.", "backbone.", "net.module."])
def test_prefixes_in_safetensors(prefix, tmp_path):
    model = load(tmp_path, prefixed(RAW, prefix), name="w.safetensors")
    assert holds(model, RAW)
    said = prefix not in ("module.", "_orig_mod.")
    assert any(f"{prefix!r}" in note for note in model.notes) is said


def test_what_is_taken_off_within_a_prefix_is_said(tmp_path):
    model = load(tmp_path, prefixed(RAW, "module._orig_mod.model.") | {"step": torch.ones(1)})
    assert holds(model, RAW)
    (note,) = (note for note in model.notes if "was taken off" in note)
    assert "'module.model.'" in note
    assert "'_orig_mod.' was taken out of its names; 1 other key of that state was left" in note


def test_a_key_without_a_file_is_refused():
    with pytest.raises(InputError, match="--state-key"):
        load_model("small-cnn", state_key="ema")


@pytest.mark.parametrize("command", ["layers", "similarity"])
def test_the_command_line_takes_the_key(command, tmp_path, request):
    torch.save({"model": RAW, "ema": OTHER}, tmp_path / "w.pth")
    code = "import sys; from elsewhere.cli import main; sys.exit(main())"
    options = ["--weights", str(tmp_path / "w.pth")]
    if command == "similarity":
        options += ["--objects", "novel", "--categories", "2", "--grid", "1x2", "--canvas", "32"]
        options += ["--object-size", "8", "--layers", "fc", "--background", "90"]
        options += ["--out", str(tmp_path / "s.nc")]
    name = f"{request.path.stem}:small"

    def run(*more):
        return subprocess.run(
            [sys.executable, "-c", code, command, name, *options, "--json", *more],
            cwd=request.path.parent, capture_output=True, text=True, check=False,
        )  # fmt: skip

    refused = run()
    assert refused.returncode == 1
    assert "holds 2 states that fit the network: model, ema" in " ".join(refused.stderr.split())
    found = run("--state-key", "ema")
    assert found.returncode == 0, found.stderr
    json.loads(found.stdout)


@pytest.mark.filterwarnings("ignore:.*sparse", "ignore:.*nested")
@pytest.mark.parametrize("kind", ["sparse", "meta", "nested"])
def test_tensors_that_are_not_plain_are_refused(kind, tmp_path):
    plain = RAW["fc.weight"]
    odd = {
        "sparse": plain.to_sparse(),
        "meta": plain.to("meta"),
        "nested": torch.nested.nested_tensor([plain[0], plain[1]]),
    }[kind]
    with pytest.raises(WeightsError, match=r"sparse, nested or without values \(fc.weight\)"):
        load(tmp_path, RAW | {"fc.weight": odd})


class Sharing(nn.Module):
    """Weights that share memory otherwise than by being one: turned, and cut from a packed one."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.up, self.packed = nn.Linear(4, 6, bias=False), nn.Linear(6, 12, bias=False)
        self.down = nn.Linear(6, 4, bias=False)
        self.key, self.value = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
        self.down.weight = nn.Parameter(self.up.weight.T)
        self.key.weight = nn.Parameter(self.packed.weight[:6])
        self.value.weight = nn.Parameter(self.packed.weight[6:])
        self.register_buffer("mask", torch.full((2, 2), -torch.inf).triu(1))

    def forward(self, x):
        h = self.up(self.conv(x).mean((2, 3)))
        return self.down(self.key(h) + self.value(h) + self.packed(h)[:, :6])


def sharing():
    return Sharing()


@pytest.mark.parametrize(
    "left_out", [["up"], ["down"], ["key"], ["packed"], ["key", "value"], ["down", "packed"]]
)
def test_weights_that_share_memory_are_there_if_the_memory_is_written(left_out, tmp_path):
    state = {name: value.clone().contiguous() for name, value in state_of(5, Sharing).items()}
    file = {k: v for k, v in state.items() if k.partition(".")[0] not in left_out}
    model = load(tmp_path, file, "sharing", "w.safetensors")
    assert holds(model, state)
    assert model.random_keys == ()
    del file["value.weight" if "packed" in left_out else "conv.bias"]
    with pytest.raises(WeightsError, match="missing: "):
        load(tmp_path, file, "sharing")


def test_a_file_of_safetensors_itself_which_leaves_tied_ones_out(tmp_path):
    torch.manual_seed(6)
    network, path = Tied(), tmp_path / "own.safetensors"
    safetensors.torch.save_model(network, str(path))
    model = load_model(f"{__name__.rpartition('.')[2]}:tied", weights=str(path))
    assert holds(model, network.state_dict())
    assert model.random_keys == ()


def test_values_that_contradict_each_other_in_shared_memory_are_refused(tmp_path):
    state = {name: value.clone() for name, value in state_of(6, Sharing).items()}
    state["down.weight"] += 1
    with pytest.raises(WeightsError, match="one in the network: down.weight and up.weight"):
        load(tmp_path, state, "sharing")


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("key", ["conv.weight", "norm.running_mean"])
def test_weights_and_statistics_that_are_not_finite_are_refused(key, value, tmp_path):
    state = {name: tensor.clone() for name, tensor in RAW.items()}
    state[key].view(-1)[1] = value
    told = rf"1 not finite: {key} \(1 of {state[key].numel()} values\); was it saved after"
    with pytest.raises(WeightsError, match=told):
        load(tmp_path, state)
    with pytest.raises(WeightsError, match=told):
        load(tmp_path, {key: state[key]}, partial_weights=True)
