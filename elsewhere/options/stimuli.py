"""What is shown, and where."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from elsewhere.errors import InputError
from elsewhere.options.groups import OptionGroup

if TYPE_CHECKING:
    from elsewhere.models import Model
    from elsewhere.recording import Sweep


@dataclasses.dataclass(kw_only=True)
class StimulusOptions(OptionGroup):
    """What is shown, and where."""

    panel = "Stimuli"
    objects: Annotated[
        str | None,
        Option(
            "--objects",
            help="A set (`elsewhere objects`) or folder:PATH; default: glyphs, or what a "
            "checkpoint was trained on.",
        ),
    ] = None
    font: Annotated[
        Path | None,
        Option("--font", help="hangul: a font file; default: one of the system's."),
    ] = None
    categories: Annotated[
        str | None, Option("--categories", help="How many, or their names: 10 or A,B.")
    ] = None
    per_category: Annotated[int, Option("--per-category", help="Exemplars of each category.")] = 1
    grid: Annotated[str, Option("--grid", help="stride:K, NxM, all, or at:y,x;y,x.")] = "stride:7"
    axes: Annotated[
        list[str],
        Option(
            "--axis",
            help="Change the objects as well: scale=0.5:2:5, rotation=0,45,90, contrast=, blur=; "
            "repeatable.",
        ),
    ] = dataclasses.field(default_factory=list)
    reference: Annotated[
        str | None,
        Option("--reference", help="y,x, left or centre; default: leftmost of the middle row."),
    ] = None
    canvas: Annotated[
        int | None, Option("--canvas", help="Side in px; default: the network's own.")
    ] = None
    object_size: Annotated[
        int | None, Option("--object-size", help="Side in px; default: 50/224 of the canvas.")
    ] = None
    background: Annotated[
        str,
        Option("--background", help="white, grey, black, 0..255, R,G,B, #RRGGBB or mean."),
    ] = "0"
    data_dir: Annotated[
        Path | None, Option("--data-dir", help="Folder of mnist and the other sets in files.")
    ] = None
    background_color: Annotated[
        str | None, Option("--background-color", help="folder: the colour that is ground.")
    ] = None
    background_tolerance: Annotated[
        int,
        Option("--background-tolerance", help="folder: levels that ground may differ from it."),
    ] = 0
    skip_broken: Annotated[
        bool, Option("--skip-broken", help="folder: leave out broken images.")
    ] = False

    def check(self, model: str | None = None) -> None:
        """Refuse an unknown set or axis; the module of a factory may register more when loaded."""
        from elsewhere.stimuli import object_sets
        from elsewhere.stimuli.transformations import parse_axis, transformations

        later = ":" in (model or "")
        self.objects = with_font(self.objects, self.font)
        if self.objects is not None:
            self.objects = named_set(self.objects)
            name = self.objects.partition(":")[0]
            if not later or name in object_sets:
                object_sets.summary(name)
        for number, text in enumerate(self.axes):
            name, *values = text.split("=", 1)
            if ":" in name:
                name = transformations.named(name.strip())
                self.axes[number] = text = "=".join([name, *values])
            if not later or name.strip() in transformations:
                parse_axis(text)

    def build(
        self,
        name: str,
        model: Model,
        layers: list[str] | None,
        seed: int,
        engine: str,
        tokens: str = "all",
    ) -> Sweep:
        """Return the sweep of `model`, called `name`, over what is asked for.

        A checkpoint brings the canvas, the objects' size and the background it was trained with.
        """
        from elsewhere.recording import request_sweep
        from elsewhere.storage.files import is_checkpoint
        from elsewhere.training import read_card

        values = self.values
        if is_checkpoint(name):
            canvas = read_card(name).canvas
            color = ",".join(map(str, canvas.background_color(model.transform.mean)))
            own = {"canvas": canvas.size, "object_size": canvas.object_size, "background": color}
            for key, value in own.items():
                if "--" + key.replace("_", "-") not in self.given:
                    values[key] = value
        del values["font"]  # which `check` has put behind the set's name
        if self.objects is None:
            del values["objects"]
        how: dict[str, Any] = {"seed": seed, "engine": engine, "tokens": tokens}
        return request_sweep(model, layers or None, **how, **values)


def with_font(objects: str | None, font: Path | None) -> str | None:
    """Return an object set with the font that it is drawn with.

    Examples
    --------
    >>> with_font("hangul", Path("a.ttf")), with_font("glyphs", None)
    ('hangul:a.ttf', 'glyphs')
    """
    if font is None:
        return objects
    if objects not in ("hangul", f"hangul:{font}"):
        shown = "no set of objects is named" if objects is None else f"the objects are {objects!r}"
        raise InputError(f"--font is for the object set hangul, and {shown}; leave it out")
    return f"hangul:{font}"


def named_set(text: str) -> str:
    """Return the object set that `text` means: ``package.module:name`` imports the module."""
    from elsewhere.stimuli import object_sets

    before, colon, _ = text.partition(":")
    try:
        return object_sets.named(text) if colon and before not in object_sets else text
    except InputError as error:
        if isinstance(error.__cause__, ModuleNotFoundError):
            return text  # neither a set nor a module
        raise
