"""This project's code on the other nodes of a cluster: what is shipped, and where the venue's compiled kernels are.

A node may have Ray and the dependencies and not a line of ours. Ray ships the three packages by their sources, so a
venue there has no compiled kernels and makes them anew: minutes, once in the life of a Ray cluster. On a node that
has the driver's very sources at the driver's path, as the driver's own, the venue is started from there.
"""

import hashlib
import importlib.util
import os
from collections.abc import Iterable
from pathlib import Path

PACKAGES = ("exchange", "cluster", "aar_swarm")
ROOT = Path(__file__).resolve().parent.parent
ROOT_VARIABLE, DIGEST_VARIABLE = "AAR_CODE_ROOT", "AAR_CODE_DIGEST"


def shipped(strategies: Iterable[str] = ()) -> list[str]:
    """Paths that a worker needs: our packages as this process has them, and the modules of a user's own strategies.

    Args: strategies: "module:Class" each.
    """
    # Each beside the package that this module is of: shipped packages do not share a folder.
    paths = [_path_of(name) for name in PACKAGES]
    own = {strategy.partition(":")[0].partition(".")[0] for strategy in strategies} - set(PACKAGES)
    return [path for path in (*paths, *map(_path_of, sorted(own))) if path is not None]


def _path_of(name: str) -> str | None:
    spec = importlib.util.find_spec(name)
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return next(iter(spec.submodule_search_locations))
    return spec.origin


def variables() -> dict[str, str]:
    """What tells the actors of a run which code its driver has, and where."""
    return {ROOT_VARIABLE: str(ROOT), DIGEST_VARIABLE: digest()}


def venue_root() -> Path:
    """From where this node starts what is ours, as a venue, a supervisor, a trial: the driver's sources if they are
    here, all of them the same, else our own."""
    root, wanted = os.environ.get(ROOT_VARIABLE), os.environ.get(DIGEST_VARIABLE)
    if root and wanted and (Path(root) / "exchange" / "server.py").is_file() and digest(Path(root)) == wanted:
        return Path(root)
    return ROOT


def digest(root: Path | None = None) -> str:
    """Of all that a run is made of, in a directory (None: this process's): the modules of our packages as they are on
    the disk now, and the scenarios."""
    root = ROOT if root is None else root
    found = hashlib.blake2b(digest_size=16)
    for package in PACKAGES:
        for source in sorted([*(root / package).rglob("*.py"), *(root / package).rglob("scenarios/*.toml")]):
            content = source.read_bytes()
            found.update(f"{source.relative_to(root)}\0{len(content)}\0".encode() + content)
    return found.hexdigest()
