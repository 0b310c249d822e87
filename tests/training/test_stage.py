"""Criteria are asked at every step, in whole numbers; averaged weights have their statistics."""

import dataclasses

import pytest
import torch

from elsewhere.models import InputTransform
from elsewhere.models.forward import Paster, arrange
from elsewhere.training import Criterion, Exemplars, Network, Phase, list_checkpoints, train
from elsewhere.training.checkpoints import load_checkpoint, read_weights
from elsewhere.training.optimisation import schedule_factor
from elsewhere.training.stage import Stage
from elsewhere.training.statistics import measure_statistics

CPU = torch.device("cpu")


@pytest.fixture
def counts(monkeypatch):
    """What is classified correctly at every step, counted beside training."""
    found = []
    update = Stage._update

    def counting(self, logits, labels, *rest):
        found.append(int((logits.argmax(1) == labels).sum()))
        update(self, logits, labels, *rest)

    monkeypatch.setattr(Stage, "_update", counting)
    return found


@pytest.mark.parametrize(
    ("accuracy", "window", "batch"), [(0.9, 1, 10), (0.7, 10, 5), (0.6, 7, 8), (0.65, 60, 8)]
)
def test_the_criterion_is_met_at_the_first_step(
    accuracy, window, batch, counts, make_curriculum, make_phase, tmp_path
):
    ends = []
    for number, checkpoints in enumerate(((0,), tuple(range(0, 150, 7)), 9)):
        phase = make_phase(
            objects="digits", environment="one", steps=200, batch=batch, checkpoints=checkpoints,
            criterion=Criterion(accuracy, window), learning_rate=3e-3, exemplars=Exemplars(20, 5),
        )  # fmt: skip
        counts.clear()
        train(make_curriculum(phase), tmp_path / str(number), device="cpu")
        sums = [sum(counts[end - window : end]) for end in range(window, len(counts) + 1)]
        # in whole numbers: 9 of 10 are .9
        right = window + next(
            n for n, s in enumerate(sums) if 1000 * s >= round(1000 * accuracy) * window * batch
        )
        last = list_checkpoints(tmp_path / str(number))[-1]
        assert last.criterion_step == last.step == right == len(counts)
        ends.append(read_weights(last))
    for other in ends[1:]:
        assert all(torch.equal(value, ends[0][name]) for name, value in other.items())


def test_a_cycle_comes_to_its_end():
    for steps in (2, 10, 137):
        phase = Phase("p", "digits", steps=steps, schedule="one-cycle")
        factors = [schedule_factor(phase, step, steps) for step in range(steps)]
        assert factors[-1] == pytest.approx(1 / 250_000)
        assert factors[0] == pytest.approx(1 / 25)
        assert max(factors) <= 1


def test_averaged_weights_have_their_own_statistics(make_curriculum, make_phase, tmp_path):
    """The right ones are those of all presentations, in plain torch."""
    phase = make_phase(
        environment="one", steps=60, batch=64, ema=0.95, learning_rate=0.02, optimiser="sgd",
        checkpoints=(0,),
    )  # fmt: skip
    arguments = {"channels": "4-8", "hidden": 12, "batch_norm": True}
    curriculum = make_curriculum(phase, network=Network("small-cnn", arguments=arguments, gain=4.0))
    train(curriculum, tmp_path / "ema", device="cpu")
    card = list_checkpoints(tmp_path / "ema")[-1]
    network = load_checkpoint(card).module
    found = {name: value.clone() for name, value in network.named_buffers()}
    objects, _ = card.load_objects()
    paster = Paster(card.canvas, InputTransform(gain=4.0), rows=len(objects), device=CPU)
    images = paster.paste(paster.load(objects), torch.tensor(card.trained * len(objects)))
    network.train()
    torch.optim.swa_utils.update_bn([images], network)
    checked = 0
    for name, value in network.named_buffers():
        if "running" in name:
            assert torch.allclose(
                found[name], value, rtol=0.05, atol=0.05 * float(value.abs().max())
            )
            checked += 1
    assert checked >= 4
    # the network that is trained keeps its own: the weights end as without looking
    plain = dataclasses.replace(phase, checkpoints=(0, 7, 23))
    train(dataclasses.replace(curriculum, phases=(plain,)), tmp_path / "more", device="cpu")
    more = read_weights(list_checkpoints(tmp_path / "more")[-1])
    assert all(torch.equal(value, more[name]) for name, value in read_weights(card).items())


def test_only_statistics_in_training_are_measured():
    norms = torch.nn.Sequential(*(torch.nn.BatchNorm2d(3) for _ in range(3)))
    norms[1].eval()
    before = [norm.running_mean.clone() for norm in norms]
    images = torch.randn(8, 3, 4, 4) + 3
    assert measure_statistics(norms, [images[:4], images[4:]]) == 2
    assert [norm.training for norm in norms] == [True, False, True]
    assert [norm.momentum for norm in norms] == [0.1] * 3
    assert torch.equal(norms[1].running_mean, before[1])
    assert torch.allclose(norms[0].running_mean, images.mean((0, 2, 3)), atol=1e-5)
    assert measure_statistics(norms.eval(), iter(())) == 0


def test_a_network_with_tensors_of_five_axes_is_trained(make_curriculum, make_phase, tmp_path):
    phase = make_phase(objects="digits", environment="one", steps=2, batch=4, checkpoints=(0,))
    network = Network("scattering", arguments={"J": 2, "L": 2})  # its filters
    train(make_curriculum(phase, network=network), tmp_path / "run", device="cpu")
    assert list_checkpoints(tmp_path / "run")[-1].step == 2


def test_maps_are_put_in_order_whatever_else_a_network_has():
    network = torch.nn.ModuleDict(
        {"solid": torch.nn.Conv3d(3, 4, 3), "flat": torch.nn.Conv2d(3, 4, 3)}
    )
    network.register_buffer("few", torch.eye(3).to_sparse())
    network["tied"] = torch.nn.Conv2d(3, 4, 3)
    network["tied"].weight = network["flat"].weight
    arrange(network, torch.channels_last)
    assert network["flat"].weight.is_contiguous(memory_format=torch.channels_last)
    assert network["tied"].weight is network["flat"].weight
    arrange(network, torch.contiguous_format)
    assert all(value.is_contiguous() for value in network.parameters())
