"""Settings: which source wins, and that a bad value is told with its source and what was expected."""

import dataclasses
from pathlib import Path

import pytest

from headrace.config import Config, ConfigFault, default_data_dir, load
from headrace.settings import SETTINGS
from headrace.core.limits import Limits
from tests.support import settings_page


def loaded(tmp_path, *, toml="", flags=None, **environ):
    """Load from a folder whose headrace.toml says `toml`."""
    if toml:
        (tmp_path / "headrace.toml").write_text(toml)
    return load(flags or {}, environ=environ, folder=tmp_path)


def test_without_a_source_the_defaults_hold(tmp_path):
    config = loaded(tmp_path, HOME="/home/me")

    assert Config(data_dir=Path.home() / ".local/share/headrace") == config
    assert ("127.0.0.1", 8080, False, (), {}, "info", Limits()) == (
        config.host, config.port, config.no_auth, config.targets, config.aliases, config.log_level, config.limits
    )  # fmt: skip


def test_a_flag_beats_a_variable_beats_the_file(tmp_path):
    toml = "host = '127.0.0.3'\nport = 3\nlog_level = 'error'"
    config = loaded(tmp_path, toml=toml, flags={"host": "127.0.0.1"}, HEADRACE_HOST="127.0.0.2", HEADRACE_PORT="2")

    assert ("127.0.0.1", 2, "error") == (config.host, config.port, config.log_level)


def test_a_flag_that_was_not_given_does_not_count(tmp_path):
    flags = {"host": None, "port": None, "targets": None, "aliases": [], "no_auth": None}
    config = loaded(tmp_path, toml="targets = ['app.py']", flags=flags, HEADRACE_PORT="9000", HEADRACE_HOST="")

    assert ("127.0.0.1", 9000, ("app.py",)) == (config.host, config.port, config.targets)


def test_every_setting_can_stand_in_the_file(tmp_path):
    toml = """
        targets = ["app.py", "models/flux.py:Flux"]
        host = "localhost"
        port = 0
        data_dir = "/srv/headrace"
        durability = "fast"
        no_auth = true
        log_level = "debug"
        [aliases]
        "fal-ai/flux" = "me/flux"
        [limits]
        heartbeat_s = 5
        waiting_max = 10
        drain_s = 0.5
    """
    config = loaded(tmp_path, toml=toml)

    assert (
        Config(
            targets=("app.py", "models/flux.py:Flux"),
            host="localhost",
            port=0,
            data_dir=Path("/srv/headrace"),
            durability="fast",
            no_auth=True,
            aliases={"fal-ai/flux": "me/flux"},
            log_level="debug",
            limits=Limits(heartbeat_s=5.0, waiting_max=10, drain_s=0.5),
        )
        == config
    )


def test_every_variable_is_read(tmp_path):
    config = loaded(
        tmp_path,
        HEADRACE_HOST="::1",
        HEADRACE_PORT="81",
        HEADRACE_DATA_DIR="/srv/data",
        HEADRACE_DURABILITY="FAST",
        HEADRACE_NO_AUTH="1",
        HEADRACE_ALIAS="a/b=c/d, e/f=c/d",
        HEADRACE_LOG_LEVEL="WARNING",
        HEADRACE_DRAIN_S="7",
        HEADRACE_RESULT_AGE_S="86400",
        HEADRACE_LARGE_RESULT_AGE_S="8640",
        HEADRACE_STORE_BYTES_MAX="1000000000",
    )

    assert (
        Config(
            host="::1",
            port=81,
            data_dir=Path("/srv/data"),
            durability="fast",
            no_auth=True,
            aliases={"a/b": "c/d", "e/f": "c/d"},
            log_level="warning",
            limits=Limits(
                drain_s=7.0, result_age_s=86_400.0, large_result_age_s=8_640.0, store_bytes_max=1_000_000_000
            ),
        )
        == config
    )


def test_a_folder_may_be_in_the_home_and_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.chdir(tmp_path)

    assert Path("/home/me/data") == loaded(tmp_path, HEADRACE_DATA_DIR="~/data").data_dir
    assert tmp_path / "data" == loaded(tmp_path, HEADRACE_DATA_DIR="data").data_dir


