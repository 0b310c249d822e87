"""What the classes of a network are called: read from a file, and checked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from elsewhere.errors import InputError, StorageError
from elsewhere.models import pretrained

LARGEST = 2**24
"""Bytes of a file of labels, at most."""


def read_labels(path: str | Path) -> tuple[str, ...]:
    """Return the names of a network's classes, in the order of its outputs.

    Parameters
    ----------
    path
        A text with one name a line, or, where its name ends in ``.json``, a list of names or an
        object from numbers to names, ``{"0": "tench", "1": "goldfish"}``. Where a number has
        several names, as in ``{"0": ["n01440764", "tench"]}``, the first counts.

    Raises
    ------
    StorageError
        It cannot be read.
    InputError
        It holds something else, or a name twice.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise StorageError(f"cannot read the labels {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"the labels {path} are no text in UTF-8: {error.reason}") from error
    if len(data) > LARGEST:
        raise InputError(f"the labels {path} take more than {LARGEST} bytes; expected names")
    if path.suffix == ".json":
        names = _from_json(path, text)
    else:
        names = [line.strip() for line in text.strip().splitlines()]
    if empty := [number for number, name in enumerate(names) if not name]:
        raise InputError(f"the labels {path} have no name for class {empty[0]}; give each one")
    return check_labels(names, f"the labels {path}")


def known_classes(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the classes of a network that is known by its provenance.

    They are its ``classes``, or else follow from ``model`` and ``weights``, where those are
    published ones.
    """
    if facts.get("classes"):
        return tuple(map(str, facts["classes"]))
    random = facts.get("random_keys") or facts.get("model_arguments", {}).get("num_classes")
    if facts.get("weights") != "imagenet" or random:
        return ()
    try:
        return pretrained.find(str(facts["model"])).classes
    except InputError:  # another machine's network
        return ()


def check_labels(names: Sequence[str], source: str) -> tuple[str, ...]:
    """Return names of classes; refuse none, and the same name for two.

    Raises
    ------
    InputError
        The message says which, and of which classes.
    """
    if not names:
        raise InputError(f"{source} are empty; expected one name for each class of the head")
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        numbers = [str(number) for number, each in enumerate(names) if each == name][:4]
        raise InputError(
            f"{source} call several classes {name!r} ({', '.join(numbers)}, counted from 0); give "
            "each class a name of its own"
        )
    return tuple(names)


def _from_json(path: Path, text: str) -> list[str]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the labels {path} are no JSON: {error}") from error
    if isinstance(found, Mapping):
        numbers = [str(number) for number in range(len(found))]
        if set(found) != set(numbers):
            raise InputError(
                f"the labels {path} have the keys {', '.join(list(found)[:3])}, ...; expected each "
                f"number from 0 to {len(found) - 1}"
            )
        found = [found[number] for number in numbers]
    entries = found if isinstance(found, list) else [None]
    firsts = [each[0] if isinstance(each, list) and each else each for each in entries]
    if odd := [each for each in firsts if not isinstance(each, str)]:
        raise InputError(
            f"the labels {path} hold {str(odd[0])[:40]!r} for a name; expected a list of names, or "
            "an object from numbers to names"
        )
    return [str(each).strip() for each in firsts]
