import copy

import pytest
import torch
from torch import nn
from torchvision.models import resnet18, vgg16
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from elsewhere.errors import LayerError, UnknownNameError
from elsewhere.recording import Recorder, Taps


class Twice(nn.Module):
    """A ReLU that is used twice, and a module that never runs."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.second = nn.Linear(4, 5)
        self.relu = nn.ReLU(inplace=True)
        self.silent = nn.Linear(3, 3)

    def forward(self, values):
        return self.relu(self.second(self.relu(self.first(values))))


class Several(nn.Module):
    """Parts that give tuples, dictionaries, single-tensor tuples and no tensor at all."""

    class Pair(nn.Module):
        def forward(self, values):
            return values + 1, values * 2

    class Named(nn.Module):
        def forward(self, values):
            return {"low": values - 1, "high": values + 3}

    class Single(nn.Module):
        def forward(self, values):
            return values * 5, None

    class Nothing(nn.Module):
        def forward(self, values):
            return "text"

    def __init__(self):
        super().__init__()
        self.pair, self.named = self.Pair(), self.Named()
        self.single, self.nothing = self.Single(), self.Nothing()

    def forward(self, values):
        self.nothing(values)
        self.single(values)
        return self.pair(values)[0] + self.named(values)["low"]


def without_inplace(module):
    twin = copy.deepcopy(module)
    for part in twin.modules():
        if isinstance(part, nn.ReLU):
            part.inplace = False
    return twin.eval()


@pytest.mark.parametrize("name", ["vgg16", "resnet18"])
def test_all_layers_equal_torchvisions_feature_extractor(name, disturb, hooks_of):
    """torchvision's extractor is right only on copies without in-place ReLUs; ours on any."""
    with torch.device("meta"):
        network = {"vgg16": vgg16, "resnet18": resnet18}[name](num_classes=10)
    if name == "vgg16":  # the head at a fraction of its size: 500 MB of weights say no more
        network.classifier[0] = nn.Linear(512 * 49, 64)
        network.classifier[3] = nn.Linear(64, 64)
        network.classifier[6] = nn.Linear(64, 10)
    network = disturb(network.to_empty(device="cpu")).eval()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    leaves = [n for n, part in network.named_modules() if n and not list(part.children())]
    nodes = [node for node in get_graph_node_names(network)[1] if node.removesuffix("_1") in leaves]
    extractor = create_feature_extractor(without_inplace(network), nodes)
    with torch.no_grad():
        expected = extractor(images)
    compared = set()
    with Recorder(network, leaves) as recorder:
        network(images)
        for leaf in leaves:
            if leaf in recorder:
                assert torch.equal(recorder[leaf], expected[leaf]), leaf
                compared.add(leaf)
            else:  # called twice: the extractor numbers the later calls
                assert torch.equal(recorder[f"{leaf}:0"], expected[leaf])
                assert torch.equal(recorder[f"{leaf}:1"], expected[f"{leaf}_1"])
                compared |= {leaf, f"{leaf}_1"}
        if name == "vgg16":
            for alias in ("features.0", "features.28"):
                assert (recorder[alias] < 0).any()  # convolutions, not what ReLU made of them
    assert compared == set(nodes)
    assert hooks_of(network) == 0


def test_aliases_globs_and_reused_buffers(model):
    images = torch.rand(2, 3, 24, 24)
    with Recorder(model.module, ["relu*", "conv1_1", "features.3"]) as recorder:
        model.module(images)
        assert list(recorder) == ["conv1_1", "relu1_1", "features.3", "relu2_1", "relu3", "relu4"]
        assert len(recorder) == 6
        first = recorder["conv1_1"]
        kept = first.clone()
        assert torch.equal(recorder["relu1_1"], first.clamp(min=0))
        model.module(images + 1)
        assert recorder["conv1_1"].data_ptr() == first.data_ptr()
        assert not torch.equal(recorder["conv1_1"], kept)
        model.module(images[:1])  # a batch of another size
        assert recorder["conv1_1"].shape[0] == 1