def test_the_default_folder_follows_xdg_where_it_is_absolute(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")

    assert Path("/data/headrace") == default_data_dir({"XDG_DATA_HOME": "/data"})
    assert Path("/home/me/.local/share/headrace") == default_data_dir({"XDG_DATA_HOME": "data"})
    assert Path("/home/me/.local/share/headrace") == default_data_dir({})


WRONG_FLAGS = [
    ("host", "http://x", "--host: expected an address or a host name, without scheme and port, not 'http://x'"),
    ("host", "x:80", "--host: expected an address or a host name, without scheme and port, not 'x:80'"),
    ("port", "65536", "--port: expected a port from 1 to 65535, or 0 for any free one, not '65536'"),
    ("port", "-1", "--port: expected a port from 1 to 65535, or 0 for any free one, not '-1'"),
    ("port", "٣", "--port: expected a port from 1 to 65535, or 0 for any free one, not '٣'"),
    ("aliases", ["a/b"], "--alias: expected NEW=OLD, such as fal-ai/flux=me/flux, not 'a/b'"),
    ("aliases", ["a/b="], "--alias: expected NEW=OLD, such as fal-ai/flux=me/flux, not 'a/b='"),
    ("aliases", ["a/b=c/d", "a/b=e/f"], "--alias: expected every NEW name once, not 'a/b=c/d', 'a/b=e/f'"),
    ("log_level", "loud", "--log-level: expected one of debug, info, warning, error, not 'loud'"),
    ("data_dir", "\0", "--data-dir: expected the path of a folder, not '\\x00'"),
]


@pytest.mark.parametrize(("name", "value", "message"), WRONG_FLAGS)
def test_a_wrong_flag_is_told_in_one_line(tmp_path, name, value, message):
    with pytest.raises(ConfigFault) as caught:
        loaded(tmp_path, flags={name: value})

    assert message == str(caught.value)


def test_a_wrong_variable_is_told_by_its_name(tmp_path):
    with pytest.raises(ConfigFault) as caught:
        loaded(tmp_path, HEADRACE_NO_AUTH="maybe")

    assert "the variable HEADRACE_NO_AUTH: expected 1 or 0, true or false, not 'maybe'" == str(caught.value)


WRONG_FILES = [
    ("port = true", "headrace.toml: port: expected a port from 1 to 65535, or 0 for any free one, not True"),
    ("port = 80.0", "headrace.toml: port: expected a port from 1 to 65535, or 0 for any free one, not 80.0"),
    ("host = 5", "headrace.toml: host: expected an address or a host name, without scheme and port, not 5"),
    ("no_auth = 1", "headrace.toml: no_auth: expected 1 or 0, true or false, not 1"),
    ("targets = [1]", "headrace.toml: targets: expected a list of FILE, FILE:Class or module:Class, not 1"),
    ("aliases = 5", "headrace.toml: aliases: expected NEW=OLD, such as fal-ai/flux=me/flux, not 5"),
    ("aliases = {a = 5}", "headrace.toml: aliases: expected NEW=OLD, such as fal-ai/flux=me/flux, not {'a': 5}"),
    ("limits = 5", "headrace.toml: limits: expected a table, not 5"),
    ("prot = 80", "headrace.toml: prot: there is no such setting; did you mean 'port'?"),
    ("[limits]\nheart_s = 5", "did you mean 'limits.heartbeat_s'?"),
    ("[limits]\nheartbeat_s = 0", "limits.heartbeat_s: expected a number of seconds above 0, not 0"),
    ("[limits]\nheartbeat_s = nan", "limits.heartbeat_s: expected a number of seconds above 0, not nan"),
    ("[limits]\nheartbeat_s = inf", "limits.heartbeat_s: expected a number of seconds above 0, not inf"),
    ("[limits]\ndrain_s = -1", "limits.drain_s: expected a number of seconds at least 0, not -1"),
    ("[limits]\nwaiting_max = 1.5", "limits.waiting_max: expected a whole number above 0, not 1.5"),
    ("[limits]\nwaiting_max = true", "limits.waiting_max: expected a whole number above 0, not True"),
    ("port = ", "headrace.toml: not TOML: Invalid value (at "),
]


@pytest.mark.parametrize(("toml", "message"), WRONG_FILES)
def test_a_wrong_file_is_told_with_file_and_key(tmp_path, toml, message):
    with pytest.raises(ConfigFault) as caught:
        loaded(tmp_path, toml=toml)

    assert message in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_long_value_is_cut_in_the_message(tmp_path):
    with pytest.raises(ConfigFault) as caught:
        loaded(tmp_path, flags={"host": "x" * 10_000 + " "})

    assert 200 > len(str(caught.value))


def test_a_file_that_is_not_text_is_told(tmp_path):
    (tmp_path / "headrace.toml").write_bytes(b"\xff\xfe")

    with pytest.raises(ConfigFault, match="headrace.toml: not TOML"):
        loaded(tmp_path)


@pytest.mark.promise("A14")
@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "LocalHost"])
def test_no_keys_are_needed_where_only_this_machine_can_ask(tmp_path, host):
    assert loaded(tmp_path, flags={"host": host, "no_auth": True}).no_auth


