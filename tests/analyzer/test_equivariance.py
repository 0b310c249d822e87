"""Aligned cosines: known answers on networks built to be equivariant, and a naive reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray
from torch import nn

import elsewhere
from elsewhere.analyzer.equivariance import aligned_similarity
from elsewhere.errors import ElsewhereError, LayerError, UnknownNameError
from elsewhere.models import InputTransform, Model
from elsewhere.recording import Sweep, record
from elsewhere.stimuli import Canvas, Grid, load_objects
from elsewhere.storage import open_recording
from tests.roles import similarity

CANVAS, SIZE = 32, 7


def network(*, padding_mode: str = "circular", pool: bool = False) -> Model:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts: list[nn.Module] = [
            nn.Conv2d(3, 6, 3, padding=1, padding_mode=padding_mode),
            nn.ReLU(inplace=True),
        ]
        if pool:
            parts.append(nn.MaxPool2d(2))
        parts += [nn.Conv2d(6, 5, 3, padding=1, padding_mode=padding_mode), nn.Flatten()]
        module = nn.Sequential(*parts).eval()
    return Model(
        name="equivariant",
        module=module,
        transform=InputTransform(),
        aliases={},
        weights="none",
        weights_sha256="0" * 64,
        canvas_size=CANVAS,
    )


def sweep(model: Model, grid: Grid, *, background: int = 0, n: int = 4, each: int = 1) -> Sweep:
    return Sweep(
        model,
        load_objects("glyphs", size=SIZE, categories=n, per_category=each),
        canvas=Canvas(CANVAS, SIZE, background),
        grid=grid,
        layers="*",
    )


GRID = Grid(y=(8, 12, 16, 20), x=(8, 10, 13, 20))


@pytest.mark.parametrize("background", [0, 200])
def test_equivariant_network_scores_one_after_alignment(background: int) -> None:
    source = sweep(network(), GRID, background=background)
    aligned = aligned_similarity(source)
    assert set(aligned["layer"].values) == {"0", "1", "2"}
    np.testing.assert_allclose(aligned["aligned_each"].values, 1, atol=1e-5)
    np.testing.assert_allclose(aligned["aligned_G_away"].values, 1, atol=1e-4)
    plain = similarity(source, metric="evoked").sel(layer=aligned["layer"].values)
    assert (aligned["aligned_G_away"] - plain["G_away"] > 0.5).all()


def test_alignment_needs_whole_cells_unless_told_otherwise() -> None:
    source = sweep(network(pool=True), GRID)
    exact = aligned_similarity(source, layers=["3"])
    odd = np.array([x % 2 for x in GRID.x], dtype=bool)
    assert np.isnan(exact["aligned"].values[..., odd]).all()
    np.testing.assert_allclose(exact["aligned_each"].values[..., ~odd], 1, atol=1e-5)
    assert exact["residual"].values[..., odd] == pytest.approx(0.5)
    for shift in ("nearest", "linear"):
        found = aligned_similarity(source, layers=["3"], shift=shift)
        assert np.isfinite(found["aligned_each"].values).all()
        assert (found["aligned_each"].values[..., odd] < 0.999).any()
        np.testing.assert_allclose(found["aligned_each"].values[..., ~odd], 1, atol=1e-5)


def test_against_a_naive_reference() -> None:
    """Loops over objects, positions and cells, with numbers read from a recording's arrays."""
    source = sweep(network(padding_mode="zeros"), Grid(y=(4, 16, 28), x=(4, 20)), n=3, each=2)
    y0, x0 = source.reference
    aligned = aligned_similarity(source)
    for layer in source.layers[:3]:
        maps, empty = _maps(source, layer.module)
        offset, height, width = layer.offset, layer.shape[1], layer.shape[2]
        box = [
            (i, j)
            for i in range(height)
            for j in range(width)
            if y0 - SIZE // 2 - 1 <= i + offset <= y0 - SIZE // 2 + SIZE
            and x0 - SIZE // 2 - 1 <= j + offset <= x0 - SIZE // 2 + SIZE
        ]
        for a, y in enumerate(source.grid.y):
            for b, x in enumerate(source.grid.x):
                moved = [(i, j, i + y - y0, j + x - x0) for i, j in box]
                cells = [m for m in moved if 0 <= m[2] < height and 0 <= m[3] < width]
                assert aligned["cells"].sel(layer=layer.name).values[a, b] == len(cells)
                values, cross = np.zeros(6), []
                for o in range(6):
                    there = _pick(maps[o, y0, x0] - empty, [(c[0], c[1]) for c in cells])
                    for other in range(6):
                        here = _pick(maps[other, y, x] - empty, [(c[2], c[3]) for c in cells])
                        cosine = here @ there / np.linalg.norm(here) / np.linalg.norm(there)
                        if o == other:
                            values[o] = cosine
                        elif source.design.categories[o] != source.design.categories[other]:
                            cross.append(cosine)
                found = aligned.sel(layer=layer.name).isel(y=a, x=b)
                np.testing.assert_allclose(found["aligned_each"], values, atol=1e-5)
                assert float(found["aligned_baseline"]) == pytest.approx(np.mean(cross), abs=1e-5)


