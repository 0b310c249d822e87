"""`load_model`: a name, weights and arguments to a network ready to be measured."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torchvision.models
from torch import nn
from torch.nn.parameter import is_lazy
from torchvision.models import GoogLeNet, Inception3

from elsewhere.errors import ElsewhereError, InputError
from elsewhere.models import pretrained
from elsewhere.models.aliases import aliases
from elsewhere.models.factories import Builder, build_factory, find_factory, one_line
from elsewhere.models.generators import own_generators, seed_own_generators
from elsewhere.models.heads import name_head
from elsewhere.models.model import Model, is_compiled, uncompile, unwrap
from elsewhere.models.names import is_factory, model_registry, unknown_model
from elsewhere.models.repetition import build_twice
from elsewhere.models.restoring import copy_network
from elsewhere.models.state_files import State, choose_state
from elsewhere.models.transform import (
    STATE_IT,
    InputTransform,
    named_transform,
    own_transform,
)
from elsewhere.models.weights import fit_state, own_state, read_states, state_sha256
from elsewhere.models.zoo import initialize
from elsewhere.types import BatchDependent, Convention


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
        A name of the zoo, any classification model of torchvision, or
        ``package.module:factory`` (``path/to/file.py:factory``), where the current directory is
        importable and the factory is a class of networks or a function of that package that returns
        one. A factory's network may state its natural canvas as an attribute ``canvas_size``, px.
        A network in memory stays on its device and in its mode, and is not copied: what is trained
        of it later is seen.
    weights
        ``none`` (drawn at random), ``imagenet`` (torchvision's) or a state file, ``.pth`` or
        ``.safetensors``.
    model_args
        Keyword arguments of the network, such as ``num_classes``.
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
    if not 0 <= seed < 2**63:
        raise InputError(f"seed must be an integer from 0 to 2**63 - 1; got {seed!r}")
    states = None if weights in ("none", "imagenet") else read_states(weights)
    if state_key is not None and states is None:
        raise InputError(f"--state-key chooses within a file; weights are {weights!r}")
    random_keys: tuple[str, ...] = ()
    unrepeated: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    with _seeded(seed):
        if given is not None:
            module = _in_memory(name, given)
        elif weights == "imagenet":
            module, published, random_keys = _build_imagenet(name, arguments, partial_weights)
            if isinstance(transform, str):
                transform = named_transform(transform, module, name)
            if transform not in (None, published):
                raise InputError(
                    f"the ImageNet weights of {name} were trained with {published}; "
                    f"got {transform}; leave the input as it is"
                )
            transform = published
            classes = () if random_keys else pretrained.published_classes(pretrained.choose(name))
        elif is_factory(name):
            module, unrepeated = build_twice(lambda: _build_seeded(name, arguments, seed))
        else:
            module = build(name, arguments)
    if isinstance(transform, str):
        transform = named_transform(transform, module, name)
    notes: tuple[str, ...] = ()
    if states is not None:
        state, said = choose_state(states, own_state(module), source=weights, key=state_key)
        random_keys = fit_state(module, state, source=weights, partial=partial_weights)
        loaded = module.state_dict().keys() - set(random_keys)
        unrepeated = tuple(key for key in unrepeated if key not in loaded)
        transform, published_file, notes, classes = _input_of(
            name,
            Path(weights),
            module,
            transform,
            whole=not random_keys,
            n_classes=arguments.get("num_classes"),
        )
        notes = (*said, *notes)
        if published_file and isinstance(module, GoogLeNet | Inception3):
            # torchvision lets these turn the published input into their own
            module.transform_input = arguments.setdefault("transform_input", True)
    elif weights == "imagenet" and isinstance(module, GoogLeNet | Inception3):
        arguments.setdefault("transform_input", True)  # whoever builds it again must know
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
        arguments=arguments,
        canvas_size=_canvas_size(module),
        resting=resting,
        notes=notes,
        unrepeated=unrepeated,
        classes=classes,
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
    return assumed, (note,)


def _input_of(
    name: str,
    path: Path,
    module: nn.Module,
    stated: InputTransform | None,
    *,
    whole: bool,
    n_classes: object,
) -> tuple[InputTransform, bool, tuple[str, ...], tuple[str, ...]]:
    """Return the input of a weights file, whether it is published, what was assumed, and classes.

    The names of its classes are known of a whole file whose SHA-256 is a published one.

    Raises
    ------
    InputError
        The file is a published one, and another input was stated.
    """
    found = pretrained.recognise(name, path, whole=whole, n_classes=n_classes)
    if found is not None and stated in (None, found.transform):
        assumed = (found.note,) if found.note and stated is None else ()
        return found.transform, True, assumed, found.classes if whole else ()
    if found is not None and found.certain:
        raise InputError(
            f"the weights {path.name} are torchvision's, trained with {found.transform}; got "
            f"{stated}; leave the input as it is"
        )
    transform, notes = stated_input(f"the weights {path.name} do", "their", module, stated)
    return transform, False, notes if stated is None else (), ()


def build(name: str, arguments: Mapping[str, object]) -> nn.Module:
    """Return a new network called `name`, drawn from torch's current generator."""
    if is_factory(name):
        module = build_factory(name, arguments)
    elif _is_torchvision(name):
        module = _build_torchvision(name, arguments)
    elif name in model_registry:
        module = _call_builder(name, model_registry.get(name), arguments)
    else:
        raise unknown_model(name)
    module = uncompile(check_network(name, module)).cpu()
    # A network that is one layer would have no layer with a name.
    return module if any(True for _ in module.children()) else nn.Sequential(module)