@pytest.mark.promise("A14")
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "localhost.example.org", "127.1"])
def test_a_server_that_others_reach_is_refused_without_keys(tmp_path, host):
    with pytest.raises(ConfigFault, match="--no-auth: serving without keys is for a loopback host .*keys create"):
        loaded(tmp_path, flags={"host": host, "no_auth": True})


def test_the_refusal_names_where_no_auth_came_from(tmp_path):
    with pytest.raises(ConfigFault, match="the variable HEADRACE_NO_AUTH: serving without keys"):
        loaded(tmp_path, flags={"host": "0.0.0.0"}, HEADRACE_NO_AUTH="yes")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:9000"),
        ("gpu.local", "http://gpu.local:9000"),
        ("0.0.0.0", "http://127.0.0.1:9000"),
        ("::", "http://[::1]:9000"),
        ("fd00::1", "http://[fd00::1]:9000"),
    ],
)
def test_the_url_is_one_that_a_client_here_can_use(host, url):
    assert url == Config(host=host, port=9000).url


def test_a_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().port = 1


def test_the_table_has_every_field_once():
    fields = {field.name for field in dataclasses.fields(Config)} - {"limits"}
    limits = {f"limits.{field.name}" for field in dataclasses.fields(Limits)}

    assert fields | limits == set(SETTINGS)
    assert all(name == setting.name for name, setting in SETTINGS.items())


def test_the_table_shows_the_defaults_that_hold(tmp_path):
    config = loaded(tmp_path)
    shown = {name: setting.default for name, setting in SETTINGS.items()}

    assert (config.host, str(config.port), config.log_level) == (shown["host"], shown["port"], shown["log_level"])
    for field in dataclasses.fields(Limits):
        assert str(getattr(config.limits, field.name)) == shown[f"limits.{field.name}"]


def test_every_setting_is_documented_with_its_flag_variable_and_default():
    """Mend it with: python -m tests.support.settings_page"""
    assert settings_page.render() == settings_page.PAGE.read_text()
    assert set() == {name for name in SETTINGS if f"| `{name}` |" not in settings_page.PAGE.read_text()}


# --- https --------------------------------------------------------------------------------------------------


def test_https_is_set_like_everything_else(tmp_path):
    toml = "tls = true\ntls_port = 443\ntls_names = ['gpu.example.org', '[FD00::1]']\nimpersonate = true"
    flags = {"tls": True, "tls_port": "443", "tls_names": ["gpu.example.org", "fd00::1"], "impersonate": True}
    variables = {
        "HEADRACE_TLS": "1",
        "HEADRACE_TLS_PORT": "443",
        "HEADRACE_TLS_NAME": "gpu.example.org, fd00::1",
        "HEADRACE_IMPERSONATE": "yes",
    }
    expected = Config(tls=True, tls_port=443, tls_names=("gpu.example.org", "fd00::1"), impersonate=True)
    (tmp_path / "with file").mkdir()

    assert expected == dataclasses.replace(loaded(tmp_path, flags=flags), data_dir=expected.data_dir)
    assert expected == dataclasses.replace(loaded(tmp_path, **variables), data_dir=expected.data_dir)
    assert expected == dataclasses.replace(loaded(tmp_path / "with file", toml=toml), data_dir=expected.data_dir)


@pytest.mark.parametrize(
    ("host", "authority"),
    [
        ("127.0.0.1", "localhost:443"),
        ("::", "localhost:443"),
        ("127.0.0.2", "127.0.0.2:443"),
        ("gpu.local", "gpu.local:443"),
        ("fd00::1", "[fd00::1]:443"),
    ],
)
def test_by_tls_the_server_is_found_by_name_where_a_name_leads_there(host, authority):
    assert authority == Config(host=host, tls_port=443).tls_authority


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"impersonate": True}, "--impersonate: is for the certificate of --tls; add --tls"),
        ({"tls_names": ["a.org"]}, "--tls-name: is for the certificate of --tls; add --tls"),
        (
            {"tls": True, "tls_names": ["https://a.org"]},
            "--tls-name: expected host names or addresses without a port, such as gpu.example.org, "
            "not 'https://a.org'",
        ),
    ],
)
def test_a_name_for_no_certificate_is_told(tmp_path, flags, told):
    with pytest.raises(ConfigFault) as fault:
        loaded(tmp_path, flags=flags)

    assert told == str(fault.value)
