"""What a report is made of: arrays, files, numbers and their checks; hostile names."""

import base64
import hashlib
import html
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import elsewhere
from elsewhere.errors import ExistsError, InputError, StorageError
from elsewhere.report import check_report, thinning, write_report
from elsewhere.report.checking import _Page
from elsewhere.report.material import gather
from elsewhere.report.packing import error_at, pack, unpack
from elsewhere.report.recomputing import recomputed
from elsewhere.report.story import fitting
from elsewhere.storage import load_result, save_result
from tests.report.conftest import measured

VALUES = st.floats(-1e6, 1e6) | st.sampled_from([np.nan, np.inf, -np.inf])


@given(arrays.arrays(np.float64, arrays.array_shapes(max_dims=3, max_side=5), elements=VALUES))
def test_packed_values_are_as_near_as_is_said(values):
    packed = pack(values)
    back = unpack(packed)
    finite = np.isfinite(values)
    assert np.array_equal(back[~finite], values[~finite], equal_nan=True)
    off = np.abs(back[finite] - values[finite]).max(initial=0.0)
    assert off == pytest.approx(packed.error)
    span = np.ptp(values[finite]) if finite.any() else 0.0
    assert packed.error <= 0.51 * span / 65532 + 1e-9


@given(arrays.arrays(np.float64, 6, elements=st.floats(width=64) | VALUES))
def test_values_of_any_size_are_as_near_as_is_said(values):
    packed = pack(values, lost=1e-3)
    back, facts = unpack(packed), packed.facts()
    finite = np.isfinite(values)
    assert np.array_equal(back[~finite], values[~finite], equal_nan=True)
    for one, other in zip(values[finite], back[finite], strict=True):
        assert abs(one - other) <= error_at(facts, one) * (1 + 1e-9) + 1e-12 * abs(one)
        if one and np.count_nonzero(values[finite]) == 1:
            assert other == pytest.approx(one, rel=1e-3)


def test_one_huge_value_does_not_coarsen_the_others(tmp_path, open_page):
    pytest.importorskip("bokeh", reason="reports are drawn by Bokeh")
    result = measured(0.6)
    result["cosine_G"][0, 0, 0] = 1e30
    result["cosine_each"][0, 0, 0, 0] = 1e200  # beyond 32 bits
    save_result(result, tmp_path / "sim.nc")
    path = write_report([tmp_path], tmp_path / "report.html")
    tab = open_page(path, "#measure=cosine_G&y=1&x=1&layer=1")
    read = tab.inner_text("#readout")
    assert f"{result['cosine_G'].values[1, 1, 1]:.3f}".replace("-", "\u2212") in read
    tab.click("#evidence-here > summary")
    assert "error of the page's rounding" in tab.inner_text("#source")
    tab.select_option("#choose-measure", "cosine_each")
    tab.evaluate("new Promise(done => setTimeout(done, 300))")
    each = result["cosine_each"].isel(layer=1, object=0, y=1, x=1).item()
    assert f"{each:.3f}" in tab.inner_text("#readout")
    found = check_report(path, [tmp_path], numbers=300)
    assert [line for line in found.different if "computed anew" not in line] == []


@given(arrays.arrays(np.int32, 7, elements=st.integers(-30_000, 30_000)))
def test_whole_numbers_stay_what_they_are(values):
    assert np.array_equal(unpack(pack(values)), values)


def test_files_of_single_checkpoints_and_links_are_left_out(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "copy")
    source = tmp_path / "copy/seeds/100/full-track.nc"
    (tmp_path / "copy/track").mkdir()
    shutil.copy(source, tmp_path / "copy/track/learn-0000010-0123456789abcdef.nc")
    (tmp_path / "copy/link.nc").symlink_to(source)
    (tmp_path / "copy/broken.nc").write_bytes(b"no result")
    found = gather([tmp_path / "copy"])
    assert len(found.items) == 7
    assert len(found.problems) == 1
    assert "broken.nc" in found.problems[0]


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda here: [], InputError, "no directory"),
        (lambda here: [here / "missing"], StorageError, "not a directory"),
        (lambda here: [here], InputError, "no result is there"),
        (lambda here: [here, here], InputError, "twice"),
    ],
)
def test_directories_that_cannot_be_reported_are_refused(tmp_path, make, error, words):
    with pytest.raises(error, match=words):
        gather(make(tmp_path))


def test_an_existing_file_is_kept(page, runs):
    before = page.read_bytes()
    with pytest.raises(ExistsError):
        write_report([runs], page)
    assert page.read_bytes() == before


