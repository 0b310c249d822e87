"""Make the table of the zoo's layers anew: python docs/make_zoo_table.py."""

import json
from pathlib import Path

import elsewhere.models.zoo_table
from elsewhere.models import Model, list_layers, load_model, model_names
from elsewhere.models.zoo_table import to_line


def main() -> None:
    """Write layers and names of all networks of the zoo, each as it stands without weights."""
    models = {name: load_model(name) for name in model_names()}
    table = {
        name: [to_line(layer) for layer in list_layers(model, containers=True)]
        for name, model in models.items()
    }
    names = {
        name: " ".join(dict.fromkeys([*model.aliases, *filter(None, parts(model)), "logits"]))
        for name, model in models.items()
    }
    path = Path(elsewhere.models.zoo_table.__file__).with_suffix(".json")
    path.write_text(json.dumps(table, indent=0) + "\n")
    path.with_name("zoo_layers.json").write_text(json.dumps(names, indent=0) + "\n")


def parts(model: Model) -> list[str]:
    """Return the names of a network's modules."""
    return [name for name, _ in model.module.named_modules()]


if __name__ == "__main__":
    main()