def as_model(network: Model | nn.Module | str) -> Model:
    """Return a network as it is measured: what was loaded as it is, others as `load_model` does."""
    return network if isinstance(network, Model) else load_model(network)


def _in_memory(name: str, network: nn.Module) -> nn.Module:
    """Return a network that a program holds, without wrappers; its own parts stay as they are."""
    module = unwrap(check_network(name, network))
    if is_compiled(module):
        module = uncompile(copy_network(module))
    return module if any(True for _ in module.children()) else nn.Sequential(module)


def check_network(name: str, module: object) -> nn.Module:
    """Return a network; refuse what cannot be run, or listened to.

    Raises
    ------
    InputError
        The message says why, and what to do.
    """
    if hasattr(module, "graph_signature") or hasattr(module, "range_constraints"):
        raise InputError(
            f"{name} returned what torch.export made, which has no evaluation mode and may have "
            "one batch size; return the network that was exported, before torch.export"
        )
    if not isinstance(module, nn.Module):
        raise InputError(f"{name} returned a {type(module).__name__}; expected a torch.nn.Module")
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        raise InputError(
            f"{name} returned a TorchScript network, whose layers cannot be listened to; return "
            "the network that was scripted or traced, before torch.jit"
        )
    if any(is_lazy(tensor) for tensor in (*module.parameters(), *module.buffers())):
        raise InputError(
            f"{name} returned a network with lazy layers; run it once on an image in the factory"
        )
    state = module.state_dict().items()  # of quantised modules no tensors only
    if empty := [key for key, value in state if getattr(value, "is_meta", False)]:
        raise InputError(
            f"{name} returned a network on the device 'meta', whose weights hold no numbers "
            f"({len(empty)}, first {empty[0]}); build it on the CPU, and load its weights there"
        )
    return module


def _build_seeded(name: str, arguments: Mapping[str, object], seed: int) -> nn.Module:
    with _seeded(seed):
        return build(name, arguments)


@cache
def _torchvision_names() -> tuple[str, ...]:
    return tuple(torchvision.models.list_models(module=torchvision.models))


def _is_torchvision(name: str) -> bool:
    return name in _torchvision_names()


def _canvas_size(module: nn.Module) -> int:
    facts = getattr(module, "pretrained_cfg", None)
    if isinstance(facts, Mapping) and len(set(tuple(facts.get("input_size", ()))[-2:])) == 1:
        return int(facts["input_size"][-1])
    for attribute in ("canvas_size", "image_size"):
        size = getattr(module, attribute, None)
        if isinstance(size, int) and size > 0:
            return size
    return 224


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with own_generators():  # of the CPU only: networks are built there
        seed_own_generators(seed)
        yield


def default_arguments(name: str) -> dict[str, object]:
    """Return what a network's builder takes where nothing is given, by the names of arguments.

    Examples
    --------
    >>> default_arguments("small-cnn")["batch_norm"]
    False
    """
    builders: list[Any] = []
    if is_factory(name):
        builders = [find_factory(name)]
    elif _is_torchvision(name):
        builder = getattr(torchvision.models, name)
        builders = [_return_class(builder), builder]
    elif name in model_registry:
        builders = [model_registry.get(name)]
    found: dict[str, object] = {}
    for builder in builders:
        with contextlib.suppress(TypeError, ValueError):  # no signature can be had
            parameters = inspect.signature(builder).parameters.values()
            found |= {p.name: p.default for p in parameters if p.default is not p.empty}
    return found