def _maps(source: Sweep, module: str) -> tuple[dict[tuple[int, int, int], np.ndarray], np.ndarray]:
    stop = int(module) + 1
    part = source.model.module[:stop]
    canvas, transform = source.canvas, source.model.transform
    patches = source.objects.patches(source.color)
    places = {*((int(y), int(x)) for y, x in source.grid.locations), tuple(source.reference)}
    maps = {}
    with torch.inference_mode():
        for o in range(len(patches)):
            for place in places:
                pixels = torch.from_numpy(canvas.paste(patches[o : o + 1], [place], source.color))
                maps[o, *place] = part(transform.apply(pixels))[0].double().numpy()
        empty = part(transform.apply(torch.from_numpy(canvas.empty(source.color)[None])))[0]
    return maps, empty.double().numpy()


def _pick(values: np.ndarray, cells: list[tuple[int, int]]) -> np.ndarray:
    return np.array([values[:, i, j] for i, j in cells]).ravel()


def test_too_few_cells_in_common_are_undefined() -> None:
    canvas = Canvas(CANVAS, SIZE)
    model = network(padding_mode="zeros", pool=True)
    model.module.insert(3, nn.MaxPool2d(8))
    source = Sweep(
        model,
        load_objects("glyphs", size=SIZE, categories=3),
        canvas=canvas,
        grid=Grid(y=(3,), x=(3, 19)),
        layers="*",
    )
    found = aligned_similarity(source, layers=["3"])
    assert found["cells"].values.max() < 4
    assert np.isnan(found["aligned_each"].values).all()


def test_recorded_and_live_agree(tmp_path: object) -> None:
    source = sweep(network(padding_mode="zeros"), GRID)
    path = record(source, tmp_path / "run.h5")  # type: ignore[operator]
    live = aligned_similarity(source)
    with open_recording(path) as recording:
        stored = aligned_similarity(recording)
    for name in live.data_vars:
        np.testing.assert_allclose(live[name].values, stored[name].values, atol=1e-5)


def test_bad_input_is_refused() -> None:
    source = sweep(network(), GRID)
    with pytest.raises(LayerError, match="no feature map"):
        aligned_similarity(source, layers=["3"])
    with pytest.raises(UnknownNameError, match="nearest: nearest"):
        aligned_similarity(source, shift="nearst")  # type: ignore[arg-type]
    with pytest.raises(ElsewhereError, match="unknown layer"):
        aligned_similarity(source, layers=["nowhere"])


def test_a_recording_of_means_is_refused(tmp_path: object) -> None:
    from elsewhere.recording import parse_keeps

    source = sweep(network(), GRID)
    path = record(source, tmp_path / "run.h5", keep=parse_keeps(["*=mean"]))  # type: ignore[operator]
    with open_recording(path) as recording, pytest.raises(LayerError, match="kept as 'mean'"):
        aligned_similarity(recording)


class Mirrored(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = network(pool=True).module

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.net(images.flip(-1))
        return out


def test_why_no_layer_is_a_feature_map_is_said(wrap) -> None:
    source = sweep(wrap(Mirrored(), canvas_size=CANVAS), GRID)
    for take in (aligned_similarity, lambda source: elsewhere.measure(source, names="aligned")):
        with pytest.raises(LayerError, match=r"net.0, .*not move along with the object.*mirrors"):
            take(source)
    with pytest.raises(LayerError, match=r"none of net.4 is one .known to have channels"):
        elsewhere.measure(source, names="aligned", layers=["net.4"])


def noted(result: xarray.Dataset) -> list[str]:
    """What is said of the grid; that layer 4 is a vector is said beside it."""
    notes = [note for note in result.attrs["notes"] if note.startswith("aligned: ")]
    return [note for note in notes if "layer 4: NaN, for it is no feature map" not in note]


def test_a_layer_without_a_value_says_which_grid_would_do() -> None:
    model = network(pool=True)
    found = elsewhere.measure(sweep(model, Grid(y=(8, 15), x=(8, 11, 17))), names="aligned")
    value = found["aligned_G_away"].to_series()
    assert value[["2", "3"]].isnull().all()
    assert value[["0", "1"]].notnull().all()  # cells of 1 px
    assert len(noted(found)) == 1
    assert noted(found)[0].startswith("aligned: 2, 3: NaN, ")
    wanted = noted(found)[0].partition("take --grid ")[2]
    assert wanted == "stride:2"
    again = sweep(model, Grid.parse(wanted, Canvas(CANVAS, SIZE)))
    found = elsewhere.measure(again, names="aligned")
    assert found["aligned_G_away"].notnull().sum() == 4
    assert noted(found) == []
    one = elsewhere.measure(sweep(model, GRID, n=1, each=2), names="aligned")
    assert noted(one) == ["aligned: 0, 1, 2, 3: NaN, for all objects are of one category"]
