"""Options: one spelling, one help text, one type and one default of each, in all commands."""

import inspect
from typing import Annotated, get_args

import pytest
import typer
from typer.testing import CliRunner

from elsewhere.cli import COMMANDS, RENAMED
from elsewhere.options import (
    CostOptions,
    ModelOptions,
    OptionGroup,
    StimulusOptions,
    option_names,
    part,
    takes,
)

SIGNATURES = {
    each.__name__: inspect.signature(takes(each)).parameters
    for panel in COMMANDS.values()
    for each in panel
}

OTHERWISE = {
    ("--out", "help"): "each command writes something else, and says what",
    ("--out", "type"): "some commands have something to say without it",
    ("--out", "default"): "some commands have something to say without it",
    ("--layers", "help"): "`figure` draws what a result has, by name",
    ("--names", "help"): "`measure` chooses measures by name, others name results",
    ("--split", "help"): "`report` splits its file, `probe` takes a split of exemplars",
    ("--split", "type"): "`report` splits its file, `probe` takes a split of exemplars",
    ("--split", "default"): "`report` splits its file, `probe` takes a split of exemplars",
    ("--trials", "help"): "`table` says of which rows its table is; elsewhere it is a file",
    ("--trials", "type"): "`table` says of which rows its table is; elsewhere it is a file",
    ("--trials", "default"): "`table` says of which rows its table is; elsewhere it is a file",
    ("--seed", "default"): "`train` takes the curriculum's own",
    ("--seed", "help"): "`figure --paper` chooses a seed's results, and draws nothing at random",
    ("--seed", "type"): "`figure --paper` chooses a seed's results, and draws nothing at random",
    ("--workers", "default"): "`reproduce` takes as many as there are cores",
    (
        "--grid",
        "default",
    ): "an accuracy goes over few locations, and sanity over few for each layer",
    ("--per-category", "default"): "an accuracy needs more exemplars than a cosine",
    ("--dtype", "default"): "maps of pixels are kept in half precision",
}
"""Where commands differ in an option, and why."""

GROUPS = (CostOptions, ModelOptions, StimulusOptions)
SWEEPING = {"layers", "plan", "record", "similarity", "measure", "probe", "attribute", "sanity"}
SWEEPING |= {"accuracy", "track"}

ONE_IMAGE = "one empty image is run: nothing is shown, and there is nothing to share"
BRINGS = "checkpoints bring their own weights and input"
MAPS = "maps lie in the frame of one object, as it is"
SHOWN = "checkpoints bring their own canvas and background"
EXACT = "attributions are computed in float32"
LACKING = {
    "layers": dict.fromkeys(
        (
            *("--engine", "--max-memory", "--workers", "--scheduler", "--objects", "--categories"),
            *("--per-category", "--grid", "--axis", "--reference", "--object-size"),
            "--background",
            *("--data-dir", "--background-color", "--background-tolerance", "--skip-broken"),
            *("--precision", "--font"),
        ),
        ONE_IMAGE,
    ),
    "probe": {"--reference": "--train-at says where probes are trained"},
    "attribute": {"--axis": MAPS, "--precision": EXACT},
    "sanity": dict.fromkeys(("--workers", "--scheduler"), "random networks are of one process")
    | {"--axis": MAPS, "--precision": EXACT},
    "accuracy": {"--reference": "an accuracy compares with no location"},
    "track": dict.fromkeys(
        (
            *("--weights", "--model-arg", "--partial-weights", "--state-key"),
            *("--input", "--input-mean", "--input-std", "--gain", "--channels"),
        ),
        BRINGS,
    )
    | dict.fromkeys(
        (
            *("--axis", "--canvas", "--object-size"),
            *("--background", "--background-color", "--background-tolerance"),
        ),
        SHOWN,
    )
    | dict.fromkeys(("--seed", "--skip-broken", "--reference"), "the run's own")
    | {"--engine": "each checkpoint takes the better one"},
}
"""Which options of a group a sweeping command does not take, and why."""


