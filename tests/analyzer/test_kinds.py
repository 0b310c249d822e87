"""Every kind of result: its variables say what they are, and so does its methods section."""

import re
from pathlib import Path

import pytest
import xarray

import elsewhere.measures
from elsewhere.analyzer import describe_methods, similarity
from elsewhere.analyzer.accuracy import network_accuracy
from elsewhere.analyzer.all_measures import measure
from elsewhere.analyzer.attribution.driver import attribute
from elsewhere.analyzer.attribution.sanity import sanity
from elsewhere.analyzer.attribution.settings import AttributionSettings
from elsewhere.analyzer.attribution.timeline import attribute_checkpoints
from elsewhere.analyzer.bibliography import SOFTWARE, cited_in, to_bibtex
from elsewhere.analyzer.comparison import compare
from elsewhere.analyzer.equivariance import aligned_similarity
from elsewhere.analyzer.rdms import dissimilarity_matrices
from elsewhere.analyzer.track_summary import summarise_track
from elsewhere.analyzer.trajectories import TrackSettings, track
from elsewhere.measures import measures
from elsewhere.measures.variables import FIELDS
from elsewhere.models import load_model
from elsewhere.probes import fit_probe, probe, save_readout
from elsewhere.recording import Sweep
from elsewhere.reproduction import load_scale, to_dataset
from elsewhere.reproduction.claims import Row
from elsewhere.stimuli import Canvas, load_objects
from elsewhere.storage import load_result, save_result
from elsewhere.training import Curriculum, Exemplars, Network, Phase, train
from elsewhere.types import COMPARED

CANVAS = Canvas(16, 7)
LAYERS = ("conv1_1", "pool1", "fc3")
NAMES = [n for n in measures if measures.get(n).taken != "accuracy" and not measures.get(n).kind]


