"""Keys: made once, never overwritten, closed to others; what is damaged is refused in one line."""

import stat
import sys

import pytest
import zmq

from aar_swarm import cli
from exchange import keys
from exchange.errors import ConfigurationError


@pytest.fixture
def made(tmp_path):
    keys.create(tmp_path / "keys", [0, 7], ["alice"])
    return tmp_path / "keys"


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_made_can_be_loaded_by_those_it_is_for(made):
    venue = keys.load_venue(made)
    assert (list(venue.accounts), list(venue.operators)) == ([0, 7], ["alice"])
    assert zmq.curve_public(venue.secret.encode()).decode() == venue.public
    seven = keys.load_client(made, account=7)
    assert (seven.venue_public, seven.public) == (venue.public, venue.accounts[7])
    assert keys.load_client(made, operator="alice").public == venue.operators["alice"]
    assert keys.read_client(made / "venue.key", made / "accounts" / "7.key_secret") == seven
    assert len({venue.public, *venue.accounts.values(), *venue.operators.values()}) == 4


def test_only_the_owner_can_read_them(made):
    for path in (made, made / "accounts", made / "operators"):
        assert mode(path) == 0o700
    secrets = list(made.rglob("*.key_secret"))
    assert len(secrets) == 4 and {mode(path) for path in secrets} == {0o600}


def test_nothing_is_overwritten_and_more_can_be_added(made):
    before = {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}
    with pytest.raises(ConfigurationError, match=r"accounts/7.key: is there already"):
        keys.create(made, [1, 7])
    assert {path: path.read_bytes() for path in made.rglob("*") if path.is_file()} == before
    keys.create(made, [1], ["bob"])
    assert {path: path.read_bytes() for path in before} == before
    assert list(keys.load_venue(made).accounts) == [0, 1, 7]


def test_a_directory_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "letter").write_text("dear")
    with pytest.raises(ConfigurationError, match="holds other things"):
        keys.create(tmp_path, [0])
    assert [path.name for path in tmp_path.iterdir()] == ["letter"]
    with pytest.raises(ConfigurationError, match="is no directory"):
        keys.create(tmp_path / "letter", [0])
    with pytest.raises(ConfigurationError, match="can be made"):
        keys.create(tmp_path / "letter" / "keys", [0])


@pytest.mark.parametrize(
    ("accounts", "operators", "message"),
    [
        ([-1], [], "account -1"),
        ([1 << 20], [], "account 1048576"),
        ([1, 1], [], "named twice"),
        ([1], ["a", "A"], "named twice"),
        ([1], ["../a"], "operator '../a'"),
        ([1], [""], "operator ''"),
    ],
)
def test_bad_names_are_refused(tmp_path, accounts, operators, message):
    with pytest.raises(ConfigurationError, match=message):
        keys.create(tmp_path / "keys", accounts, operators)
    with pytest.raises(ConfigurationError, match=message):
        keys.generate(accounts, operators)
    assert not (tmp_path / "keys").exists()


def test_account_lists_are_read(tmp_path):
    assert keys.parse_accounts("0-3, 12,2") == [0, 1, 2, 3, 12]
    for text in ("", "1,", "a", "3-1", "-1", "1-2-3", "1.5", "0-99999999", "1048576", "²"):
        with pytest.raises(ConfigurationError, match="accounts '"):
            keys.parse_accounts(text)


def test_a_secret_that_others_can_read_is_refused(made):
    (made / "accounts" / "7.key_secret").chmod(0o644)
    with pytest.raises(ConfigurationError, match="others can read this secret"):
        keys.load_client(made, account=7)


def test_a_missing_or_damaged_key_is_refused(made):
    with pytest.raises(ConfigurationError, match="9.key_secret: there is no such file"):
        keys.load_client(made, account=9)
    with pytest.raises(ConfigurationError, match="one of both"):
        keys.load_client(made)
    secret = made / "accounts" / "7.key_secret"
    whole = secret.read_text()
    other = (made / "accounts" / "0.key_secret").read_text()
    pair = other[other.index("public-key") :].splitlines()
    for damaged in ("", "curve\n", whole.replace('public-key = "', 'public-key = "~~'), 'public-key = "\xff"\n'):
        secret.write_text(damaged)
        with pytest.raises(ConfigurationError, match="7.key_secret: is no key file"):
            keys.load_client(made, account=7)
    mine = whole[whole.index("public-key") :].splitlines()
    for damaged in (mine[0], mine[0] + "\n" + pair[1]):
        secret.write_text(damaged)
        with pytest.raises(ConfigurationError, match="no secret key that fits"):
            keys.load_client(made, account=7)


def test_one_key_for_two_is_refused(made):
    (made / "accounts" / "0.key").write_bytes((made / "operators" / "alice.key").read_bytes())
    with pytest.raises(ConfigurationError, match="account 0 and operator alice have the same key"):
        keys.load_venue(made)


def test_a_file_that_names_no_account_is_refused(made):
    (made / "accounts" / "7.key").rename(made / "accounts" / "07.key")
    with pytest.raises(ConfigurationError, match="no account's number"):
        keys.load_venue(made)


def test_generated_keys_fit_each_other():
    made = keys.generate([0, 3], ["alice"])
    assert {number: client.public for number, client in made.accounts.items()} == made.venue.accounts
    assert made.operators["alice"].public == made.venue.operators["alice"]
    assert made.accounts[3].venue_public == made.venue.public
    for client in (*made.accounts.values(), *made.operators.values()):
        assert zmq.curve_public(client.secret.encode()).decode() == client.public


def test_the_command_makes_them(tmp_path, monkeypatch, capsys):
    arguments = ["aar", "keys", str(tmp_path / "keys"), "--accounts", "0-2", "--operators", "alice,bob"]
    monkeypatch.setattr(sys, "argv", arguments)
    for status, said in ((0, "3 accounts, 2 operators"), (2, "is there already")):
        with pytest.raises(SystemExit) as ended:
            cli.main()
        output, error = capsys.readouterr()
        assert ended.value.code == status and said in output + error
    assert list(keys.load_venue(tmp_path / "keys").accounts) == [0, 1, 2]