def test_a_page_that_would_be_too_large_is_thinned_and_says_so(
    runs, page, tmp_path, monkeypatch, open_page
):
    def pages(path):
        read = _Page()
        read.feed(path.read_text())
        files = json.loads(read.texts["catalogue"])["files"]
        return files, {name for name in read.texts if name.startswith("block-")}

    before, blocks = pages(page)
    # So large that one seed of the two has to be thinned, and not the other.
    monkeypatch.setattr(thinning, "FEW_BYTES", sum(map(len, _texts(page))) - 100)
    small = write_report([runs], tmp_path / "small.html")
    after, fewer = pages(small)
    assert fewer < blocks
    thinned = [file for file in after if "too large" in " ".join(file["notes"])]
    assert thinned
    assert {file["seed"] for file in thinned} == {"101"}
    for file, whole in zip(after, before, strict=True):
        gone = {each["name"] for each in whole["fields"]} - {
            each["name"] for each in file["fields"]
        }
        assert gone == ({"cosine_each"} if file in thinned else set())
    assert check_report(small, [runs]).equal == 100
    tab = open_page(small, f"#what={thinned[0]['what']}&seed=101")
    assert "left out of this page" in tab.inner_text("#notes")


def _texts(page):
    read = _Page()
    read.feed(page.read_text())
    return [text for name, text in read.texts.items() if name.startswith("block-")]


def test_results_that_lack_what_is_expected_are_left_out_and_named(runs, tmp_path):
    """As of other versions: whatever one variable or attribute is gone, the others are told."""
    claims, track = (load_result(runs / name) for name in ("claims.nc", "seeds/100/full-track.nc"))
    save_result(measured(0.5), tmp_path / "sound.nc")
    save_result(claims.drop_vars("counts"), tmp_path / "claims.nc")
    save_result(track.drop_vars("step"), tmp_path / "track.nc")
    for number, name in enumerate(claims.variables):
        save_result(claims.drop_vars(name), tmp_path / f"claims{number}.nc")
    for number, key in enumerate(track.attrs):
        attrs = {name: value for name, value in track.attrs.items() if name != key}
        save_result(track.assign_attrs(attrs), tmp_path / f"track{number}.nc")
    found = fitting(gather([tmp_path]))
    assert [item.number for item in found.items] == [*range(len(found.items))]
    problems = " ".join(found.problems)
    assert "claims.nc in" in problems
    assert "it is not as this version writes results (KeyError" in problems
    assert "sound.nc" not in problems
    for path in tmp_path.iterdir():
        if path.stem not in ("sound", "claims", "track"):
            path.unlink()
    path = write_report([tmp_path], tmp_path / "report.html")
    assert "claims.nc in" in path.read_text()
    assert check_report(path, [tmp_path]).different == ()


def test_a_page_without_an_explorer_says_where_its_numbers_come_from(runs, tmp_path, open_page):
    pytest.importorskip("bokeh", reason="reports are drawn by Bokeh")
    shutil.copy(runs / "claims.nc", tmp_path)
    tab = open_page(write_report([tmp_path], tmp_path / "report.html"))
    assert tab.locator("#explorer").count() == 0
    tab.locator("button.number").first.click()
    assert "claims.nc in" in tab.inner_text("#evidence")


# --- the check --------------------------------------------------------------------------------


def test_every_number_of_a_report_is_equal_to_the_data(page, runs):
    found = check_report(page, [runs], numbers=300)
    assert found.different == ()
    assert found.equal == found.drawn == 300
    assert found.computed > 30


def test_a_number_that_was_changed_in_the_page_is_found(page, runs, tmp_path):
    text = page.read_text()
    mark = "&#34;exact&#34;: "
    assert mark in text
    forged = re.sub(f"{re.escape(mark)}-?[0-9.e-]+", f"{mark}0.123456", text)
    (tmp_path / "forged.html").write_text(forged)
    found = check_report(tmp_path / "forged.html", [runs])
    assert found.equal < found.drawn
    assert "0.123456 on the page" in found.different[0]


def test_a_file_that_was_changed_is_found(page, runs, tmp_path):
    shutil.copytree(runs, tmp_path / "data")
    path = tmp_path / "data/seeds/100/full-track.nc"
    save_result(load_result(path).assign_attrs(extra=1), path, overwrite=True)
    (tmp_path / "data/claims.nc").unlink()
    found = check_report(page, [tmp_path / "data"], numbers=200)
    told = " ".join(found.different)
    assert "other bytes" in told
    assert "is missing" in told


