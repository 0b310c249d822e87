import numpy as np
import pytest

from elsewhere.stimuli import load_objects, novel
from elsewhere.stimuli.solids import Solid, View, Volume, part_distance, render

SPHERE = Solid((Volume("ellipsoid", (0, 0, 0), (0.5, 0.5, 0.5)),))


@pytest.fixture(scope="module")
def objects():
    return load_objects("novel", size=32, per_category=3)


def test_there_are_24_in_pairs_first_members_first(objects):
    names = objects.category_names
    assert len(names) == 24
    assert [name[:2] for name in names[:12]] == [name[:2] for name in names[12:]]
    assert {name[2] for name in names[:12]} == {"a"}


def test_partners_are_alike_and_others_are_not():
    masks = load_objects("novel", size=32).masks.reshape(24, -1).astype(float)
    similarity = np.corrcoef(masks)
    partners = similarity[range(12), range(12, 24)]
    others = similarity[
        ~np.eye(24, dtype=bool) & (np.arange(24)[:, None] % 12 != np.arange(24) % 12)
    ]
    assert partners.max() < 0.97
    assert np.median(partners) > np.quantile(others, 0.9)


def test_objects_are_grey_shaded_and_inside(objects):
    assert (objects.images == objects.images[..., :1]).all()
    for image, mask in zip(objects.images, objects.masks, strict=True):
        levels = image[mask > 200]
        assert levels.min() >= 50
        assert np.ptp(levels.astype(int)) > 60
        assert 0.1 < (mask > 127).mean() < 0.7
        rim = np.ones_like(mask, bool)
        rim[1:-1, 1:-1] = False
        assert mask[rim].max() < 200


def test_a_sphere_is_a_disc_lit_from_the_light():
    images, masks = render(SPHERE, [View(0, 0, 0, light=(60, 0))], 40)
    assert abs((masks > 127).sum() - np.pi * 18**2) < 80
    left, right = images[0, 20, 6], images[0, 20, 33]
    assert left > right + 50
    assert abs(int(images[0, 8, 20]) - int(images[0, 31, 20])) <= 3


def test_rotations_turn_as_named():
    horn = Solid((*SPHERE.parts, Volume("horn", (0, 0.4, 0), (0.6, 0.1, 0.1))))

    def middle(view):
        masks = render(horn, [view], 40)[1]
        ys, xs = np.nonzero(masks[0] > 127)
        widths = [np.ptp(xs[ys == y]) for y in np.unique(ys)]
        return np.ptp(ys) - np.ptp(xs), np.argmax(widths) / len(widths)

    upright, widest = middle(View(0, 0, 0))
    assert upright > 5
    assert widest > 0.5
    lying, _ = middle(View(0, 0, 90))
    assert lying < -5
    spun, _ = middle(View(90, 0, 0))
    assert abs(spun - upright) <= 1


@pytest.mark.parametrize("kind", ["ellipsoid", "block", "horn", "ring"])
def test_distances_are_negative_inside_and_never_far_too_long(kind):
    part = Volume(kind, (0.1, 0, -0.1), (0.4, 0.2, 0.15), (20, 30, 40), bend=0.5)
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (4000, 3)).astype(np.float32)
    distance = part_distance(part, points)
    assert 0.005 < (distance < 0).mean() < 0.2
    inside, outside = points[distance < 0], points[distance > 0]
    gap = np.linalg.norm(outside[:, None] - inside[None], axis=2).min(1)
    # sphere tracing must not step over the surface: distances may not exceed the real ones
    assert (0.85 * distance[distance > 0] <= gap + 0.02).all()


def test_the_identity_of_an_object_survives_the_views():
    objects = load_objects("novel", size=24, categories=12, per_category=4, seed=9)
    first = objects.masks[objects.exemplar_index == 0].reshape(12, -1).astype(float)
    rest = objects.exemplar_index > 0
    others = objects.masks[rest].reshape(-1, 24 * 24).astype(float)
    similarity = np.corrcoef(np.vstack([first, others]))[12:, :12]
    assert (similarity.argmax(1) == objects.category_index[rest]).mean() > 0.8


def test_solids_are_fixed_by_their_names():
    assert list(novel.SOLIDS)[:2] == ["01a", "02a"]
    assert novel.SOLIDS["01a"].parts[:3] == novel.SOLIDS["01b"].parts[:3]
    assert novel.SOLIDS["01a"].parts[3] != novel.SOLIDS["01b"].parts[3]
