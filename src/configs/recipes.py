"""The recipes that come with the package, by name."""

from __future__ import annotations

from pathlib import Path
from typing import List

from ..errors import UserError, suggestion

_FOLDER = Path(__file__).resolve().parent


def list_recipes() -> List[str]:
    """Names of all recipes, sorted: the file names without `.yaml`."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def recipe(name: str) -> Path:
    """The file of a recipe, for `parse_args(["--config", str(recipe(name))])`.

    Raises:
        UserError: unknown name (near ones are listed).
    """
    path = _FOLDER / f"{name}.yaml"
    if path.stem == name and path.is_file():
        return path
    hint = suggestion(name, list_recipes(), "list_recipes() names all", most=3)
    raise UserError(f"recipe {name!r}: no such recipe; {hint}")