def test_a_result_that_contradicts_itself_is_found(runs, tmp_path):
    (tmp_path / "data").mkdir()
    result = measured(0.5)
    result["cosine"] = result["cosine"] + 0.1  # no longer the mean over objects
    save_result(result, tmp_path / "data/sim.nc")
    path = write_report([tmp_path / "data"], tmp_path / "report.html")
    found = check_report(path, [tmp_path / "data"], numbers=200)
    assert any("computed anew" in line for line in found.different)


def test_accuracies_of_probes_are_computed_anew(recorded, tmp_path):
    probed = elsewhere.probe(str(recorded / "run.h5"), controls="none")
    save_result(probed, tmp_path / "probe.nc")
    accuracy = probed["accuracy"]
    for at in np.ndindex(accuracy.shape):
        found = recomputed(probed, "accuracy", dict(zip(accuracy.dims, at, strict=True)))
        assert found == pytest.approx(float(accuracy.values[at]), nan_ok=True)
    path = write_report([tmp_path], tmp_path / "report.html")
    found = check_report(path, [tmp_path])
    assert found.different == ()
    assert found.computed > 0


@pytest.mark.parametrize("text", ["", "<p>no report</p>", '<script id="catalogue">[]</script>'])
def test_what_is_no_report_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "page.html").write_text(text)
    with pytest.raises(InputError, match="cannot be read as a report") as raised:
        check_report(tmp_path / "page.html", [tmp_path])
    assert "\n" not in str(raised.value)


# --- what comes from users --------------------------------------------------------------------

HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'; alert(1) //",
    "<!--<script>",
    "{{ 7 * 7 }}",
    "\u2028]]>&lt;b&gt;",
)


@pytest.fixture(scope="session")
def hostile(tmp_path_factory):
    """A report in which every name is an attack."""
    pytest.importorskip("bokeh", reason="reports are drawn by Bokeh")
    folder = tmp_path_factory.mktemp("hostile") / "a<b>&'\"c"
    folder.mkdir()
    result = measured(0.6, run=HOSTILE[0], seed=3, model=HOSTILE[1], notes=list(HOSTILE))
    names = {dim: list(map(str, result[dim].values)) for dim in ("layer", "object")}
    names["layer"] = [f"{name}{HOSTILE[n]}" for n, name in enumerate(names["layer"])]
    names["object"] = [f"{name}{HOSTILE[n]}" for n, name in enumerate(names["object"])]
    result = result.assign_coords(
        names | {"category": ("object", names["object"]), "left_out": names["object"]}
    ).assign_attrs(command=HOSTILE[0], object_set=HOSTILE[3])
    for variable in result.data_vars.values():
        variable.attrs["long_name"] = HOSTILE[1]
    save_result(result, folder / "x'<svg onload=alert(1)>.nc")
    return write_report([folder], folder.parent / "hostile.html", title=HOSTILE[0])


def test_names_of_users_stay_text(hostile):
    whole = hostile.read_text()
    page = _Page()
    page.feed(whole)
    json.loads(page.texts["catalogue"])
    text = re.sub(r"<script>.*?</script>", "", whole, flags=re.DOTALL)  # Bokeh's, and ours
    tags = re.findall(r"<\s*(script|img|svg|iframe|object|embed|link|base)\b[^>]*>", text)
    known = sum(f"<{tag}" in text for tag in ("iframe", "object ", "embed", "link", "base"))
    assert known == 0
    assert "svg" not in tags
    assert len(re.findall(r"<script\b", text)) == text.count("</script>")
    for attack in HOSTILE[:2]:
        assert attack not in text
        assert html.escape(attack, quote=True).replace("&quot;", "&#34;")[:12] in text


def test_nothing_of_a_hostile_report_runs(open_page, hostile):
    tab = open_page(hostile)
    assert tab.title().startswith("</script>")
    tab.click("#numbers > summary")
    tab.locator("button.number").first.focus()
    assert tab.locator("img:not(figure img):not(#stage img)").count() == 0
    assert HOSTILE[0] in tab.inner_text("#evidence")


def test_names_that_every_object_of_javascript_has_and_very_long_ones_are_only_names(
    open_page, tmp_path
):
    pytest.importorskip("bokeh", reason="reports are drawn by Bokeh")
    result = measured(0.6)
    layers = [f"a.module.in.many.others.{'inner.' * 20}{n}" for n in range(3)]
    objects = ["constructor", "__proto__", "toString", "hasOwnProperty", "valueOf"]
    result = result.assign_coords(layer=layers, object=objects)
    save_result(result.assign_attrs(run="9" * 300), tmp_path / "sim.nc")
    tab = open_page(write_report([tmp_path], tmp_path / "named.html"))
    assert tab.locator("#stage [role=gridcell] img").get_attribute("src") is None
    check_names_fit(tab)


