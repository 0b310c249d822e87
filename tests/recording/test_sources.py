"""Nobody looks behind a source: what clients may not ask, an engine and a source of one's own."""

import ast
import dataclasses
import functools
import time
from pathlib import Path

import numpy as np
import pytest
import xarray

import elsewhere
from elsewhere.analyzer import measure, similarity
from elsewhere.axes import Axes
from elsewhere.errors import InputError
from elsewhere.measures.blocks import DenseBlock
from elsewhere.probes.controls import ControlScene, PixelSource
from elsewhere.protocols import Block, Design, Layer, Source
from elsewhere.recording import Recorder, Sweep, plan, record
from elsewhere.recording.engines import NotApplicable, SweepEngine, engines
from elsewhere.recording.images import Images, batches_of
from elsewhere.sources import BlockSource, Selection
from elsewhere.storage import ArraySource, PartialRecording, Recording, StoredLayer

ROOT = Path(elsewhere.__file__).parent
KINDS = (
    *(Sweep, Recording, PartialRecording, ArraySource, Selection, PixelSource, BlockSource),
    *(SweepEngine, StoredLayer, Layer, DenseBlock),
)


def attributes():
    """Return what every source, layer and block has, less the names that other things have."""
    found = {name for kind in (Source, Layer, Block) for name in vars(kind) if name[0] != "_"}
    found |= {field.name for field in dataclasses.fields(Layer)}
    return found - {"name", "shape", "kind", "module", "output", "call"}


@functools.cache
def modules():
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in ROOT.rglob("*.py")}


def questions(tree):
    """Return the calls that ask of what kind something is, or whether it has what it must have."""
    names, asked = attributes(), {kind.__name__ for kind in KINDS}
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        given = node.args[1] if len(node.args) > 1 else None
        if node.func.id in ("getattr", "hasattr"):
            found = isinstance(given, ast.Constant) and given.value in names
        elif node.func.id in ("isinstance", "issubclass"):
            inner = {getattr(each, "id", getattr(each, "attr", "")) for each in ast.walk(given)}
            found = bool(inner & asked)
        else:
            continue
        if found:
            yield ast.unparse(node)


def test_no_client_asks_what_kind_a_source_or_a_layer_is():
    told = "hasattr(source, 'working_bytes') and isinstance(source, Sweep | storage.Recording)"
    assert len(list(questions(ast.parse(told + " or getattr(layer, 'keep', None)")))) == 3
    asked = {name: list(questions(tree)) for name, tree in modules().items()}
    assert {name: found for name, found in asked.items() if found} == {}


def test_one_loop_feeds_sinks():
    """Only it begins and ends sinks; a sink may hand on to a part of itself."""
    found = set()
    for name, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr == "begin":
                owner = ast.unparse(node.value)
                if not owner.startswith(("self.", "super()")):
                    found.add((name, owner))
    # a rehearsal begins what it does not go through, and so never ends it
    assert found == {
        ("sources.py", "sink"),
        ("sources.py", "each"),
        ("recording/planning.py", "takers"),
    }


@pytest.mark.parametrize("kind", KINDS[:5])
def test_sources_have_all_that_is_asked_of_them(kind):
    needed = {name for name in vars(Source) if name[0] != "_"} - {"design", "layers"}
    assert not {name for name in needed if not hasattr(kind, name)}
    assert not getattr(kind, "__abstractmethods__", None)


# --- an engine of one's own -----------------------------------------------------------------


class Single(SweepEngine):
    """Runs one image after the other, by plain hooks."""

    name, reason = "single", "for a test"

    def __init__(self, subject, conduct, *, asked):
        if not asked:
            raise NotApplicable("only who asks gets it")
        self.subject = subject

    def at(self, subject):
        return Single(subject, None, asked=True)

    def variant(self, number):
        return Single(self.subject.variants[number], None, asked=True)

    def run(self, stage, group, takers, cut):
        subject = self.subject
        images = Images(subject.model, subject.objects, subject.canvas, rows=1)
        for batch in batches_of(stage, subject.design, cut.portions, cut.skip, rows=1):
            with Recorder(subject.model.module, [layer.module for layer in group.layers]) as seen:
                subject.model.module(images.build(batch))
            for layer in group.layers:
                values = seen[layer.module]
                takers.give(DenseBlock(stage, layer.name, batch.objects, batch.positions, values))
            yield 1

    def rehearse(self, group, takers, cut):
        begin = time.perf_counter()
        done = sum(sum(self.run(stage, group, takers, cut)) for stage in takers.stages)
        return (time.perf_counter() - begin) / done