# --- torchvision


def _build_torchvision(name: str, arguments: Mapping[str, object]) -> nn.Module:
    builder = getattr(torchvision.models, name)
    kind = _return_class(builder)
    _refuse_unknown(name, kind, arguments)
    inception = kind in (GoogLeNet, Inception3)
    own: dict[str, object] = {"aux_logits": False, "init_weights": False} if inception else {}
    module = _call_builder(name, builder, {**own, **arguments}, accepted=_accepted(kind))
    if inception and not arguments.get("init_weights"):
        initialize(module)
    return module


def _build_imagenet(
    name: str, arguments: Mapping[str, object], partial: bool
) -> tuple[nn.Module, InputTransform, tuple[str, ...]]:
    if not _is_torchvision(name):
        known = "vgg16, alexnet or resnet18"
        raise InputError(
            f"no ImageNet weights are published for {name}; expected a model of torchvision such "
            f"as {known}, or --weights FILE"
        )
    builder = getattr(torchvision.models, name)
    kind = _return_class(builder)
    _refuse_unknown(name, kind, arguments)
    chosen = pretrained.choose(name)
    classes = len(chosen.meta["categories"])
    other_head = arguments.get("num_classes", classes) != classes
    if other_head and not partial:
        raise InputError(
            f"the ImageNet weights of {name} have {classes} classes; got num_classes="
            f"{arguments['num_classes']!r}; leave it out, or allow partial weights "
            "(--partial-weights) for a random head"
        )
    rest = {key: value for key, value in arguments.items() if key != "num_classes"}
    with pretrained.fetching(name, chosen):
        module = _call_builder(
            name, builder, rest, accepted=_accepted(kind), weights=chosen, progress=False
        )
    transform = pretrained.published_transform(chosen)
    if not other_head:
        return module, transform, ()
    own: dict[str, object] = {}
    if kind in (GoogLeNet, Inception3):
        own["transform_input"] = True
    if isinstance(image_size := getattr(module, "image_size", None), int):
        own["image_size"] = image_size
    headless = _build_torchvision(name, {**own, **arguments})
    target = headless.state_dict()
    state: State = {
        key: value
        for key, value in module.state_dict().items()
        if key in target and value.shape == target[key].shape
    }
    random_keys = fit_state(headless, state, source=f"ImageNet weights of {name}", partial=True)
    return headless, transform, random_keys


def _return_class(builder: Builder) -> type[nn.Module] | None:
    found = inspect.signature(builder).return_annotation
    if isinstance(found, str):
        found = getattr(inspect.getmodule(inspect.unwrap(builder)), found, None)
    return found if isinstance(found, type) and issubclass(found, nn.Module) else None


def _refuse_unknown(name: str, kind: type | None, arguments: Mapping[str, object]) -> None:
    # Some constructors of torchvision swallow any keyword; builders take weights and progress.
    known = inspect.signature(kind).parameters if kind is not None else {}
    for key in arguments:
        if key in ("weights", "progress", "pretrained") or (known and key not in known):
            raise _unknown_argument(name, key, _accepted(kind))


def _accepted(kind: type | None) -> tuple[str, ...]:
    if kind is None:
        return ()
    parameters = inspect.signature(kind).parameters.values()
    return tuple(
        parameter.name
        for parameter in parameters
        if parameter.name in ("image_size", "input_size")
        or parameter.default is not inspect.Parameter.empty
    )


# --- any builder


def _call_builder(
    name: str,
    builder: Builder,
    arguments: Mapping[str, object],
    *,
    accepted: tuple[str, ...] | None = None,
    **fixed: object,
) -> nn.Module:
    if accepted is None:
        accepted = tuple(inspect.signature(builder).parameters)
        for key in arguments:
            if key not in accepted:
                raise _unknown_argument(name, key, accepted)
    try:
        return builder(**arguments, **fixed)
    except ElsewhereError:
        raise
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError, AssertionError) as error:
        if fixed and not isinstance(error, TypeError):
            raise  # about the weights, not about the arguments
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items()) or "no arguments"
        raise InputError(
            f"cannot build {name} with {given}: {one_line(error)}; "
            f"accepted arguments: {', '.join(accepted) or 'none'}"
        ) from error


def _unknown_argument(name: str, key: str, accepted: tuple[str, ...]) -> InputError:
    if key in ("weights", "pretrained"):
        return InputError(f"{name} takes no model argument {key!r}; choose with --weights")
    return InputError(
        f"{name} takes no model argument {key!r}; accepted: {', '.join(accepted) or 'none'}"
    )
