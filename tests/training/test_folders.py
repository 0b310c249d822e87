"""Folders of curricula: what they share stands once, and errors name the file that is wrong."""

import dataclasses
import shutil

import pytest

from elsewhere.errors import CurriculumError, InputError, StorageError, UnknownNameError
from elsewhere.training import load_curriculum, presets, scales
from elsewhere.training.folders import Folder

SHARED = """
[network]
name = "small-cnn"
arguments = { hidden = 16 }
gain = 6.0

[canvas]
size = 20
object_size = 5
"""
FULL = """
[[phase]]
name = "pretrain"
objects = "glyphs"
categories = 6
steps = 12
batch = 8
"""
VANILLA = """
[common]
environment = "one:seed"
steps = 4
new_head = true
after = "none"

[[phase]]
name = "first"
objects = "glyphs"
categories = { count = 3, skip = 300 }

[[phase]]
name = "second"
objects = "digits"
categories = { count = 3 }
steps = 5
"""
ACQUIRED = """
start = "full"
phases = "vanilla"
"""


@pytest.fixture
def folder(tmp_path):
    """Return a function that writes files of a folder and returns its path."""
    path = tmp_path / "mine"
    path.mkdir()

    def write(**files):
        given = {"scale": SHARED, "full": FULL, "vanilla": VANILLA, "acquired": ACQUIRED} | files
        for name, text in given.items():
            (path / f"{name.replace('_', '-')}.toml").write_text(text)
        return path

    return write


def test_what_is_shared_stands_once(folder):
    path = folder()
    full, vanilla = (load_curriculum(path / name) for name in ("full", "vanilla.toml"))
    assert full.network == vanilla.network
    assert (full.network.arguments, full.canvas.size) == ({"hidden": 16}, 20)
    assert [(phase.name, phase.steps) for phase in vanilla.phases] == [("first", 4), ("second", 5)]
    assert {phase.environment for phase in vanilla.phases} == {"one:seed"}


def test_a_curriculum_begins_with_another_one(folder):
    path = folder()
    whole = load_curriculum(path / "acquired")
    assert [phase.name for phase in whole.phases] == ["pretrain", "first", "second"]
    # each starts from what the first part ended with, as it would from weights that are given
    assert [phase.after for phase in whole.phases] == [None, "pretrain", "pretrain"]
    part = Folder.open(path).read("acquired")
    assert part.start == "full"
    assert part.curriculum.phases == load_curriculum(path / "vanilla").phases
    two = folder(
        more='start = "acquired"\n[[phase]]\nlike = "vanilla.first"\nname = "third"\n'
        "categories = { count = 2, skip = 310 }\n"
    )
    third = load_curriculum(two / "more").phases
    assert [phase.name for phase in third] == ["pretrain", "first", "second", "third"]
    assert third[-1].after == "second"


def test_phases_are_taken_over_and_changed(folder):
    path = folder(
        other='[[phase]]\nlike = "vanilla.second"\nname = "learn"\nsteps = 7\n\n'
        '[[phase]]\nlike = "learn"\nname = "again"\nenvironment = "full"\n',
        packaged='[[phase]]\nlike = "laptop/full.pretrain"\nsteps = 5000\ncheckpoints = []\n',
        centre='phases = "vanilla"\n[common]\nenvironment = "centre"\n'
        "[network]\ngain = 1.0\n[canvas]\nobject_size = 7\n",
        another='phases = "full"\n[network]\nname = "vgg16-slim"\n',
    )
    learn, again = load_curriculum(path / "other").phases
    assert (learn.objects, learn.steps, learn.environment) == ("digits", 7, "one:seed")
    assert dataclasses.replace(again, name="learn", environment="one:seed") == learn
    (phase,) = load_curriculum(path / "packaged").phases
    (origin,) = load_curriculum("laptop/full").phases
    assert dataclasses.replace(origin, steps=5000, checkpoints=()) == phase
    centre = load_curriculum(path / "centre")
    assert {phase.environment for phase in centre.phases} == {"centre"}
    assert (centre.network.gain, centre.network.name) == (1.0, "small-cnn")
    assert (centre.canvas.size, centre.canvas.object_size) == (20, 7)
    # a network that is named stands alone: the other one's arguments are not its own
    assert load_curriculum(path / "another").network.arguments == {}


def test_a_folder_is_like_one_of_the_package(folder):
    text = VANILLA.replace('"first"', '"glyphs"').replace('"second"', '"digits"')
    path = folder(scale='like = "laptop"\n' + SHARED, vanilla=text)
    own = Folder.open(path)
    assert set(own.names()) >= {"full", "near", "translated"}
    near = load_curriculum(path / "near")
    assert near.network.arguments == {"hidden": 16}
    # what it takes over refers to its own files first
    assert near.phases[0].steps == 12


def test_one_file_asks_the_same_of_another_network(tmp_path):
    (tmp_path / "scale.toml").write_text(
        'like = "laptop"\n[network]\nname = "resnet18"\n[every_phase]\ndropout = 0.0\nbatch = 8\n'
    )
    names = Folder.open(tmp_path).names()
    assert set(names) == {name.partition("/")[2] for name in presets if name.startswith("laptop")}
    for name in ("acquired", "near"):
        curriculum, origin = load_curriculum(tmp_path / name), load_curriculum(f"laptop/{name}")
        assert curriculum.network.name == "resnet18"
        assert {(phase.batch, phase.dropout) for phase in curriculum.phases} == {(8, 0.0)}
        assert [p.steps for p in curriculum.phases] == [p.steps for p in origin.phases]


