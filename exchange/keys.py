"""Keys: who a connection is. CURVE key pairs of a venue, its accounts and its operators, as files or in memory.

Owns the directory of keys, in ZeroMQ's certificate format:

    DIR/venue.key, venue.key_secret
    DIR/accounts/7.key, 7.key_secret
    DIR/operators/alice.key, alice.key_secret

The venue needs its own secret and everybody's public keys; a participant needs its own pair and `venue.key`.
"""

import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import zmq

from exchange.errors import ConfigurationError

MAX_ACCOUNTS = 1 << 20
_VENUE, _ACCOUNTS, _OPERATORS = "venue", "accounts", "operators"
_PUBLIC, _SECRET = ".key", ".key_secret"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_OTHERS = 0o077


class ClientKeys(NamedTuple):
    """What a participant or an operator connects with. All are Z85 text, 40 characters each."""

    venue_public: str
    public: str
    secret: str

    def apply(self, socket: "zmq.Socket[Any]") -> None:
        """Make a socket a CURVE client with these keys; before it connects."""
        socket.curve_serverkey = self.venue_public.encode()
        socket.curve_publickey = self.public.encode()
        socket.curve_secretkey = self.secret.encode()


class VenueKeys(NamedTuple):
    """What a venue listens with: its own pair, and the public key of each account and operator."""

    public: str
    secret: str
    accounts: dict[int, str]
    operators: dict[str, str]


class GeneratedKeys(NamedTuple):
    """The keys of a run that hands them out itself."""

    venue: VenueKeys
    accounts: dict[int, ClientKeys]
    operators: dict[str, ClientKeys]


def parse_accounts(text: str) -> list[int]:
    """Accounts as `0-9,12`, in increasing order.

    Raises: ConfigurationError: not such a list.
    """
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,7})(?:-(\d{1,7}))?\s*", part, re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise ConfigurationError(f"accounts {text!r}: write numbers and ranges as 0-9,12")
        if last >= MAX_ACCOUNTS:
            raise ConfigurationError(f"accounts {text!r}: {last} is more than the highest account, {MAX_ACCOUNTS - 1}")
        found.update(range(first, last + 1))
    return sorted(found)


def _checked(accounts: Iterable[int], operators: Iterable[str]) -> tuple[list[int], list[str]]:
    numbers, names = list(accounts), list(operators)
    for number in numbers:
        if not 0 <= number < MAX_ACCOUNTS:
            raise ConfigurationError(f"account {number}: give numbers from 0 to {MAX_ACCOUNTS - 1}")
    for name in names:
        if not _NAME.fullmatch(name):
            raise ConfigurationError(f"operator {name!r}: use up to 64 letters, digits, - and _")
    folded = [name.casefold() for name in names]  # some file systems do not tell A from a
    if len(set(numbers)) < len(numbers) or len(set(folded)) < len(folded):
        raise ConfigurationError("accounts and operators: one is named twice")
    return numbers, names


def create(directory: Path, accounts: Iterable[int], operators: Iterable[str] = ()) -> None:
    """Make the keys' directory, or add accounts and operators to one; nothing that is there is overwritten.

    Directories can be opened by their owner alone (0700), and so can secret files (0600).

    Raises: ConfigurationError: a bad name, a key that is there already, or a directory that is something else.
    """
    from zmq.auth import create_certificates

    numbers, names = _checked(accounts, operators)
    fresh = not directory.exists()
    if not fresh and not directory.is_dir():
        raise ConfigurationError(f"{directory}: is no directory; name a new one")
    if not fresh and any(directory.iterdir()) and not (directory / (_VENUE + _SECRET)).is_file():
        raise ConfigurationError(f"{directory}: holds other things and no {_VENUE}{_SECRET}; name a new directory")
    wanted = [directory / _ACCOUNTS / str(number) for number in numbers]
    wanted += [directory / _OPERATORS / name for name in names]
    for path in wanted:
        for suffix in (_PUBLIC, _SECRET):
            if _file(path, suffix).exists():
                raise ConfigurationError(f"{_file(path, suffix)}: is there already, and keys are never overwritten")
    if not (directory / (_VENUE + _SECRET)).is_file():
        wanted.insert(0, directory / _VENUE)
    made: list[Path] = []
    try:
        for folder in (directory, directory / _ACCOUNTS, directory / _OPERATORS):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
        for path in wanted:
            made += [_file(path, _PUBLIC), _file(path, _SECRET)]
            create_certificates(path.parent, path.name)
            _file(path, _SECRET).chmod(0o600)
    except OSError as error:
        for path in made:
            path.unlink(missing_ok=True)
        if fresh:
            shutil.rmtree(directory, ignore_errors=True)
        raise ConfigurationError(f"{directory}: {error.strerror or error}; name a directory that can be made") from None


