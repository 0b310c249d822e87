"""What things show of themselves in a notebook: what they are, escaped, and short."""

import html.parser
import subprocess
import sys

import numpy as np
import pytest
import xarray

import elsewhere
from elsewhere import calls, displays
from elsewhere.errors import InputError
from elsewhere.storage import save_result
from elsewhere.training import Curriculum, Network, Phase

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\x1b[2J\u202e"
VOID = {"img", "br", "hr"}
KNOWN = {"div", "strong", "details", "summary", "table", "thead", "tbody", "tr", "th", "td", "ul"}
KNOWN |= {"li", "img"}


class Reader(html.parser.HTMLParser):
    """Collects the elements and the text of a page; notices what is not closed."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.attributes, self.words, self.open = [], [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(self.words)


def read(page):
    found = Reader(page)
    assert set(found.elements) <= KNOWN
    assert {name for name, _ in found.attributes} <= {*("style", "src", "alt", "title"), *SIZES}
    assert all(v.startswith("data:image/png") for n, v in found.attributes if n == "src")
    return found


SIZES = ("width", "height", "open")


def hostile_source():
    rng = np.random.default_rng(0)
    source = elsewhere.ArraySource(
        {HOSTILE: rng.normal(size=(4, 2, 2, 5))},
        y=[5, 9],
        x=[5, 9],
        objects=[f"{HOSTILE}{n}" for n in range(4)],
        categories=[f"{n}{HOSTILE}" for n in range(4)],
    )
    source.provenance["model"] = HOSTILE
    source.provenance["notes"].append(HOSTILE)
    return source


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    objects = elsewhere.load_objects("novel", size=11, categories=14)
    sweep = elsewhere.Sweep(
        elsewhere.load_model("small-cnn"), objects, canvas=elsewhere.Canvas(48, 11), grid="2x3",
        layers="fc*,logits",
    )  # fmt: skip
    path = elsewhere.record(sweep, tmp_path_factory.mktemp("displays") / "run.h5")
    with elsewhere.open(path) as found:
        yield found, sweep


def test_a_recording_and_its_sweep(recording):
    for source, kind in zip(recording, ("Recording", "Sweep"), strict=True):
        found = read(source._repr_html_())
        assert kind in found.text
        assert {"small-cnn, weights none", "14 of 14 categories"} <= {
            word.partition(": ")[2] for word in found.words
        }
        assert [word for word in found.words if word in ("fc5", "fc6", "logits")] == [
            *("fc5", "fc6", "logits")
        ]
        assert "y: 2, " in found.text
        assert "x: 3, " in found.text
        (alt,) = (value for name, value in found.attributes if name == "alt")
        assert alt.endswith("and 2 more")
    assert repr(recording[0]).startswith("<Recording run.h5: 14 x 2 x 3, layers fc5, ")
    assert repr(recording[1]).startswith("<Sweep small-cnn: 14 x 2 x 3, layers fc5, ")
    assert "stored" in read(recording[0]._repr_html_()).text


def test_a_closed_recording_is_still_shown(recording):
    other = elsewhere.open(recording[0].path)
    other.close()
    assert "fc5" in read(other._repr_html_()).text


def test_the_thumbnail_is_of_the_objects():
    images = np.zeros((2, 8, 8, 3), np.uint8)
    images[0, ..., 0] = 255
    masks = np.full((2, 8, 8), 255, np.uint8)
    masks[1] = 0
    element = displays.thumbnail(images, masks, ["a", "b"], (0, 0, 200))
    import base64
    import io
    import re

    from PIL import Image

    data = base64.b64decode(re.search(r"base64,([^\"]+)", element)[1])
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    assert pixels.shape == (displays.SIDE, 2 * displays.SIDE, 3)
    assert (pixels[:, : displays.SIDE] == (255, 0, 0)).all()
    assert (pixels[:, displays.SIDE :] == (0, 0, 200)).all()


def test_a_model_and_a_curriculum():
    model = elsewhere.load_model("small-cnn")
    found = read(model._repr_html_())
    n = sum(each.numel() for each in model.module.parameters())
    assert f"parameters: {n:,}" in found.words
    assert "Linear" in found.words
    assert repr(model) == f"<Model small-cnn (none): {n:,} parameters, canvas 48 px>"
    curriculum = elsewhere.load_curriculum("quick/acquired")
    found = read(curriculum._repr_html_())
    assert found.words.index("pretrain") < found.words.index("digits")
    assert "3000 steps at most" in found.words
    assert "phases pretrain, glyphs, digits" in repr(curriculum)


def test_names_cannot_inject_anything():
    source = hostile_source()
    result = elsewhere.similarity(source, metric="centred")
    result["centred"].attrs["long_name"] = HOSTILE
    phase = Phase("learn", HOSTILE, categories=(HOSTILE,), steps=3)
    curriculum = Curriculum(HOSTILE, Network(HOSTILE), elsewhere.Canvas(48, 11), (phase,))
    images = np.zeros((1, 8, 8, 3), np.uint8)
    for page in (
        source._repr_html_(),
        result.elsewhere._repr_html_(),
        curriculum._repr_html_(),
        displays.thumbnail(images, images[..., 0], [HOSTILE]),
    ):
        found = read(page)  # nothing but our elements and attributes
        values = " ".join(value or "" for _, value in found.attributes)
        assert "<script>alert(1)</script>" in found.text + values
        assert not {"\x1b", "\u202e"} & set(page)
    for said in (repr(source), repr(result.elsewhere), repr(curriculum)):
        assert said.isprintable()


def test_what_is_endless_is_cut():
    assert len(displays.text("x" * 10**6)) < 400
    rows = [{"layer": n} for n in range(1000)]
    page = displays.page("A", "b", {}, rows=rows)
    assert page.count("<tr>") == 2 * (displays.MOST_ROWS + 1)  # at once, and closed
    assert "and 920 more" in page
    assert page.count("<details open>") == 1


def test_a_result_says_what_it_is_and_its_notes():
    result = elsewhere.similarity(hostile_source())
    assert repr(result.elsewhere).startswith("<similarity of ")
    assert result.elsewhere.notes == result.attrs["notes"]
    found = read(result.elsewhere._repr_html_())
    assert "cosine_G_away" in found.words
    assert "cosine_G_away_interval" not in found.words
    low, high = float(result["cosine"].min()), float(result["cosine"].max())
    assert f"{low:.3g} to {high:.3g}" in found.words


# --- result.elsewhere


def test_a_result_is_drawn_and_written_as_a_table(tmp_path):
    result = elsewhere.similarity(hostile_source())
    figure = result.elsewhere.plot("layerwise", title=False)
    assert figure.axes
    with pytest.raises(InputError, match="layerwise"):
        result.elsewhere.plot("accuracy-maps")
    table = result.elsewhere.table(variables=["cosine_G_away"])
    assert table["value"].tolist() == result["cosine_G_away"].values.tolist()
    with pytest.raises(InputError, match="no trials"):
        result.elsewhere.table(trials=True)
    # opened with xarray, attributes are texts
    save_result(result, tmp_path / "a.nc")
    with xarray.open_dataset(tmp_path / "a.nc", engine="h5netcdf") as opened:
        assert opened.elsewhere.notes == result.attrs["notes"]
        assert opened.elsewhere.plot().axes
        xarray.testing.assert_equal(opened.elsewhere._result, result)


def test_a_result_is_reported(tmp_path):
    result = elsewhere.similarity(hostile_source())
    if "report" not in calls._commands():
        with pytest.raises(InputError, match="no command report"):
            result.elsewhere.report(tmp_path / "a.html")
        return
    path = result.elsewhere.report(tmp_path / "a.html")
    assert path.read_text("utf-8").lstrip().lower().startswith("<!doctype html>")
    assert callable(elsewhere.report)  # the package of that name does not stand in its place
    assert "<script>alert(1)</script>" not in path.read_text("utf-8")


ORDERS = {
    "elsewhere first": "import elsewhere; import xarray",
    "xarray first": "import xarray; import elsewhere",
    "a part of the package": "from elsewhere.errors import InputError; import xarray",
    "looked for before": "import elsewhere, importlib.util as u; u.find_spec('xarray'); "
    "import xarray",
}


@pytest.mark.parametrize("order", ORDERS)
def test_the_accessor_is_there_whoever_is_imported_first(order):
    code = (
        f"{ORDERS[order]}; import sys; from xarray import Dataset; Dataset().elsewhere; "
        "print(*sorted({'torch', 'matplotlib', 'h5py'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == ""


def test_importing_the_package_alone_imports_no_xarray():
    code = "import elsewhere, sys; print('xarray' in sys.modules, 'numpy' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["False", "False"]


def test_a_kernel_shows_bars_and_figures():
    client = pytest.importorskip("nbclient", reason="nbclient runs notebooks")
    pytest.importorskip("ipykernel", reason="a kernel runs notebooks")
    formats = pytest.importorskip("nbformat")
    work = """
import numpy as np, elsewhere
from elsewhere.terminal import as_function, bar
source = elsewhere.ArraySource({"a": np.eye(9).reshape(3, 1, 3, 9)}, y=[5], x=[5, 7, 9])
result = elsewhere.similarity(source)
with as_function("", None), bar("training", note=True) as update:
    update(459, 1000, "loss <b>1</b>")
elsewhere.similarity(source, progress=False)
"""
    figure = "figure = elsewhere.plot_layerwise(result).figure\nfigure"
    notebook = formats.v4.new_notebook()
    notebook.cells = [formats.v4.new_code_cell(code) for code in (work, "source", figure)]
    client.NotebookClient(notebook, timeout=300).execute()
    first, second, third = (
        [each["data"] for each in cell.outputs if "data" in each] for cell in notebook.cells
    )
    bars = [each["text/html"] for each in first]
    assert len(bars) == 3  # that of similarity, ours, and the result without a bar
    assert "9/9" in bars[0]
    assert "459/1000" in bars[1]
    assert "&lt;b&gt;1&lt;/b&gt;" in bars[1]
    assert "<strong>ArraySource</strong>" in second[0]["text/html"]
    assert third[0]["image/png"].startswith("iVBOR")
