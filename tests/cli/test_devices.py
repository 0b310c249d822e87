"""--device names several devices: the processes that share the work have one each."""

import pytest

SWEEP = (
    "small-cnn", "--model-arg", "channels=4-8", "--model-arg", "canvas=16", "--objects", "glyphs",
    "--categories", "4", "--grid", "3x3", "--canvas", "16",
)  # fmt: skip


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--device", "cpu,cpu", "--workers", "2"), "--workers says who else shares the work"),
        (("--device", "cpu,cpu", "--scheduler", "tcp://x:1"), "--scheduler says who else"),
        (("--device", "cpu,gpu"), "unknown device 'gpu'; expected auto, cpu"),
        (("--device", "cpu,"), "unknown device ''"),
    ],
)
def test_devices_that_cannot_be_are_refused(refuse, more, said):
    refuse("record", *SWEEP, "--out", "run.h5", *more, says=said)


def test_a_recording_runs_on_no_device_yet_a_misspelt_one_is_refused(run, refuse):
    run("record", *SWEEP, "--layers", "fc*", "--out", "run.h5")
    told = "unknown device 'cudo'; expected auto, cpu, cuda, cuda:N or mps"
    for command in ("similarity", "measure --names cosine", "probe", "accuracy"):
        refuse(*command.split(), "run.h5", "--out", "result.nc", "--device", "cudo", says=told)
    run("similarity", "run.h5", "--out", "result.nc", "--device", "cuda")


def test_commands_of_one_device_say_so(refuse):
    told = "'cpu,cpu' names several devices, and this takes one"
    refuse("train", "quick/vanilla", "--out", "run", "--device", "cpu,cpu", says=told)


def test_record_with_two_devices(run, here, contents_of):
    for name, device in (("one.h5", "cpu"), ("two.h5", "cpu,cpu")):
        run("record", *SWEEP, "--out", name, "--device", device)
    assert contents_of(here / "one.h5") == contents_of(here / "two.h5")