LABELS = "[...explorer.charts.named('layer-x').major_label_overrides.values()]"
TITLES = "explorer.charts.named('titles').data.text"


def check_names_fit(tab):
    """Check that names of layers beside axes and above maps have room in this browser."""
    widths = """(texts, size) => {
      const pen = document.createElement("canvas").getContext("2d");
      pen.font = `${size}px helvetica`;
      return texts.flatMap((text) => text.split("\\n")).map((line) => pen.measureText(line).width);
    }"""
    labels = tab.evaluate(f"({widths})({LABELS}, 11)")
    assert len(labels) == 3
    assert max(labels) <= 120
    titles = tab.evaluate(f"({widths})({TITLES}, 13)")
    assert len(titles) == 6  # a name and a value each
    assert max(titles) <= tab.evaluate("explorer.charts.unit")
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


TURNED = "\u202e"
STRANGE = (
    f"fc{TURNED}0.1 ,",  # what stands behind it would be read from right to left
    "\u5c42" * 60,  # wide signs
    "a\nb\tc\x07\u200b" + "e\u0301\u0323" * 40,
)


@pytest.mark.parametrize("width", [390, 1280])
def test_names_in_other_scripts_or_that_steer_are_only_names(open_page, tmp_path, width):
    pytest.importorskip("bokeh", reason="reports are drawn by Bokeh")
    folder = tmp_path / "caf\udce9"  # no UTF-8, as disks have it
    folder.mkdir()
    result = measured(0.6, model=STRANGE[0], run=STRANGE[2], notes=[STRANGE[0]])
    names = [f"{name}{n}" for n, name in enumerate((*STRANGE, TURNED, "\u05d0\u05d1"))]
    result = result.assign_coords(
        layer=names[:3], object=names, left_out=names, category=("object", names)
    )
    save_result(result, folder / f"x\udcff{TURNED}.nc")
    path = write_report([folder], tmp_path / "named.html", title=STRANGE[0])
    assert TURNED not in path.read_text()
    assert check_report(path, [folder]).different == ()
    tab = open_page(path, width=width)
    assert "U+202E" in tab.inner_text("h1")
    check_names_fit(tab)
    tab.locator("button.number").first.focus()
    assert "xU+DCFFU+202E.nc" in tab.inner_text("#evidence")


def test_a_recording_says_how_many_objects_it_has(any_reference, recorded):
    row = re.search(r"<tr>(?:(?!</tr>).)*glyphs(?:(?!</tr>).)*</tr>", any_reference.read_text())
    assert "glyphs (6 objects)" in row[0]
    (found,) = gather([recorded]).recordings
    assert found.sizes == {"y": 3, "x": 4, "object": 6}


def test_the_policy_forbids_the_network_and_all_scripts_but_its_own(page):
    text = page.read_text()
    policy = html.unescape(re.search(r'Policy" content="([^"]*)"', text)[1])
    assert policy.startswith("default-src 'none'")
    assert "connect-src" not in policy  # default-src has the word
    assert "unsafe-eval" not in policy
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(scripts) == 2
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


def test_it_is_served_on_this_computer_only(page):
    from elsewhere.report.serving import make_server

    server = make_server({"index.html": page.read_bytes()})
    assert server.server_address[0] == "127.0.0.1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        with urllib.request.urlopen(f"{address}/") as answer:
            assert answer.read() == page.read_bytes()
        rebound = urllib.request.Request(f"{address}/", headers={"Host": "evil.example:80"})
        for wrong in (f"{address}/etc/passwd", rebound):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(wrong)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def catalogue_of(data):
    read = _Page()
    read.feed(data.decode())
    return json.loads(read.texts["catalogue"])


def test_the_command_serves_on_this_computer_only_until_it_is_interrupted(page, runs):
    """In a process of its own: other addresses of this computer are not answered, either."""
    line = [
        sys.executable,
        "-m",
        "elsewhere",
        "report",
        str(runs),
        "--serve",
        "--title",
        "Two seeds",
    ]
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            address = server.stdout.readline().strip()
            port = int(re.fullmatch(r"http://127\.0\.0\.1:(\d+)/", address)[1])
            with urllib.request.urlopen(address) as answer:
                assert catalogue_of(answer.read()) == catalogue_of(page.read_bytes())
            for other in ("127.0.0.2", socket.gethostbyname(socket.gethostname()), "::1"):
                if other != "127.0.0.1":
                    with pytest.raises(OSError, match="refused|ddress|family|reach"):
                        socket.create_connection((other, port), timeout=60).close()
        finally:
            server.send_signal(signal.SIGINT)
        said = server.communicate(timeout=300)[1]
    assert "Traceback" not in said
