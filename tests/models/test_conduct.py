"""What a network does with a batch: images that depend on each other, on chance, or on history."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.models import InputTransform, Layer, Model, list_layers, observe
from elsewhere.models.conduct import OUTPUT, probe_image
from elsewhere.models.restoring import chance_state

SIDE = 12


class Net(nn.Module):
    """A convolution, something odd, a ReLU, and a head."""

    def __init__(self, odd=lambda net, x: x):
        super().__init__()
        self.conv, self.relu, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Linear(4, 3)
        self.register_buffer("seen", torch.zeros(4))
        self.odd, self.calls, self.history = odd, 0, []

    def forward(self, x):
        return self.fc(self.relu(self.odd(self, self.conv(x))).mean((2, 3)))


def normalised_over_batch(net, x):
    return (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True)


def gated_over_batch(net, x):
    return x * x.mean((1, 2, 3), keepdim=True).softmax(0)


def divided_by_size(net, x):
    return x / len(x)


def ranked_in_batch(net, x):
    return x + torch.arange(len(x), dtype=x.dtype)[:, None, None, None]


def dropped(net, x):
    return nn.functional.dropout(x, 0.5)


def rarely_dropped(net, x):
    return x if torch.rand(()) < 0.75 else x * 0


def noise_of_numpy(net, x):
    return x + float(np.random.normal())  # noqa: NPY002


def noise_of_python(net, x):
    return x + random.random()


def running_buffer(net, x):
    net.seen = 0.9 * net.seen + x.mean((0, 2, 3))
    return x - net.seen[:, None, None]


def running_in_place(net, x):
    net.seen.mul_(0.9).add_(x.mean((0, 2, 3)))
    return x - net.seen[:, None, None]


def counting(net, x):
    net.calls += 1
    return x + net.calls


def remembering(net, x):
    net.history.append(float(x.mean()))
    return x + sum(net.history)


def normalised_in_fours(net, x):
    if len(x) % 4:
        return x
    groups = x.unflatten(0, (-1, 4))
    return (groups - groups.mean(1, keepdim=True)).flatten(0, 1)


def shifted_along_eight_frames(net, x):
    return torch.cat([x[:, :2].roll(1, 0), x[:, 2:]], 1) if len(x) % 8 == 0 else x


def mixed_with_the_third_next(net, x):
    return x + x.roll(3, 0)


DEPENDENT = [
    normalised_over_batch,
    gated_over_batch,
    divided_by_size,
    ranked_in_batch,
    normalised_in_fours,
    shifted_along_eight_frames,
    mixed_with_the_third_next,
]
CHANCE = [dropped, rarely_dropped, noise_of_numpy, noise_of_python]
CHANGING = [running_buffer, running_in_place, counting, remembering]


def model_of(module, **options):
    return Model(
        "net", module.eval(), InputTransform(), {}, "none", "", canvas_size=SIDE, **options
    )


def look_at(model, layers=("relu",), **options):
    found = [layer for layer in list_layers(model) if layer.name in layers]
    generator = torch.Generator().manual_seed(0)
    scenes = torch.rand(2, 3, SIDE, SIDE, generator=generator)
    return observe(model, torch.full((1, 3, SIDE, SIDE), 0.5), scenes, found, **options)


@pytest.fixture(autouse=True)
def weights():
    torch.manual_seed(0)


def quantised_by_the_largest(net, x):
    return torch.fake_quantize_per_tensor_affine(x, float(x.abs().max()) / 127, 0, -128, 127)


def clipped_at_half_the_largest(net, x):
    return x.clamp(max=float(x.max()) / 2)


@pytest.mark.parametrize("odd", [quantised_by_the_largest, clipped_at_half_the_largest])
def test_the_fixed_image_does_not_decide_alone(odd):
    """It has the largest values of every batch that it is in, and so does not notice the others."""
    model, dim = model_of(Net(odd)), torch.full((2, 3, SIDE, SIDE), 0.3)
    layers = [layer for layer in list_layers(model) if layer.name == "relu"]
    dim[1, :, 4:8, 4:8] = 0.4
    with pytest.raises(InputError, match=r"'relu' depends on the other images.*one-at-a-time"):
        observe(model, torch.full((1, 3, SIDE, SIDE), 0.3), dim, layers)
    alone = model_of(Net(odd), batch_dependent="one-at-a-time")
    assert observe(alone, torch.full((1, 3, SIDE, SIDE), 0.3), dim, layers).alone


@pytest.mark.parametrize("odd", DEPENDENT)
def test_images_that_depend_on_each_other_are_refused_or_run_alone(odd):
    network = Net(odd)
    with pytest.raises(InputError, match=r"'relu' depends on the other images.*one-at-a-time"):
        look_at(model_of(network))
    found = look_at(model_of(network, batch_dependent="one-at-a-time"))
    assert found.alone
    assert found.seed is None
    assert "each image was run alone" in found.notes[0]


@pytest.mark.parametrize("odd", CHANCE)
def test_chance_is_refused_unless_seeded_and_then_marked(odd):
    network = Net(odd)
    with pytest.raises(InputError, match="draws random numbers .*--chance-seed"):
        look_at(model_of(network))
    with pytest.raises(InputError, match="draws random numbers"):
        look_at(model_of(network, batch_dependent="one-at-a-time"))
    found = look_at(model_of(network, chance_seed=4))
    assert (found.alone, found.seed) == (True, 4)
    assert "seeded with 4" in found.notes[0]
    image = torch.rand(1, 3, SIDE, SIDE)
    values = []
    for _ in range(2):
        with torch.no_grad(), found.a_pass(network):
            values.append(network(image))
    assert torch.equal(*values)


def test_groups_of_the_batch_that_is_used_are_found():
    """Accuracy runs other batches than a sweep."""

    def in_sixteens(net, x):
        return x if len(x) % 16 else x - x.mean(0)

    assert not look_at(model_of(Net(in_sixteens))).alone
    with pytest.raises(InputError, match="other images"):
        look_at(model_of(Net(in_sixteens)), rows=64)


def test_chance_that_comes_with_gradients():
    def dropped_with_gradients(net, x):
        return nn.functional.dropout(x, 0.5, training=torch.is_grad_enabled())

    network = Net(dropped_with_gradients)
    assert not look_at(model_of(network)).alone
    with pytest.raises(InputError, match="draws random numbers"):
        look_at(model_of(network), gradients=True)
    assert not look_at(model_of(Net(lambda net, x: x.mul_(2))), gradients=True).alone


@pytest.mark.parametrize("odd", CHANGING)
def test_a_state_that_every_pass_changes_is_refused_and_given_back(odd):
    network = Net(odd)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    for options in ({}, {"batch_dependent": "one-at-a-time"}, {"chance_seed": 1}):
        with pytest.raises(InputError, match=r"from pass to pass.*(seen|calls|history)"):
            look_at(model_of(network, **options))
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert (network.calls, network.history) == (0, [])


def test_a_network_that_works_on_its_images_in_place_is_looked_at_with_copies():
    network = Net()
    network.register_forward_pre_hook(lambda _, given: (given[0].sub_(0.5),))
    found = look_at(model_of(network), output=True)
    assert not found.alone
    assert not found.notes


def test_only_what_is_wanted_counts():
    network = Net()
    network.fc = nn.Sequential(network.fc, nn.Dropout(0.5))
    network.fc[1].eval = lambda: network.fc[1]  # a head that cannot be kept from chance
    network.fc[1].train = lambda mode=True: network.fc[1]
    network.fc[1].training = True
    found = look_at(model_of(network))
    assert not found.alone
    assert found.notes == ()
    with pytest.raises(InputError, match="its output"):
        look_at(model_of(network), output=True)


def test_a_harmless_network_is_left_as_it_was_found_and_generators_too():
    def keeps(net, x):
        net.kept = x
        net.calls += 1
        return x

    network = Net(keeps).train()
    network.bn = nn.BatchNorm2d(4)
    network.odd = lambda net, x: keeps(net, net.bn(x))
    torch.manual_seed(3)
    state = torch.get_rng_state()
    found = look_at(Model("net", network, InputTransform(), {}, "none", "", canvas_size=SIDE))
    assert not found.alone
    assert not hasattr(network, "kept")
    assert network.calls == 0
    assert network.training
    assert network.bn.training
    assert int(network.bn.num_batches_tracked) == 0
    assert torch.equal(state, torch.get_rng_state())
    assert not network.relu._forward_hooks


def test_drawing_without_effect_is_no_chance():
    def draws(net, x):
        random.random()
        torch.rand(3)
        return x

    assert not look_at(model_of(Net(draws))).alone


REMEMBERED = {}


def initialised_in_a_module(net, x):
    if "mean" not in REMEMBERED:
        REMEMBERED["mean"] = x.mean()
    return x - REMEMBERED["mean"]


def initialised_by_a_helper(net, x):
    return initialised_in_a_module(net, x)


def initialised_in_a_closure():
    kept = []

    def change(net, x):
        if not kept:
            kept.append(x.mean())
        return x - kept[0]

    return change


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize(
    "change", [initialised_in_a_module, initialised_by_a_helper, initialised_in_a_closure()]
)
def test_what_the_first_images_have_set_is_refused_wherever_it_is_kept(change, gradients):
    with pytest.raises(InputError, match="changes from pass to pass: layer 'relu'.* keeps a state"):
        look_at(model_of(Net(change)), gradients=gradients)
    assert not REMEMBERED


def test_what_is_drawn_and_matters_rarely_is_said_and_can_be_seeded():
    def rarely(net, x):
        return x * (torch.rand(()) > 1e-9)

    found = look_at(model_of(Net(rarely)))
    assert not found.alone
    assert any("draws random numbers, which changed nothing" in note for note in found.notes)
    seeded = look_at(model_of(Net(rarely), chance_seed=3))
    assert seeded.alone
    assert seeded.seed == 3


def test_amplified_rounding_is_not_blamed_on_the_batch():
    class Amplified(Net):
        """Rounding of one batch size, and not of another, a thousand times larger."""

        def forward(self, x):
            h = self.relu(self.conv(x))
            apart = h.flatten(1) @ torch.full((h[0].numel(), 64), 1e-3, dtype=h.dtype)
            exact = h.double().flatten(1).sum(1, keepdim=True).to(h.dtype) * 1e-3
            shift = 1e-3 * (len(x) == 1) if h.dtype == torch.float32 else 0.0
            return self.fc(h.mean((2, 3)) + (apart - exact)[:, :4] + shift)

    assert not look_at(model_of(Amplified()), output=True).alone


def test_values_that_are_not_finite_are_left_to_those_who_name_the_object():
    network = Net(lambda net, x: x / 0 - x / 0)
    assert not look_at(model_of(network)).alone


def test_a_network_that_takes_single_images_only():
    network = Net(lambda net, x: x.reshape(1, 4, SIDE, SIDE))
    with pytest.raises(InputError, match="cannot run several images in a pass"):
        look_at(model_of(network))
    assert look_at(model_of(network, batch_dependent="one-at-a-time")).alone


def test_behaviour_is_what_plain_passes_give():
    network = Net().eval()
    found = look_at(model_of(network)).behaviour
    pixels = torch.from_numpy(probe_image(SIDE)).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        for place, image in enumerate((pixels, torch.full((1, 3, SIDE, SIDE), 0.5))):
            relu = network.relu(network.conv(image)).double()
            n, largest, norm = found["relu"][place][:3]
            assert n == relu.numel()
            np.testing.assert_allclose([largest, norm], [relu.max(), relu.norm()], rtol=1e-5)
            logits = network(image).double()
            np.testing.assert_allclose(found[OUTPUT][place][2], logits.norm(), rtol=1e-5)


def test_unknown_ways_are_refused():
    with pytest.raises(UnknownNameError, match="one-at-a-time"):
        model_of(Net(), batch_dependent="sometimes")
    with pytest.raises(InputError, match="seed of chance"):
        model_of(Net(), chance_seed=-1)


def test_layers_are_found_by_call_and_output():
    assert isinstance(list_layers(model_of(Net()))[0], Layer)


def test_what_a_bright_image_does_to_dim_ones_is_seen():
    """Below the threshold by themselves, dim images are halved in the company of a bright one."""

    def gated_by_brightest(net, x):
        return x * (0.5 if net.brightest > 0.2 else 1.0)

    class Gated(Net):
        def forward(self, x):
            self.brightest = float(x.mean((1, 2, 3)).max())
            return super().forward(x)

    torch.manual_seed(0)
    gated = Gated(gated_by_brightest)
    model = Model("gated", gated, InputTransform(), {}, "none", "", canvas_size=SIDE)
    scenes = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 0.2
    empty = torch.zeros(1, 3, SIDE, SIDE)
    model.module.conv.bias.data.zero_()  # the empty canvas stays what it is
    with pytest.raises(InputError, match="its output depends on the other images of its batch"):
        observe(model, empty, scenes, (), output=True)


def test_what_another_thread_draws_meanwhile_is_not_taken_for_the_networks(monkeypatch):
    calls = []

    def state(module):
        calls.append(module)
        if len(calls) == 2:  # after the first look
            random.random()
        return chance_state(module)

    monkeypatch.setattr("elsewhere.models.conduct.chance_state", state)
    found = look_at(model_of(Net()))
    assert len(calls) == 4
    assert not found.notes
