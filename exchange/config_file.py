"""A venue's configuration as a TOML file, for `aar exchange` and `aar control`. Each setting: docs/exchange.md."""

import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from exchange.errors import ConfigurationError
from exchange.keys import load_venue
from exchange.server import VenueConfig

_WORDS = {
    "extra_forbidden": "there is no such setting; docs/exchange.md lists them",
    "missing": "is missing; docs/exchange.md says what it is",
}


def load(path: Path) -> VenueConfig:
    """Read and check a configuration file. Paths in it are relative to its own directory; `keys` names a directory.

    Raises: ConfigurationError: one line naming the file, the setting and what to do.
    """
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}; name a configuration file, see docs/exchange.md") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: is not TOML: {error}") from None
    home = path.resolve().parent
    for name in ("directory", "keys"):
        if name in content and not isinstance(content[name], str):
            raise ConfigurationError(f"{path}: {name}: give a path, as {name} = '{name}'")
    if "directory" in content:
        content["directory"] = (home / content["directory"]).resolve()
    if "keys" in content:
        content["keys"] = load_venue(home / content["keys"])
    try:
        return VenueConfig.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        what = _WORDS.get(first["type"], first["msg"].removeprefix("Value error, "))
        raise ConfigurationError(f"{path}: {where + ': ' if where else ''}{what}") from None


def keys_directory(path: Path) -> Path | None:
    """The directory of keys that a (checked) configuration file names, or None."""
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    return path.resolve().parent / content["keys"] if "keys" in content else None