def test_channels_last_order_changes_rounding_only(model, hooks_of):
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with Recorder(model.module, ["features.*", "logits"]) as recorder:
        model.module(images)
        plain = {name: recorder[name].clone() for name in recorder}
    with Recorder(model.module, ["features.*", "logits"], channels_last=True) as recorder:
        model.module(images)
        maps = [name for name in recorder if recorder[name].ndim == 4]
        assert maps
        for name in recorder:
            largest = float(plain[name].abs().max())
            torch.testing.assert_close(recorder[name], plain[name], atol=1e-5 * largest, rtol=0)
        for name in maps[:2]:
            assert recorder[name].is_contiguous(memory_format=torch.channels_last)
    assert hooks_of(model.module) == 0


def test_a_glob_takes_each_layer_once(model):
    with Recorder(model.module, "*") as recorder:
        model.module(torch.rand(1, 3, 24, 24))
        names = list(recorder)
    assert len(names) == len(set(names)) == 14
    assert names[0] == "conv1_1"


def test_two_calls_are_told_apart(hooks_of):
    network, values = Twice(), torch.randn(2, 3)
    first = torch.relu(network.first(values))
    second = torch.relu(network.second(first))
    with Recorder(network, ["relu", "first"]) as recorder:
        network(values)
        assert torch.equal(recorder["relu:0"], first)
        assert torch.equal(recorder["relu:1"], second)
        assert list(recorder) == ["first", "relu:0", "relu:1"]
        with pytest.raises(LayerError, match="relu:0, relu:1"):
            recorder["relu"]
    with Recorder(network, "relu:1") as recorder:
        network(values)
        assert list(recorder) == ["relu:1"]
        assert recorder["relu:1"].shape == (2, 5)
        network(values)
        assert recorder["relu:1"].shape == (2, 5)  # calls are counted anew
    with Recorder(network, "relu:2") as recorder, pytest.raises(LayerError, match=r"ran 2 time"):
        network(values)
    assert hooks_of(network) == 0


def test_several_tensors_are_told_apart():
    network, values = Several(), torch.randn(2, 3)
    with Recorder(network, ["pair", "named[high]", "single"]) as recorder:
        network(values)
        assert torch.equal(recorder["pair[0]"], values + 1)
        assert torch.equal(recorder["pair[1]"], values * 2)
        assert torch.equal(recorder["named[high]"], values + 3)
        assert torch.equal(recorder["single"], values * 5)
        with pytest.raises(LayerError, match=r"pair\[0\], pair\[1\]"):
            recorder["pair"]
        with pytest.raises(UnknownNameError, match="recorded layer"):
            recorder["named[low]"]
        assert sorted(recorder) == ["named[high]", "pair[0]", "pair[1]", "single"]
        for name in recorder:
            assert isinstance(recorder[name], torch.Tensor)
    with (
        Recorder(network, "named[middle]") as recorder,
        pytest.raises(LayerError, match=r"middle.*ask for .named. to see all"),
    ):
        network(values)


def test_a_module_without_tensors_is_refused_by_name(hooks_of):
    network = Several()
    with (
        pytest.raises(LayerError, match="'nothing' gives a str without tensors"),
        Recorder(network, "nothing"),
    ):
        network(torch.zeros(1, 3))
    assert hooks_of(network) == 0


def test_a_layer_that_never_runs_is_an_error(hooks_of):
    network = Twice()
    with (
        pytest.raises(LayerError, match="'silent' did not run"),
        Recorder(network, ["first", "silent"]),
    ):
        network(torch.zeros(1, 3))
    assert hooks_of(network) == 0
    with Recorder(network, "*") as recorder:  # a glob takes what runs
        network(torch.zeros(1, 3))
        assert "silent" not in recorder


@pytest.mark.parametrize(
    ("wanted", "nearest"), [("conv1_2", "conv1_1"), ("feature.0", "features.0"), ("conve*", "conv")]
)
def test_unknown_names_come_with_the_nearest(model, hooks_of, wanted, nearest):
    with pytest.raises(UnknownNameError, match=f"unknown layer.*nearest:.*{nearest}"):
        Recorder(model.module, ["conv1_1", wanted]).__enter__()
    assert hooks_of(model.module) == 0


def test_nothing_is_there_before_a_forward_pass(model):
    with (
        Recorder(model.module, "conv1_1") as recorder,
        pytest.raises(UnknownNameError, match="nothing is recorded before a forward pass"),
    ):
        recorder["conv1_1"]