def options():
    """Yield each option of each command: its name, the command, help, type and default."""
    for command, parameters in SIGNATURES.items():
        for each in parameters.values():
            if each.annotation is typer.Context:
                continue
            kind, info = get_args(each.annotation)
            if isinstance(info, typer.models.OptionInfo):
                for name in (info.default, *(info.param_decls or ())):
                    yield name, command, {"help": info.help, "type": kind, "default": each.default}


def test_an_option_is_the_same_in_all_commands():
    first = {}
    for name, command, found in options():
        for what, value in found.items():
            known, where = first.setdefault((name, what), (value, command))
            same = value == known or (name, what) in OTHERWISE
            assert same, f"{name}, {what}: {value!r} in {command}, {known!r} in {where}"


def test_no_option_differs_only_where_a_reason_is_kept_for_it():
    values = {}
    for name, _, found in options():
        for what, value in found.items():
            values.setdefault((name, what), set()).add(repr(value))
    assert {key for key in OTHERWISE if len(values[key]) < 2} == set()


def test_no_two_options_of_a_command_have_one_text():
    texts = {}
    for name, command, found in options():
        other = texts.setdefault((command, found["help"]), name)
        same = other == name or (command, other, name) == ("figure", "--kind", "--kinds")
        assert same, f"{command}: {other} and {name} say the same"


@pytest.mark.parametrize("command", sorted(SWEEPING))
def test_what_sweeps_takes_the_groups(command):
    taken = {name for name, where, _ in options() if where == command}
    for group in GROUPS:
        every = set(option_names(group, list(group().values)))
        assert every & taken, f"{command} takes nothing of {group.__name__}"
        assert every - taken <= set(LACKING.get(command, ()))


def test_a_panel_holds_what_belongs_to_it():
    panels = {}
    for command, parameters in SIGNATURES.items():
        for each in parameters.values():
            for info in get_args(each.annotation)[1:]:
                if getattr(info, "rich_help_panel", None):
                    panels.setdefault((command, info.rich_help_panel), set()).add(info.default)
    assert "--dtype" in panels["record", "What is kept"]
    assert "--dtype" in panels["attribute", "Method"]
    assert {where for where, panel in panels if panel == "Method"} == {"attribute", "sanity"}


def test_what_is_taken_of_a_group():
    got = []

    def command(
        stimuli: Annotated[StimulusOptions, part("grid", "categories", grid="3x3")],
        cost: Annotated[CostOptions, part(without=("engine",))],
        name: Annotated[str, typer.Argument(help="A name.")],
    ) -> None:
        got.append((name, stimuli, cost))

    one = typer.Typer()
    one.command()(takes(command))
    for arguments in (["a"], ["a", "--grid", "3x3", "--threads", "2"], ["--workers=4", "a"]):
        assert CliRunner().invoke(one, arguments).exit_code == 0
    for refused in (["a", "--objects", "novel"], ["a", "--engine", "dense"], []):
        assert CliRunner().invoke(one, refused).exit_code == 2
    plain, named, shared = got
    assert (plain[1].grid, plain[1].given, plain[2].given) == ("3x3", [], [])
    assert (named[1].grid, named[1].given) == ("3x3", ["--grid"])
    assert (named[2].threads, named[2].given) == (2, ["--threads"])
    assert (shared[2].workers, shared[2].engine) == (4, "auto")
    assert plain[1] == StimulusOptions(grid="3x3", given=[])
    assert all(isinstance(group, OptionGroup) for each in got for group in each[1:])


def test_old_spellings_are_still_taken(refuse):
    known = {name for name, _, _ in options()}
    assert set(RENAMED.values()) <= known
    assert not set(RENAMED) & known
    for given in (("--exemplars", "2"), ("--exemplars=2",)):
        refuse("track", "run", *given, "--out", "t.nc", says="run")


def test_a_default_that_is_named_counts_as_given(refuse, made):
    for given in (("--grid", "stride:7"), ("--objects", "glyphs"), ("--weights", "none")):
        line = refuse("similarity", made[0], *given, "--out", "x.nc", says="would change nothing")
        assert given[0] in line