@pytest.fixture(scope="module")
def sweep():
    objects = load_objects("glyphs", size=7, categories=6, per_category=3)
    model = load_model("small-cnn", model_args={"channels": "4-8", "canvas": 16, "num_classes": 6})
    return Sweep(model, objects, canvas=CANVAS, grid="2x3", layers=LAYERS)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    phase = Phase(
        "one", "glyphs", categories=4, exemplars=Exemplars(3, 2), environment="one:3,3",
        steps=2, batch=4, checkpoints=(0,),
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("run")
    network = Network("small-cnn", arguments={"channels": "4-8", "hidden": 8})
    train(Curriculum("own", network, CANVAS, (phase,)), folder, device="cpu")
    return folder


@pytest.fixture(scope="module")
def made(sweep, run, tmp_path_factory):
    """Return a result of every kind."""
    fitted = fit_probe(sweep, "fc3")
    readout = save_readout(fitted, tmp_path_factory.mktemp("readout") / "readout.nc")
    settings = TrackSettings(
        grid="2x2", layers=("fc4",), per_category=2, probes=True, any_reference=True,
        measures=("cka", "partition"),
    )  # fmt: skip
    tracked = track(run, settings=settings)
    rows = [
        Row("C1", "II_far, vanilla", "glyphs", "same", 0.1, "<", (0.0, 0.01), True, ""),
        Row("C6", "fall", "glyphs", "same", 0.2, ">", (), True, ""),
    ]
    results = [
        similarity(sweep, metric="evoked"),
        measure(sweep, names=NAMES),
        aligned_similarity(sweep, layers=["conv1_1"]),
        probe(sweep, train_at="left", n_shuffles=1),
        probe(sweep, train_at="each", controls=("shuffled",), n_shuffles=1, layers=["fc3"]),
        network_accuracy(sweep.model, sweep.objects, CANVAS, "2x3", trained=[(3, 3)]),
        attribute(sweep, AttributionSettings(method="input-x-gradient")),
        sanity(sweep, AttributionSettings(method="saliency", target="similarity:fc3")),
        attribute_checkpoints(run, AttributionSettings(method="saliency"), grid="2x2"),
        tracked,
        summarise_track(tracked, "one"),
        dissimilarity_matrices(sweep, layers=["fc3"]),
        load_result(readout),
        to_dataset(load_scale("quick"), rows, {1: {}, 2: {}}),
    ]
    results.append(compare([results[0], similarity(sweep, metric="evoked")], ["one", "other"]))
    results.append(load_result(next((run / "track").glob("*.nc"))))
    return {result.attrs["kind"]: result for result in results}


def kinds_in_the_package():
    folder = Path(elsewhere.measures.__file__).parents[1]
    texts = [path.read_text() for path in folder.rglob("*.py") if "figures" not in path.parts]
    found = {kind for text in texts for kind in re.findall(r'^ +"kind": "([^"]+)"', text, re.M)}
    return (found | {"probe", "probe-each", "readout"}) - {"recording"}  # what a report reads, too


def test_no_kind_is_left_out(made):
    assert set(made) == kinds_in_the_package() - {"run"}


def lacking(result):
    data = {
        name: [field for field in FIELDS if not str(array.attrs.get(field, "")).strip()]
        for name, array in result.data_vars.items()
    }
    coords = {
        name: [field for field in FIELDS[:2] if not array.attrs.get(field)]
        for name, array in result.coords.items()
    }
    return {name: fields for name, fields in (data | coords).items() if fields}


def test_every_variable_says_what_it_is(made, tmp_path):
    for kind, result in made.items():
        assert not lacking(result), kind
    save_result(made["claims"], tmp_path / "claims.nc")
    kept = xarray.load_dataset(tmp_path / "claims.nc", engine="h5netcdf")
    assert not lacking(kept)


def test_sources_are_in_the_bibliography(made):
    said = {array.attrs["source"] for each in made.values() for array in each.data_vars.values()}
    for key in {key for text in said for key in text.split(", ")} - {"elsewhere"}:
        assert f"{{{key}," in to_bibtex([key], version="1")


def test_older_results_say_it_too():
    assert not lacking(load_result(Path(__file__).parents[1] / "data" / "measures-0.2.nc"))


def test_what_is_compared_has_the_same_name_in_every_kind(made):
    for kind, stem in (("similarity", "evoked"), ("measures", "cosine"), ("track", "cosine")):
        for name, words in (("", "similarity"), ("_baseline", "baseline"), ("_G", "G")):
            said = made[kind][f"{stem}{name}_away"].attrs["long_name"]
            assert said.startswith(COMPARED[words])
    said = made["attribution"]["equivariance"].attrs["long_name"]
    assert said.startswith(COMPARED["similarity"])


NETWORK = ("small-cnn (", "16 x 16 px", "The input was ", "SHA-256 of what was used", "Numerics: ")
OBJECTS = ("of the set 'glyphs', 7 px large", "(y: 2 from 3 to 12 px")
TRAINED = (
    "'own' with seed 0",
    "Phase 'one' trained 4 categories of 'glyphs' with 3 exemplars each",
)
SAID = {
    "accuracy": (*NETWORK, *OBJECTS, "The head had 6 classes", "Trained locations (y, x): (3, 3)"),
    "aligned": (*NETWORK, *OBJECTS, "moved back with the object", "mode 'exact'"),
    "attribution": (*NETWORK, *OBJECTS, "The logit of ", "by input-x-gradient [", "Captum"),
    "attribution sanity": (
        *NETWORK,
        "The target 'similarity:fc3'",
        "by saliency [",
        "randomised",
    ),
    "attribution timeline": (
        *NETWORK,
        *TRAINED,
        "by saliency [",
        "by phase one (2)",
        "the 2 checkpoints",
    ),
    "checkpoint measures": (*NETWORK[:4], "The checkpoint was that of step"),
    "claims": (
        "the scale 'quick'",
        "2 seeds (1 and 2)",
        "Condition 'vanilla': Phase",
        "below 0.1.",
    ),
    "comparison": (
        "The similarity of one and other were compared",
        "by name",
        "minus that of one",
        OBJECTS[0],
        "- evoked: ",
        "jackknife",
    ),
    "dissimilarities": (*NETWORK, *OBJECTS, "of every pair of objects", "[kriegeskorte2008]"),
    "measures": (
        *NETWORK,
        *OBJECTS,
        "- cka: ",
        "- partition: ",
        "jackknife intervals over categories",
    ),
    "probe": (
        *NETWORK,
        *OBJECTS,
        "Linear probes (logistic: multinomial",
        "objects at (y, x) =",
        "cross-validation",
    ),
    "probe-each": (*NETWORK, *OBJECTS, "at each location in turn", "labels shuffled over"),
    "readout": ("small-cnn", "A linear probe (logistic", "layer fc3", "raw units"),
    "similarity": (*NETWORK, *OBJECTS, "- evoked: ", "- G: ", "same object elsewhere"),
    "track": (
        *NETWORK,
        *OBJECTS[:1],
        *TRAINED,
        "placed at (y, x) = (3, 3)",
        "by phase one (2)",
        "up to 2 exemplars of each class of its phase",
        "similarity (cosine)",
        "the 2 checkpoints",
    ),
    "track summary": ("Of phase 'one' the onset is the first step",),
}


def test_the_methods_of_every_kind_are_complete(made, run):
    assert set(SAID) == kinds_in_the_package() - {"run"}
    lacking = {}
    for kind, result in made.items():
        said = describe_methods(result).partition("```")[0]
        parts = [part for part in (*SAID[kind], "elsewhere 0.") if part not in said]
        lacking |= {kind: (parts, said)} if parts or "None" in said else {}
    assert not lacking
    said = describe_methods(run)
    own = ("(y, x) = (3, 3)", "background (R, G, B) = (0, 0, 0)", "cross-entropy", "2 checkpoints")
    assert not [part for part in (*NETWORK, *TRAINED, *own) if part not in said], said
    assert "for 2 steps of 4 images" in said


def test_the_methods_of_every_kind_have_digests_seeds_and_what_they_cite(made):
    shown = {kind: each for kind, each in made.items() if "object_digest" in each.attrs}
    assert set(made) - set(shown) <= {"claims", "readout", "track summary"}
    for kind, result in made.items():
        said, _, sources = describe_methods(result).partition("```bibtex")
        paper = said.partition("## Notes on the numbers")[0]
        entries = set(re.findall(r"^@\w+{(\w+),", sources, re.M))
        assert all(f"[{key}]" in paper or f"{key}, " in paper or f", {key}]" in paper
                   for key in entries), (kind, entries)  # fmt: skip
        assert cited_in(paper) == entries - {SOFTWARE}, kind
        assert "year = {2026}" in sources
        for wrong in ("- 0)", "as in [", "None", "nan", "1 seeds"):
            assert wrong not in paper, (kind, wrong)
        if kind in shown:
            assert str(result.attrs["object_digest"]) in paper, kind
            if "weights_seed" in result.attrs and kind != "attribution timeline":
                assert "drawn at random (seed 0)" in paper, kind
