"""Pasting on tensors gives what pasting on pixels gives; augmentation; optimisation."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elsewhere.errors import UnknownNameError
from elsewhere.models import IMAGENET, InputTransform, load_model
from elsewhere.models.forward import Paster
from elsewhere.stimuli import Canvas, load_objects
from elsewhere.training import Augment
from elsewhere.training.augment import change_appearance
from elsewhere.training.optimisation import (
    Average,
    freeze,
    make_optimiser,
    schedule_factor,
    select_parameters,
)
from elsewhere.training.seeds import derive_seed, make_generator, own_generators

CPU = torch.device("cpu")
OBJECTS = load_objects("glyphs", size=7, categories=4, per_category=2)


@settings(max_examples=25, deadline=None)
@given(
    size=st.integers(7, 20),
    background=st.sampled_from([0, 200, (10, 90, 250), "mean"]),
    transform=st.sampled_from([InputTransform(gain=6.0), IMAGENET]),
    seed=st.integers(0, 99),
)
def test_pasting_equals_pasting_pixels(size, background, transform, seed):
    canvas = Canvas(size, 7, background)
    rng = np.random.default_rng(seed)
    rows = rng.integers(len(OBJECTS), size=5)
    places = rng.integers(canvas.valid[0], canvas.valid[-1] + 1, size=(5, 2))
    color = canvas.background_color(transform.mean)
    pixels = canvas.paste(OBJECTS.patches(color)[rows], places, color)
    paster = Paster(canvas, transform, rows=6, device=CPU)
    patches = paster.load(OBJECTS)
    paster.paste(patches[:6], torch.full((6, 2), canvas.valid[0]))  # leaves no trace
    images = paster.paste(patches[torch.from_numpy(rows)], torch.from_numpy(places))
    assert torch.equal(images[:5], transform.apply(torch.from_numpy(pixels)))
    assert torch.equal(images[5], paster.background[:, None, None].expand(3, size, size))


def test_appearance_changes_and_keeps_the_ground():
    paster = Paster(Canvas(9, 7, 50), InputTransform(), rows=1, device=CPU)
    patches = paster.load(OBJECTS)
    ground = patches == paster.background
    for augment in (Augment(contrast=0.5), Augment(shading=0.8), Augment(texture=0.9)):
        changed = change_appearance(patches, paster.background, augment, make_generator(0))
        again = change_appearance(patches, paster.background, augment, make_generator(0))
        assert torch.equal(changed, again)
        assert not torch.allclose(changed, patches)
        assert torch.equal(changed[ground], patches[ground])
        assert changed.max() <= patches.max() + 1e-6
        assert changed.min() >= paster.background.min() - 1e-6
    blurred = change_appearance(patches, paster.background, Augment(blur=1.0), make_generator(0))
    assert blurred.std(dim=1).mean() < patches.std(dim=1).mean()
    same = change_appearance(patches, paster.background, Augment(), make_generator(0))
    assert torch.allclose(same, patches)


def test_schedules(make_phase):
    def factors(**options):
        phase = make_phase(**options)
        return [schedule_factor(phase, step, 100) for step in range(100)]

    assert set(factors()) == {1.0}
    cycle = factors(schedule="one-cycle")
    assert cycle[0] == pytest.approx(1 / 25)
    assert max(cycle) == cycle[30] == pytest.approx(1)
    assert cycle[-1] < 0.01
    cosine = factors(schedule="cosine", warmup=0.1)
    assert cosine.index(max(cosine)) == 10
    assert 0 < cosine[0] < cosine[5] < 1
    assert cosine[-1] < 0.01


def test_trainable_patterns():
    model = load_model("small-cnn", model_args={"channels": "4-8", "canvas": 16})
    names = select_parameters(model, "all")
    assert select_parameters(model, "conv*") == names[:4]
    assert select_parameters(model, "features.*") == names[:4]
    assert select_parameters(model, "fc3") == names[4:6]
    assert select_parameters(model, "classifier") == names[4:]
    assert select_parameters(model, "depth:1") == names
    assert select_parameters(model, "depth:2") == names
    assert select_parameters(model, "c[a-n]assifier.[6-9]") == names[-2:]
    assert freeze(model, ("logits", "conv1_1")) == [*names[:2], *names[-2:]]
    assert not model.module.features[3].weight.requires_grad
    assert not model.module.features[3].training
    assert model.module.features[0].training
    with pytest.raises(UnknownNameError, match="nearest: fc3"):
        select_parameters(model, "fc33")


def test_tied_weights_are_trained_under_any_of_their_names():
    model = load_model("small-cnn", model_args={"channels": "4-8", "canvas": 16})
    last = model.module.classifier[6]
    model.module.again, model.module.copy = last, torch.nn.Linear(last.in_features, 7)
    model.module.copy.weight = last.weight
    head = ["classifier.6.weight", "classifier.6.bias"]
    assert select_parameters(model, "again") == head
    assert select_parameters(model, "copy") == [head[0], "copy.bias"]
    assert select_parameters(model, "logits") == head


@pytest.mark.parametrize("optimiser", ["adam", "adamw", "sgd"])
def test_rates_are_factors(make_phase, optimiser):
    model = load_model("small-cnn", model_args={"channels": "4-8", "canvas": 16})
    phase = make_phase(optimiser=optimiser, rates={"features.*": 0.5, "logits": 2.0})
    made = make_optimiser(model, phase, freeze(model, ("all",)))
    assert [group["factor"] for group in made.param_groups] == [0.5, 1.0, 2.0]
    assert [len(group["params"]) for group in made.param_groups] == [4, 4, 2]


def test_average_follows_and_swaps():
    parameter = torch.nn.Parameter(torch.zeros(2))
    average = Average([parameter], 0.9)
    for step in range(1, 200):
        parameter.data.fill_(1.0)
        average.update(step)
    average.swap()
    assert torch.allclose(parameter.data, torch.ones(2), atol=1e-4)
    parameter.data.fill_(5.0)
    average.swap()
    assert torch.equal(average.values[0], torch.full((2,), 5.0))


def test_own_generators_leave_no_trace():
    before = torch.get_rng_state()
    with own_generators(CPU):
        torch.rand(3)
    assert torch.equal(before, torch.get_rng_state())
    assert derive_seed(1, "a", 2) != derive_seed(1, "a", 3)
    assert 0 <= derive_seed(1, "a") < 2**63
    assert dataclasses.is_dataclass(Augment())
