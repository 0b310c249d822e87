"""What a run's table says of accuracy is near the truth, by plain torch, and says how near."""

import numpy as np
import pytest
import torch

from elsewhere.models import InputTransform
from elsewhere.models.forward import Paster
from elsewhere.training import Exemplars, list_checkpoints, load_checkpoint, read_metrics, train
from elsewhere.training.probe import LEAST, Probe
from elsewhere.training.resolution import resolve


def whole_truth(card, placement):
    """Accuracy of every held-out exemplar at every location that is not its class's, by class."""
    objects = card.load_objects()[1]
    network, side, half = load_checkpoint(card).module, card.canvas.size, 3
    pixels = torch.from_numpy(objects.patches((0, 0, 0))).permute(0, 3, 1, 2) / 255 * card.gain
    right = {}
    for shown, category in zip(pixels, objects.category_index.tolist(), strict=True):
        places = placement.locations(category).tolist()
        valid = card.canvas.valid
        others = [(y, x) for y in valid for x in valid if [y, x] not in places]
        images = torch.zeros(len(others), 3, side, side)
        for image, (y, x) in zip(images, others, strict=True):
            image[:, y - half : y + half + 1, x - half : x + half + 1] = shown
        with torch.no_grad():
            correct = network(images).argmax(1) == category
        right.setdefault(category, []).append(correct.double().mean().item())
    return np.mean([np.mean(shares) for shares in right.values()])


@pytest.mark.parametrize(
    ("environment", "exemplars"),
    [("one", (6, 3)), ("fixed:point", (6, 3)), ("places:2", (6, 1))],
)
def test_off_is_the_truth_within_its_error(
    environment, exemplars, make_curriculum, make_phase, tmp_path
):
    phase = make_phase(environment=environment, exemplars=Exemplars(*exemplars), learning_rate=5e-3)
    curriculum = make_curriculum(phase)
    train(curriculum, tmp_path / "run", device="cpu")
    cards = list_checkpoints(tmp_path / "run")
    placement = resolve(curriculum)[0].placement
    apart = [
        (card.accuracy_off - whole_truth(card, placement)) / card.accuracy_off_error
        for card in (cards[0], cards[-1])
    ]
    assert max(map(abs, apart)) < 3
    # few exemplars tell little of their classes, however many places they are shown at
    assert all(0 < card.accuracy_off_error < (0.06 if exemplars[1] > 1 else 0.2) for card in cards)


def test_the_same_weights_have_the_same_accuracies(make_curriculum, make_phase, tmp_path):
    train(
        make_curriculum(make_phase(environment="one", learning_rate=1e-30, steps=200)),
        tmp_path / "run",
        device="cpu",
    )
    reports = read_metrics(tmp_path / "run")
    assert len(reports) >= 5
    assert len({(each.accuracy_on, each.accuracy_off) for each in reports}) == 1


def test_few_exemplars_are_shown_at_several_places(make_curriculum, make_phase, monkeypatch):
    shown = []
    share = Probe._share

    def watched(self, network, rows, places):
        shown.append((rows, places))
        return share(self, network, rows, places)

    monkeypatch.setattr(Probe, "_share", watched)
    for environment, on in (("one", 15), ("places:2", 135), ("full", 135)):
        curriculum = make_curriculum(make_phase(environment=environment))
        (resolved,) = resolve(curriculum)
        paster = Paster(curriculum.canvas, InputTransform(), rows=8, device=torch.device("cpu"))
        probe = Probe(resolved, paster, images=LEAST, seed=0)
        flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 5))
        shown.clear()
        found = probe.measure(flat)
        assert len(shown[0][0]) == on
        assert (found.off is None) == (environment == "full")
        if found.off is not None:
            rows, places = shown[1]
            assert len(rows) == 135
            taken = {(y, x) for y, x in resolved.placement.locations(0).tolist()}
            assert not taken & {(y, x) for y, x in places.tolist()}
