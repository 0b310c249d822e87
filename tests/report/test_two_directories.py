"""Two directories make a comparison: the same questions, the numbers of both."""

import pytest

from elsewhere.report import check_report, write_report
from elsewhere.storage import load_result
from tests.report.conftest import fill
from tests.report.test_browser import settled, shown


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    pytest.importorskip("bokeh", reason="reports are drawn by Bokeh")
    folder = tmp_path_factory.mktemp("pair")
    folders = [fill(folder / "before", seeds=(100,)), fill(folder / "after", seeds=(101, 102))]
    return folders, write_report(folders, folder / "both.html")


def test_each_claim_has_the_verdicts_of_both(open_page, pair):
    tab = open_page(pair[1])
    table = tab.locator("#claims table", has_text="Verdict on each claim")
    heads = [text.strip() for text in table.locator("thead th").all_inner_texts()]
    assert heads == ["claim", "before", "after"]
    summaries = [load_result(each / "claims.nc").attrs["summary"] for each in pair[0]]
    for row in table.locator("tbody tr").all():
        claim, *verdicts = [text.strip() for text in row.locator("th, td").all_inner_texts()]
        assert verdicts == [summary[claim] for summary in summaries]


def test_the_explorer_has_the_numbers_of_the_directory_that_is_chosen(open_page, pair):
    tab = open_page(pair[1], "#what=full-track&measure=cosine_G&y=0&x=0&layer=2&checkpoint=2")
    for folder, seed in zip(pair[0], (100, 101), strict=True):
        tab.select_option("#choose-directory", folder.name)
        settled(tab)
        track = load_result(folder / f"seeds/{seed}/full-track.nc")
        assert shown(tab) == pytest.approx(track["cosine_G"].values[2, 2, 0, 0], abs=6e-4)
        assert tab.input_value("#choose-seed") == str(seed)


def test_the_check_takes_both_in_their_order(pair):
    folders, path = pair
    found = check_report(path, folders)
    assert found.different == ()
    assert found.equal == 100
    assert check_report(path, folders[::-1]).equal == 0
