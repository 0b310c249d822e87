import pytest
from torch import nn

from elsewhere.errors import LayerError, UnknownNameError
from elsewhere.models import InputTransform, Model, list_layers, load_model, select_layers

SMALL = {"channels": "4-8", "canvas": 16, "hidden": 6}


@pytest.fixture(scope="module")
def small():
    model = load_model("small-cnn", model_args=SMALL)
    return model, list_layers(model)


@pytest.fixture(scope="module")
def resnet():
    model = load_model("resnet18", model_args={"num_classes": 5})
    return model, list_layers(model, 33, containers=True)


def names(listed, wanted):
    model, layers = listed
    return [layer.name for layer in select_layers(layers, wanted, model)]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (["logits", "conv1_1"], ["conv1_1", "logits"]),
        ("fc3, pool1,fc3", ["pool1", "fc3"]),
        (["relu*"], ["relu1_1", "relu2_1", "relu3", "relu4"]),
        (["features.0", "conv1_1", "conv1_1,features.0"], ["conv1_1"]),
        ("pool?", ["pool1", "pool2"]),
        ("features.*,logits", ["conv1_1", "relu1_1", "pool1", "conv2_1", "relu2_1", "pool2"]),
        ("conv1_1:0", ["conv1_1"]),
        ("avgpool", ["avgpool"]),
    ],
)
def test_selection(small, wanted, expected):
    found = names(small, wanted)
    assert found[: len(expected)] == expected
    assert len(found) == len(expected) + ("logits" in str(wanted) and "*" in str(wanted))


def test_star_is_every_leaf(small):
    model, layers = small
    assert select_layers(layers, "*", model) == layers
    assert select_layers(list_layers(model, containers=True), "*", model) == layers


def test_calls(resnet):
    assert names(resnet, "layer1.0.relu") == ["layer1.0.relu:0", "layer1.0.relu:1"]
    assert names(resnet, "layer1.0.relu:1") == ["layer1.0.relu:1"]
    assert names(resnet, "layer1.0.rel*:1") == ["layer1.0.relu:1"]
    expected = [f"layer1.{block}.relu:{call}" for block in (0, 1) for call in (0, 1)]
    assert names(resnet, "layer1.?.relu") == expected
    with pytest.raises(LayerError, match=r"'layer1\.0\.relu:2' does not occur"):
        names(resnet, "layer1.0.relu:2")


def test_containers_by_name_but_not_by_glob(resnet, small):
    assert names(resnet, "layer4,layer1.0") == ["layer1.0", "layer4"]
    assert "layer4.0" not in names(resnet, "layer4.*")
    assert "layer4.0.conv1" in names(resnet, "layer4.*")
    with pytest.raises(LayerError, match="made of other modules and was not listed"):
        names(small, "features")


@pytest.mark.parametrize(
    ("wanted", "nearest"), [("conv2_2", "conv2_1"), ("logit", "logits"), ("zonv*", "")]
)
def test_unknown_names(small, wanted, nearest):
    with pytest.raises(UnknownNameError, match="`elsewhere layers small-cnn` lists them") as caught:
        names(small, wanted)
    assert nearest in str(caught.value)


@pytest.mark.parametrize("wanted", ["head", "fc", "Linear"])
def test_usual_names_of_a_head_lead_to_it(small, wanted):
    """What is spelled alike is another layer: 'fc3' is none that makes the output."""
    with pytest.raises(UnknownNameError, match="makes the network's output is called logits") as e:
        names(small, wanted)
    assert "nearest" not in str(e.value)


def test_nothing_wanted(small):
    for wanted in ([], "", [" , "]):
        with pytest.raises(LayerError, match="no layer is asked for"):
            names(small, wanted)


@pytest.mark.parametrize(
    ("name", "canvas_size", "expected"),
    [
        ("vgg16-slim", 64, ["pool5", "fc6", "relu6", "fc7", "relu7", "logits"]),
        ("small-cnn", 48, ["pool4", "fc5", "relu5", "fc6", "relu6", "logits"]),
        # Another canvas: the adaptive pooling now changes its input's shape.
        ("small-cnn", 80, ["avgpool", "fc5", "relu5", "fc6", "relu6", "logits"]),
        ("resnet18", 64, ["avgpool", "logits"]),
        ("googlenet", 64, ["avgpool", "logits"]),
        ("squeezenet1_1", 64, ["classifier.3"]),
        # Pooled by a function, which is no module: the last map stands for it.
        ("densenet121", 64, ["features.norm5", "logits"]),
        ("mobilenet_v2", 64, ["features.18.2", "logits"]),
    ],
)
def test_default_layers(name, canvas_size, expected):
    model = load_model(name, model_args={"num_classes": 5})
    assert names((model, list_layers(model, canvas_size)), None) == expected


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 2, 3)
        self.again = self.first_relu = nn.ReLU()
        self.silent = nn.ReLU()
        self.pair = Pair()

    def forward(self, values):
        return self.pair(self.again(self.first(values)))[1]


class Pair(nn.Module):
    def forward(self, values):
        return values, values.flatten(1)


def test_silent_shared_and_several_outputs():
    model = Model("odd", Odd(), InputTransform(), {}, "none", "", canvas_size=8)
    listed = model, list_layers(model)
    with pytest.raises(LayerError, match="'silent' never runs"):
        names(listed, "silent")
    shared = names(listed, "again")
    assert shared == names(listed, "first_relu")
    assert len(shared) == 1
    assert names(listed, "pair") == ["pair[0]", "pair[1]"]
    assert names(listed, "pair[1]") == ["pair[1]"]
    assert names(listed, "pair*") == ["pair[0]", "pair[1]"]
    with pytest.raises(LayerError, match=r"'pair\[2\]' does not occur"):
        names(listed, "pair[2]")


def test_default_of_networks_without_maps_or_pooling():
    mlp = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.ReLU(), nn.Linear(4, 2))
    model = Model("mlp", mlp, InputTransform(), {}, "none", "", canvas_size=8)
    assert names((model, list_layers(model)), None) == ["1", "2", "logits"]
    late = nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(4, 2)),
    )
    model = Model("late", late, InputTransform(), {}, "none", "", canvas_size=8)
    assert names((model, list_layers(model)), None) == ["1", "2", "3", "logits"]