def test_a_copied_scale_needs_one_change(tmp_path):
    path = shutil.copytree(scales.get("laptop"), tmp_path / "mine")
    shared = (path / "scale.toml").read_text().replace('"small-cnn"', '"vgg16-slim"')
    (path / "scale.toml").write_text(shared)
    for name in ("acquired", "near", "fixed-learning"):
        assert load_curriculum(path / name).network.name == "vgg16-slim"
        assert load_curriculum(path / name).phases == load_curriculum(f"laptop/{name}").phases


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("vanilla", VANILLA + "stepz = 1\n", r"vanilla\.toml, line 18: .*'stepz'"),
        ("full", FULL.replace("steps = 12", "steps = 0"), r"full\.toml, line 6: .*steps"),
        ("acquired", 'start = "ful"\nphases = "vanilla"\n', r"line 1: start: .*nearest: full"),
        ("acquired", 'start = "full"\nphases = "vanila"\n', r"line 2: phases: .*nearest: vanilla"),
        ("acquired", 'start = "acquired"\nphases = "vanilla"\n', "starts with acquired in the end"),
        ("vanilla", 'phases = "acquired"\n', "takes vanilla over itself|takes acquired over"),
        ("acquired", 'start = "../full"\nphases = "vanilla"\n', r"unknown curriculum"),
        ("acquired", 'start = "scale"\nphases = "vanilla"\n', r"unknown curriculum"),
        ("acquired", 'phases = "/etc/passwd"\n', "no scale '/etc' comes with the package"),
        ("acquired", 'phases = "laptop/nothing"\n', "unknown curriculum of laptop"),
        ("acquired", '[[phase]]\nlike = "vanilla.frist"\n', r"line 2: like: no phase 'frist'"),
        ("acquired", "[[phase]]\nlike = 3\n", "expected a text"),
        ("acquired", 'rival = "full"\nphases = "vanilla"\n', "needs a start"),
        ("acquired", ACQUIRED + '[[phase]]\nname = "x"\n', "excludes"),
        (
            "acquired",
            ACQUIRED + "[network]\ngain = 2.0\n",
            "network: is another one",
        ),
        ("acquired", ACQUIRED + 'start2 = "full"\n', r"line 4: unknown key 'start2'"),
        ("acquired", 'start = "full"\nrival = "full"\nphases = "vanilla"\n', "whichever"),
        ("acquired", "common = 3\nphases = 3\n", "expected a table"),
        ("acquired", 'network = "small-cnn"\nphases = "vanilla"\n', "network: expected a table"),
        (
            "scale",
            SHARED + "[every_phase]\nstepz = 1\n",
            r"scale\.toml, line 11: .*every_phase",
        ),
        ("scale", "every_phase = 1\n" + SHARED, r"scale\.toml, line 1: every_phase: expected"),
        ("scale", 'like = "labtop"\n', r"scale\.toml, line 1: .*no scale 'labtop'"),
    ],
)
def test_errors_name_the_file_and_the_line(folder, file, text, says):
    path = folder(**{file: text})
    with pytest.raises((CurriculumError, UnknownNameError), match=says) as caught:
        load_curriculum(path / "acquired")
    assert "\n" not in str(caught.value)


def test_what_is_no_curriculum_is_refused(folder, tmp_path):
    path = folder()
    with pytest.raises(UnknownNameError, match="nearest: full"):
        load_curriculum(path / "ful")
    with pytest.raises(CurriculumError, match="what curricula share"):
        load_curriculum(path / "scale.toml")
    with pytest.raises(StorageError, match=r"holds no scale\.toml"):
        Folder.open(tmp_path)


def test_what_a_scale_left_under_its_own_name_is_no_curriculum(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quick").mkdir()  # as `elsewhere reproduce --scale quick --out quick` leaves it
    (tmp_path / "quick" / "vanilla").write_text("no curriculum")
    assert load_curriculum("quick/vanilla").canvas.size == 48


def test_a_copy_under_a_presets_name_is_never_taken_for_it(folder, tmp_path, monkeypatch):
    shutil.move(folder(), tmp_path / "quick")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"quick/vanilla is a curriculum .*\./quick/vanilla"):
        load_curriculum("quick/vanilla")
    assert load_curriculum("./quick/vanilla").canvas.size == 20
    assert load_curriculum(tmp_path / "quick" / "vanilla").canvas.size == 20


def test_errors_in_training_name_the_line_of_the_phase(folder):
    path = folder()
    whole = load_curriculum(path / "acquired")
    # its phases stand in another file: the line is that of the key that takes them over
    assert "acquired.toml, line" in str(whole.error(("phase", 1, "steps"), "x"))
    own = 'start = "full"\n\n[[phase]]\nname = "own"\nobjects = "digits"\nsteps = 3\n'
    whole = load_curriculum(folder(own=own) / "own")
    assert "own.toml, line 6: phase own: steps" in str(whole.error(("phase", 1, "steps"), "x"))


@pytest.mark.parametrize("name", [name for name in presets if "equal-accuracy" not in name])
def test_presets_are_whole(name):
    curriculum = load_curriculum(name)
    scale, _, own = name.partition("/")
    part = Folder.open(scales.get(scale)).read(own)
    assert curriculum.phases[-len(part.curriculum.phases) :][-1].name == (
        part.curriculum.phases[-1].name
    )
    assert (part.start is None) == (len(curriculum.phases) == len(part.curriculum.phases))