@pytest.fixture
def single(monkeypatch):
    monkeypatch.setattr(engines, "_entries", dict(engines._entries))
    engines.add("single", Single, summary="one image after the other")


def test_a_third_engine_is_registered_and_nothing_else(make_sweep, single, tmp_path):
    options = {"n": 2, "grid": "2x2", "layers": "pool1,logits"}
    sweep = make_sweep(**options, engine="single")
    assert str(sweep.choice) == "single (for a test)"
    for place in (None, (9, 11)):
        dense = make_sweep(**options)
        here, there = (s if place is None else s.at(place) for s in (sweep, dense))
        xarray.testing.assert_allclose(similarity(here), similarity(there), atol=1e-4)
        assert here.numerics["engine"] == "single"
    files = [record(each, tmp_path / f"{each.choice.name}.h5") for each in (sweep, dense)]
    with elsewhere.open(files[0]) as one, elsewhere.open(files[1]) as other:
        for name in other:
            np.testing.assert_allclose(one[name], other[name], atol=1e-4)
    assert plan(sweep).engine == "single"
    assert "only who asks gets it" in str(make_sweep(**options, engine="auto").choice)


# --- a source of one's own ------------------------------------------------------------------


class Waves(BlockSource):
    """Codes that are computed when they are asked for."""

    def __init__(self, reference=(4, 4)):
        axes = Axes.of(y=(4, 8), x=(4, 8, 12))
        self.design = Design(("a", "b", "c"), ("A", "A", "B"), axes, reference)
        self.layers = [Layer("wave", "", "", (7,))]

    @property
    def provenance(self):
        return {"model": "waves", "notes": ["made by hand"]}

    def at(self, reference):
        return Waves(reference)

    def value(self, number, place):
        return np.cos(np.arange(7) * (1 + number) + 0.1 * np.sum(place)).astype(np.float32)

    def blocks(self, layer, stage):
        places = {"empty": [(0, 0)], "reference": [self.design.reference]}
        for number in range(3) if stage != "empty" else [-1]:
            some = places.get(stage, self.design.positions)
            values = np.stack([self.value(number, place) for place in some])
            at = np.arange(len(some)) if stage == "grid" else np.full(len(some), -1)
            yield DenseBlock(stage, layer.name, np.full(len(some), number), at, values)


def test_a_source_of_ones_own_is_measured_like_arrays():
    waves = Waves()
    values = [[waves.value(n, place) for place in waves.design.positions] for n in range(3)]
    arrays = ArraySource(
        {"wave": np.reshape(values, (3, 2, 3, 7))},
        y=(4, 8), x=(4, 8, 12), objects=waves.design.objects, categories=waves.design.categories,
        empty={"wave": waves.value(-1, (0, 0))}, reference=(4, 4),
    )  # fmt: skip
    for place in ((4, 4), (8, 12)):
        one, other = (source.at(place) for source in (waves, arrays))
        xarray.testing.assert_allclose(similarity(one), similarity(other))
        rows = [3, 4, 5]
        chosen = [source.select([0, 2], rows).at((8, 4)) for source in (one, other)]
        xarray.testing.assert_allclose(*map(similarity, chosen))
        assert chosen[0].design.positions.tolist() == [[8, 4], [8, 8], [8, 12]]
    found = measure(waves, names="cosine")
    assert found.attrs["model"] == "waves"
    assert "made by hand" in found.attrs["notes"]
    with pytest.raises(InputError, match="arrays hold no pixels"):
        ControlScene.of(waves)
