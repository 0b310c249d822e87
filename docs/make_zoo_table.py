"""Make the table of the zoo's layers anew: python docs/make_zoo_table.py."""

import json
from pathlib import Path

import elsewhere.models.zoo_table
from elsewhere.models import list_layers, load_model, model_names
from elsewhere.models.zoo_table import to_line


def main() -> None:
    """Write the layers of all networks of the zoo, each as it stands without weights."""
    table = {
        name: [to_line(layer) for layer in list_layers(load_model(name), containers=True)]
        for name in model_names()
    }
    path = Path(elsewhere.models.zoo_table.__file__).with_suffix(".json")
    path.write_text(json.dumps(table, indent=0) + "\n")


if __name__ == "__main__":
    main()