def _file(path: Path, suffix: str) -> Path:
    return path.parent / (path.name + suffix)


def _public(path: Path) -> str:
    return _read(path)[0]


def _pair(path: Path) -> tuple[str, str]:
    """The public and the secret key of a secret file that nobody else can read."""
    public, secret = _read(path)
    if path.stat().st_mode & _OTHERS:
        raise ConfigurationError(f"{path}: others can read this secret; chmod 600 it, and consider new keys")
    if secret is None or zmq.curve_public(secret.encode()) != public.encode():
        raise ConfigurationError(f"{path}: holds no secret key that fits its public key; make the keys anew")
    return public, secret


def _read(path: Path) -> tuple[str, str | None]:
    from zmq.auth import load_certificate
    from zmq.utils import z85

    try:
        keys = [None if key is None else key.decode("ascii") for key in load_certificate(path)]
        if any(key is not None and len(z85.decode(key)) != 32 for key in keys):
            raise ValueError
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or 'there is no such file'}") from None
    except (ValueError, KeyError):
        raise ConfigurationError(f"{path}: is no key file; `aar keys` makes them") from None
    public, secret = keys
    assert public is not None
    return public, secret


def load_venue(directory: Path) -> VenueKeys:
    """All that a venue needs of its directory of keys.

    Raises: ConfigurationError: a file is missing, damaged, readable by others, or one key belongs to two.
    """
    public, secret = _pair(directory / (_VENUE + _SECRET))
    accounts: dict[int, str] = {}
    for path in sorted((directory / _ACCOUNTS).glob(f"*{_PUBLIC}")):
        name = path.name.removesuffix(_PUBLIC)
        if not re.fullmatch(r"0|[1-9]\d{0,6}", name, re.ASCII) or int(name) >= MAX_ACCOUNTS:
            raise ConfigurationError(f"{path}: its name is no account's number")
        accounts[int(name)] = _public(path)
    operators: dict[str, str] = {}
    for path in sorted((directory / _OPERATORS).glob(f"*{_PUBLIC}")):
        operators[path.name.removesuffix(_PUBLIC)] = _public(path)
    owners: dict[str, str] = {public: "the venue"}
    named = [*((key, f"account {number}") for number, key in accounts.items())]
    for key, who in [*named, *((key, f"operator {name}") for name, key in operators.items())]:
        if key in owners:
            raise ConfigurationError(f"{directory}: {owners[key]} and {who} have the same key; make one of them anew")
        owners[key] = who
    return VenueKeys(public, secret, dict(sorted(accounts.items())), operators)


def load_client(directory: Path, *, account: int | None = None, operator: str | None = None) -> ClientKeys:
    """The keys of one account, or of one operator, of a whole directory.

    Raises: ConfigurationError: a file is missing, damaged or readable by others.
    """
    if (account is None) == (operator is None):
        raise ConfigurationError("keys: name an account or an operator, one of both")
    folder, name = (_ACCOUNTS, str(account)) if operator is None else (_OPERATORS, operator)
    return read_client(directory / (_VENUE + _PUBLIC), directory / folder / (name + _SECRET))


def read_client(venue_file: Path, secret_file: Path) -> ClientKeys:
    """The keys of somebody who was given `venue.key` and a secret file of its own.

    Raises: ConfigurationError: a file is missing, damaged or readable by others.
    """
    return ClientKeys(_public(venue_file), *_pair(secret_file))


def generate(accounts: Iterable[int], operators: Iterable[str] = ()) -> GeneratedKeys:
    """New keys in memory, for a run that hands them out itself. Raises: ConfigurationError: a bad name."""
    numbers, names = _checked(accounts, operators)
    public, secret = _new_pair()
    of_accounts = {number: ClientKeys(public, *_new_pair()) for number in numbers}
    of_operators = {name: ClientKeys(public, *_new_pair()) for name in names}
    venue = VenueKeys(
        public,
        secret,
        {number: keys.public for number, keys in of_accounts.items()},
        {name: keys.public for name, keys in of_operators.items()},
    )
    return GeneratedKeys(venue, of_accounts, of_operators)


def _new_pair() -> tuple[str, str]:
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()