def test_modes_and_gradients_are_restored_after_success_and_failure(disturb, hooks_of):
    network = nn.Sequential(nn.Linear(3, 4), nn.Dropout(), nn.BatchNorm1d(4), nn.Linear(4, 2))
    network.train()
    network[2].eval()
    before = [part.training for part in network.modules()]
    statistics = network[2].running_mean.clone()
    with Recorder(network, "1") as recorder:
        assert not any(part.training for part in network.modules())
        output = network(torch.ones(4, 3))
        assert not output.requires_grad
        assert torch.equal(recorder["1"][0], recorder["1"][1])  # no dropout
    assert [part.training for part in network.modules()] == before
    assert torch.equal(network[2].running_mean, statistics)
    assert torch.is_grad_enabled()
    assert network(torch.ones(4, 3)).requires_grad
    with pytest.raises(RuntimeError, match="shape"), Recorder(network, ["0", "3"]):
        network(torch.ones(4, 5))
    assert [part.training for part in network.modules()] == before
    assert hooks_of(network) == 0
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_a_failure_on_entry_leaves_nothing(failure, hooks_of, monkeypatch):
    """The third part refuses its hook, after others were attached."""
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).train()

    def refuse(*_, **__):
        raise failure("no hook here")

    monkeypatch.setattr(network[2], "register_forward_hook", refuse)
    with pytest.raises(failure, match="no hook"):
        Recorder(network, ["0", "1", "2"]).__enter__()
    assert hooks_of(network) == 0
    assert all(part.training for part in network.modules())
    assert not torch.is_inference_mode_enabled()


def test_a_failure_of_the_last_hook_of_all_leaves_nothing(hooks_of, monkeypatch):
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU()).train()

    def refuse(*_, **__):
        raise RuntimeError("no hook here")

    monkeypatch.setattr(network, "register_forward_hook", refuse)
    with pytest.raises(RuntimeError, match="no hook"):
        Recorder(network, ["0", "1"]).__enter__()
    assert hooks_of(network) == 0
    assert all(part.training for part in network.modules())


def test_hooks_of_others_stay(hooks_of):
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    seen = []
    network[0].register_forward_hook(lambda *_: seen.append(1))
    with Recorder(network, ["0"]):
        network(torch.zeros(1, 3))
    network(torch.zeros(1, 3))
    assert len(seen) == 2
    assert hooks_of(network) == 1


def test_wrappers_are_looked_through():
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    with Recorder(nn.DataParallel(network), "0") as recorder:
        network(torch.zeros(1, 3))
        assert recorder["0"].shape == (1, 4)


def test_a_module_under_two_names_answers_to_both():
    network = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    network.append(network[0])
    values = torch.randn(1, 3)
    with Recorder(network, "2") as recorder:
        network(values)
        assert torch.equal(recorder["2:1"], network(values))


def test_taps_say_module_call_and_output(hooks_of):
    network, seen = Twice(), []
    with Taps(network, ["relu", "second"], lambda *event: seen.append(event[:2])) as taps:
        network.eval()(torch.zeros(1, 3))
        network(torch.zeros(1, 3))
        assert taps.calls == {"relu": 2, "second": 1}
    assert seen == [("relu", 0), ("second", 0), ("relu", 1)] * 2
    with pytest.raises(UnknownNameError, match="unknown module 'no'"):
        Taps(network, ["relu", "no"], print).__enter__()
    assert hooks_of(network) == 0


def test_depths_and_classes_of_characters_are_patterns(model, hooks_of):
    """The Recorder's names are those of a sweep: containers where no leaf is meant."""
    image = torch.rand(1, 3, 24, 24)
    with Recorder(model.module, ["depth:1", "conv[12]_1"]) as recorder:
        model.module(image)
        assert list(recorder) == ["conv1_1", "conv2_1", "features", "avgpool", "classifier"]
        assert torch.equal(recorder["features"], model.module.eval().features(image))
    with Recorder(nn.Sequential(nn.Sequential(nn.ReLU()), nn.ReLU()), "[0]") as recorder:
        recorder.module(image)
        assert list(recorder) == ["0"]
    with pytest.raises(UnknownNameError, match="unknown layer 'depth:7'"):
        Recorder(model.module, "depth:7").__enter__()
    assert hooks_of(model.module) == 0
