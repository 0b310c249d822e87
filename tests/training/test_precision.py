"""What a network is trained in: of a phase or of the network, in cards and in what a run is."""

import dataclasses
from collections import Counter

import pytest
import torch
from torch.nn import functional

from elsewhere.errors import CurriculumError
from elsewhere.models.forward import Paster
from elsewhere.training import Curriculum, batches, list_checkpoints, load_checkpoint, train
from elsewhere.training.batches import Presentations
from elsewhere.training.checkpoints import read_weights
from elsewhere.training.curriculum import Augment
from elsewhere.training.resolution import resolve
from elsewhere.training.seeds import derive_seed
from elsewhere.training.stage import Stage
from tests.counting import counting


@pytest.fixture
def half(make_curriculum, make_phase):
    """A curriculum in bfloat16, without what a plain loop would have to draw."""
    phase = make_phase(steps=3, checkpoints=(0, 3), dropout=0.0, clip=1.0, learning_rate=3e-3)
    curriculum = make_curriculum(phase)
    network = dataclasses.replace(curriculum.network, precision="bfloat16")
    return dataclasses.replace(curriculum, network=network)


def test_bfloat16_is_autocast_in_a_plain_loop(half, tmp_path):
    first, last = list_checkpoints(train(half, tmp_path / "run", device="cpu"))
    assert first.numerics["precision"] == last.numerics["precision"] == "bfloat16"
    model, (phase,) = load_checkpoint(first), resolve(half)
    network = model.module.train().to(memory_format=torch.channels_last)
    for part in network.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    paster = Paster(half.canvas, model.transform, rows=8, device=torch.device("cpu"))
    shown = Presentations(phase, paster, seed=derive_seed(0, "phase", phase.name))
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for rows, places in zip(*shown.draw(0, 3), strict=True):
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(paster.paste(shown.patches[rows], places))
        assert logits.dtype == torch.bfloat16
        functional.cross_entropy(logits.float(), shown.labels[rows]).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
    before, after = read_weights(first), read_weights(last)
    plain = dataclasses.replace(half.network, precision="float32")
    exact = train(dataclasses.replace(half, network=plain), tmp_path / "exact", device="cpu")
    other = read_weights(list_checkpoints(exact)[-1])
    for name, value in network.state_dict().items():
        moved = float((after[name] - before[name]).abs().max())
        assert float((after[name] - value).abs().max()) < 0.02 * moved, name
    assert any(not torch.equal(after[name], other[name]) for name in after)


def test_a_phase_in_bfloat16_goes_on_alike_and_says_so(make_curriculum, make_phase, tmp_path):
    phases = (
        make_phase("a", steps=60, ema=0.9, precision="bfloat16", checkpoints=(60,)),
        make_phase("b", steps=5, new_head=True, checkpoints=(5,)),
    )
    curriculum = make_curriculum(*phases)

    class Stop(Exception):
        pass

    def stop(report):
        if report.step == 60:
            raise Stop

    with pytest.raises(Stop):
        train(curriculum, tmp_path / "killed", device="cpu", progress=stop, save_every=0)
    whole = list_checkpoints(train(curriculum, tmp_path / "whole", device="cpu"))
    again = list_checkpoints(train(curriculum, tmp_path / "killed", device="cpu"))
    assert [card.sha256 for card in again] == [card.sha256 for card in whole]
    assert [card.numerics["precision"] for card in whole] == ["bfloat16", "float32"]
    assert "float32 on a CPU" in whole[0].passes


def test_a_precision_that_a_device_lacks_is_refused(make_curriculum, make_phase, tmp_path):
    curriculum = make_curriculum(make_phase("a"), make_phase("b", precision="tf32"))
    with pytest.raises(CurriculumError, match="phase b: precision: .*tf32.*cpu"):
        train(curriculum, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_the_precision_is_part_of_what_a_run_is(make_curriculum, make_phase):
    plain = make_curriculum(make_phase())
    named = dataclasses.replace(plain.network, precision="tf32")
    others = [
        dataclasses.replace(plain, network=named),
        make_curriculum(make_phase(precision="bfloat16")),
        make_curriculum(make_phase(precision="float32")),
    ]
    assert len({each.fingerprint for each in (plain, *others)}) == 4
    for each in others:
        assert Curriculum.from_dict(each.to_dict()) == each
    table = plain.to_dict()
    assert "precision" not in table["network"]
    table["phase"][0]["precision"] = "float16"
    with pytest.raises(CurriculumError, match="one of float32, tf32, bfloat16; got 'float16'"):
        Curriculum.from_dict(table)


def test_training_asks_the_device_every_tenth_step(
    make_curriculum, make_phase, tmp_path, monkeypatch
):
    waits, between, sent = Counter(), Counter(), []

    def counted(method, found):
        def call(*given, **more):
            with counting() as here:
                result = method(*given, **more)
            found.update(here.waits)
            return result

        return call

    def send(values, device):
        sent.append(values.shape)
        return values.to(device)

    monkeypatch.setattr(Stage, "_block", counted(Stage._block, waits))
    monkeypatch.setattr(Stage, "_reach", counted(Stage._reach, between))  # tests, checkpoints
    monkeypatch.setattr(batches, "send", send)
    phase = make_phase(
        steps=100, checkpoints=(100,), clip=1.0, precision="bfloat16", augment=Augment(blur=0.5)
    )
    train(make_curriculum(phase), tmp_path, device="cpu")
    steps = waits - between
    assert 10 <= steps.total() <= 12, steps  # in 100 steps
    assert sent.count((50, 8, 3)) == 2  # rows and places of 50 steps cross together
