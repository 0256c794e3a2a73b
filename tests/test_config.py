"""provisioning.yaml: what is taken, what is refused, and what a refusal says."""

import os
import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path

import attrs
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from provd.config import Config, Unknown, describe, duration, load_config, read_credential, show_duration
from provd.domain.documents import one_line
from provd.domain.errors import ConfigError, Invalid
from provd.domain.lifecycle import State
from provd.domain.secrets import Secret

EXAMPLES = Path(__file__).parent.parent / "deploy" / "examples"
HASH = "$6$c425af27247c49af$" + "A" * 86
FINGERPRINT = ":".join(["AB"] * 32)
MINIMAL = f"""\
server:
  public_url: http://192.168.1.100:8080
pxe:
  interface: eno1
  subnet: 192.168.1.0/24
proxmox:
  existing_node: 192.168.1.10
  join_fingerprint: {FINGERPRINT}
credentials:
  root_password_hash: {HASH}
"""

KEYS = [
    (section.name, key.name)
    for section in attrs.fields(Config)
    if section.type is not None and attrs.has(section.type)
    for key in attrs.fields(section.type)
]

Load = Callable[..., Config]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load a text as provisioning.yaml."""

    def load(content: str | bytes, **environ: str) -> Config:
        path = tmp_path / "provisioning.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return load_config(path, environ)

    return load


@pytest.fixture
def problems(load: Load, tmp_path: Path) -> Callable[..., list[str]]:
    """The lines of the error for a text, each without the path of the folder."""

    def problems(content: str | bytes) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(content)
        return str(caught.value).replace(f"{tmp_path}/", "").splitlines()

    return problems


def with_line(section: str, line: str) -> str:
    """The minimal file with one more line at the beginning of a section: line 2 of `server`, 10 of others."""
    if f"{section}:\n" in MINIMAL:
        return MINIMAL.replace(f"{section}:\n", f"{section}:\n  {line}\n")
    return f"{MINIMAL}{section}:\n  {line}\n"


def test_a_minimal_file_gets_the_defaults(load: Load, tmp_path: Path) -> None:
    """What a file leaves out has the documented value."""
    config = load(MINIMAL)
    assert config.server.auth is True
    assert (config.server.listen_host, config.server.listen_port) == ("0.0.0.0", 8080)
    assert config.pxe.subnet == IPv4Network("192.168.1.0/24")
    assert config.proxmox.existing_node == IPv4Address("192.168.1.10")
    assert config.proxmox.api_port == 8006
    assert config.proxmox.installer_url == ""
    assert config.server.image_url == "http://192.168.1.100:8081"
    assert config.pxe.unknown is Unknown.LOG
    assert config.paths.images_dir == config.paths.state_dir / "images"
    assert config.install.domain == "home.arpa"
    assert config.deadlines.of(State.PXE_READY) == 1800
    assert config.paths.server_types == tmp_path / "server-types.yaml"
    assert config.source == tmp_path / "provisioning.yaml"


def test_the_example_is_loadable_and_shows_every_key() -> None:
    """The example file loads, with the # in front of its optional keys and without."""
    text = (EXAMPLES / "provisioning.yaml").read_text()
    config = load_config(EXAMPLES / "provisioning.yaml", {})
    assert config.server.public_url == "http://192.168.1.100:8080"
    for section, key in KEYS:
        assert re.search(rf"^  #?{key}:", text, re.MULTILINE), f"{section}.{key}"


def test_the_commented_keys_of_the_example_load_too(load: Load) -> None:
    """Taking the # away from the example's keys gives a good file, and the defaults they claim."""
    text = (EXAMPLES / "provisioning.yaml").read_text()
    config = load(re.sub(r"^  #(\w+:| +\w+: \d)", r"  \1", text, flags=re.MULTILINE))
    plain = load_config(EXAMPLES / "provisioning.yaml", {})
    assert config.infrastructure.server_type_map == {"compute": "3", "gpu": "7"}
    assert config.deadlines == plain.deadlines
    assert config.ssh == plain.ssh
    assert attrs.evolve(config.install, raid=None) == plain.install


@pytest.mark.parametrize(
    ("section", "line", "said"),
    [
        ("server", "public_url2: x", "server.public_url2: is not a key that provd knows; did you mean"),
        ("server", "listen: 8080", "server.listen: is a number where text is meant"),
        ("server", "listen: ':8080'", "server.listen: ':8080' is not an address and port"),
        ("server", "listen: 1.2.3.4:70000", "server.listen: '1.2.3.4:70000' is not"),
        ("server", "listen: 1.2.3.256:80", "server.listen: '1.2.3.256:80' is not"),
        ("server", "auth: maybe", "server.auth: must be on or off"),
        ("server", "auth: 1", "server.auth: must be on or off"),
        ("server", "allowed_hosts: [ok, 'a b']", "server.allowed_hosts[1]: 'a b' is not a host name"),
        ("server", "allowed_hosts: nas", "server.allowed_hosts: must be a list"),
        ("pxe", "enabled: 'yes'", "pxe.enabled: must be true or false"),
        ("proxmox", "api_port: 0", "proxmox.api_port: must be a port number"),
        ("proxmox", "api_port: true", "proxmox.api_port: must be a port number"),
        ("proxmox", "installer_url: ftp://x", "proxmox.installer_url: 'ftp://x' is not an http or https URL"),
        ("credentials", "root_ssh_keys: [ssh-rsa]", "credentials.root_ssh_keys[0]: 'ssh-rsa' is not an SSH"),
        ("credentials", "cluster_password_file: 7", "credentials.cluster_password_file: is a number where"),
        ("infrastructure", "server_type_map: {a: [1]}", "infrastructure.server_type_map.a: must be the inv"),
        ("infrastructure", "server_type_map: {a: true}", "infrastructure.server_type_map.a: must be the inv"),
        ("install", "keyboard: no", "install.keyboard: is a YAML boolean where text is meant; put it in quo"),
        (
            "install",
            "country: no",
            "install.country: is a YAML boolean where text is meant; put it in quotes",
        ),
        ("install", "timezone: Mars/Phobos", "install.timezone: 'Mars/Phobos' is not a time zone"),
        ("install", "filesystem: ntfs", "install.filesystem: 'ntfs' is not a file system"),
        ("install", "raid: raid7", "install.raid: 'raid7' is not a RAID level"),
        ("install", 'mailto: "a\\nb@c"', "install.mailto: must be one line of printable text"),
        ("ssh", "user: 'root; reboot'", "ssh.user: 'root; reboot' is not a user name"),
        ("deadlines", "joining: 0", "deadlines.joining: must be a duration"),
        ("deadlines", "joining: 2d", "deadlines.joining: must be a duration"),
        ("deadlines", "joining: 169h", "deadlines.joining: must be a duration"),
        ("deadlines", "ready: 1h", "deadlines.ready: is not a key that provd knows"),
    ],
)
def test_a_bad_value_is_named_with_its_line(
    problems: Callable[..., list[str]], section: str, line: str, said: str
) -> None:
    """A refusal names the file, the line, the key and the reason."""
    content = with_line(section, line)
    number = content.splitlines().index(f"  {line}") + 1
    (problem,) = problems(content)
    assert problem.startswith(f"provisioning.yaml:{number}: {said}")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("http://192.168.1.100:8080", "http://host/provd", "2: server.public_url: must be a URL without a"),
        (
            "http://192.168.1.100:8080",
            "http://0.0.0.0:8080",
            "2: server.public_url: 'http://0.0.0.0:8080' is",
        ),
        ("http://192.168.1.100:8080", "http://u:p@host", "2: server.public_url: 'http://u:p@host' is not"),
        ("http://192.168.1.100:8080", "http://[::1", "2: server.public_url: 'http://[::1' is not"),
        ("http://192.168.1.100:8080", "http://h:99999", "2: server.public_url: 'http://h:99999' is not"),
        (
            "192.168.1.0/24",
            "192.168.1.7/24",
            "5: pxe.subnet: must be written as network and prefix length: 192",
        ),
        ("192.168.1.0/24", "fd00::/64", "5: pxe.subnet: 'fd00::/64' is not an IPv4 network"),
        ("  interface: eno1\n", "", "3: pxe.interface: is missing"),
        ("eno1", "eno1/../x", "4: pxe.interface: 'eno1/../x' is not the name"),
        (
            "existing_node: 192.168.1.10",
            "existing_node: pve1",
            "7: proxmox.existing_node: 'pve1' is not an IP",
        ),
        ("existing_node: 192.168.1.10", "existing_node:", "7: proxmox.existing_node: is missing"),
        (FINGERPRINT, FINGERPRINT[:-3], "8: proxmox.join_fingerprint: must be a SHA-256 fingerprint"),
        (FINGERPRINT, FINGERPRINT[:-1] + "g", "8: proxmox.join_fingerprint: must be a SHA-256 fingerprint"),
        ("credentials:\n", "credentials: 5\nx:\n", "9: credentials: must be a mapping of keys"),
    ],
)
def test_a_bad_edit_of_a_given_key(problems: Callable[..., list[str]], old: str, new: str, said: str) -> None:
    """The keys that every file has are judged as well, a missing one at the line of its section."""
    assert problems(MINIMAL.replace(old, new))[0].startswith(f"provisioning.yaml:{said}")


def test_all_problems_are_told_at_once(problems: Callable[..., list[str]]) -> None:
    """Problems of different kinds come together, in the order of their lines."""
    content = """\
server: {public_url: x}
pxe: {interfase: eno1}
proxmox: {existing_node: 1.2.3.4}
proxmox: {}
credentials: {root_password_hash: hunter2}
source: /x
"""
    assert [problem.split(": ")[0:2] for problem in problems(content)] == [
        ["provisioning.yaml:1", "server.public_url"],
        ["provisioning.yaml:2", "pxe.interfase"],
        ["provisioning.yaml:3", "proxmox.join_fingerprint"],
        ["provisioning.yaml:4", "proxmox"],
        ["provisioning.yaml:5", "credentials.root_password_hash"],
        ["provisioning.yaml:6", "source"],
    ]


def test_pxe_without_its_section_is_refused(problems: Callable[..., list[str]]) -> None:
    """DHCP and TFTP are on unless the file says otherwise, and then need an interface and a subnet."""
    content = MINIMAL.replace("pxe:\n  interface: eno1\n  subnet: 192.168.1.0/24\n", "")
    assert [p.split(": ")[1] for p in problems(content)] == ["pxe.interface", "pxe.subnet"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "1: must hold a mapping"),
        ("- a\n", "1: must hold a mapping"),
        ("a: 1\n---\nb: 2\n", "2: but found another document"),
        ("a: &x 1\nb: *x\n", "1: YAML anchors and aliases are not used here"),
        ("a: 1\nb: *x\n", "2: YAML anchors and aliases are not used here"),
        ("a:\n  b: !!python/object/apply:os.system [id]\n", "2: YAML tags are not used here"),
        ("a: [1\n", "2: "),
        ("a:\n\tb: 1\n", "2: "),
        ("a: " + "[" * 50_000, "1: is nested too deep"),
        ("a: " + "{a: " * 50_000, "1: is nested too deep"),
        ('a: "\\U00110000"\n', "1: is not YAML"),
        ("a: b\nc: \x00\n", "2: holds a character that YAML does not allow"),
        (b"a: b\nc: \xff\n", "2: is not UTF-8 text"),
        ("#" * (256 * 1024 + 1), " cannot be read: larger than 262144 bytes"),
    ],
)
def test_what_is_no_plain_yaml_is_refused(
    problems: Callable[..., list[str]], content: str | bytes, said: str
) -> None:
    """Anything but one plain mapping ends in one line that says where."""
    (problem,) = problems(content)
    assert problem.startswith(f"provisioning.yaml:{said}")


@pytest.mark.parametrize("kind", ["missing", "folder", "fifo"])
def test_what_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    """A file that is not there, or is none, is refused without waiting."""
    path = tmp_path / "provisioning.yaml"
    {"missing": lambda _: None, "folder": os.mkdir, "fifo": os.mkfifo}[kind](path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(path, {})


YAML_PIECES = st.sampled_from(
    [
        *"\n\n\n  ::--[]{},#&*!|>'\"%@`\t\\",
        "server:",
        "pxe:",
        "listen",
        "key",
        "~",
        "yes",
        "12:30",
        "<<",
        "\U0001f600",
    ]
)


@given(
    st.one_of(
        st.binary(max_size=300), st.lists(YAML_PIECES | st.text(max_size=3)).map("".join).map(str.encode)
    )
)
@example(b'a: "\\ud800"')
@example(b"%YAML " + b"9" * 5000 + b".1\n---\na: 1")
@example(b"? {a: b}\n: 1")
@example(b"server: {<<: {a: 1}}")
@example(b"= : 1\nserver: =")
@example(b"server: 2026-99-99")
def test_any_bytes_give_a_configuration_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    """Nothing but `ConfigError` comes out of a bad file, and its text can be printed."""
    path = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    path.write_bytes(content)
    refusal = refusal_of(path)
    assert all(one_line(line, 10_000) == line for line in refusal.split("\n"))


def refusal_of(path: Path) -> str:
    try:
        load_config(path, {})
    except ConfigError as exc:
        return str(exc)
    return ""


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


@given(key=st.sampled_from(KEYS), value=VALUES)
def test_any_value_of_any_key_is_taken_or_refused(
    tmp_path_factory: pytest.TempPathFactory, key: tuple[str, str], value: object
) -> None:
    """Whatever a key is given, the outcome is a configuration or a `ConfigError` about that key."""
    document = yaml.safe_load(MINIMAL)
    document.setdefault(key[0], {})[key[1]] = value
    path = tmp_path_factory.getbasetemp() / "valued.yaml"
    path.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8", errors="surrogatepass")
    assert all(".".join(key) in line for line in refusal_of(path).splitlines())


@given(st.integers(1, 7 * 24 * 3600))
def test_a_duration_survives_being_shown(seconds: int) -> None:
    """What `describe` prints is read back as the same number of seconds."""
    assert duration(show_duration(float(seconds))) == seconds


@pytest.mark.parametrize(
    ("written", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), (45, 45), (0.05, 0.05), ("1.5h", 5400)]
)
def test_durations(written: object, seconds: float) -> None:
    """Seconds, minutes, hours, or a plain number of seconds."""
    assert duration(written) == seconds


@pytest.mark.parametrize("written", ["", "h", "-1s", "1 h", "1d", "inf", "nan", True, None, [], 10**9])
def test_no_durations(written: object) -> None:
    """What is no sensible duration is refused."""
    with pytest.raises(Invalid):
        duration(written)


@pytest.mark.parametrize(
    "written", ["ab" * 32, "AB" * 32, ":".join(["ab"] * 32), f'"{FINGERPRINT}"', ":".join(["aB"] * 32)]
)
def test_a_fingerprint_has_one_form(load: Load, written: str) -> None:
    """Either case, with or without colons: stored as upper-case pairs."""
    assert load(MINIMAL.replace(FINGERPRINT, written)).proxmox.join_fingerprint == FINGERPRINT


def test_a_fingerprint_of_digits_is_no_number(load: Load) -> None:
    """YAML 1.1 takes digits with colons for a number to the base of 60; here they stay text."""
    digits = ":".join(["11"] * 32)
    assert load(MINIMAL.replace(FINGERPRINT, digits)).proxmox.join_fingerprint == digits


@pytest.mark.parametrize(
    ("written", "auth"), [("on", True), ("off", False), ("'off'", False), ("false", False), ("true", True)]
)
def test_auth_is_on_or_off(load: Load, written: str, auth: bool) -> None:
    """YAML's bare off is a boolean; both spellings mean the same."""
    assert load(with_line("server", f"auth: {written}")).server.auth is auth


def test_addresses_may_be_of_ip_version_6(load: Load) -> None:
    """IPv6 is taken wherever an address may stand."""
    content = with_line("server", "listen: '[::]:80'").replace("192.168.1.100:8080", "[fd00::5]:8080/")
    config = load(content.replace("existing_node: 192.168.1.10", "existing_node: fd00::10"))
    assert (config.server.listen_host, config.server.listen_port) == ("::", 80)
    assert config.server.public_url == "http://[fd00::5]:8080"
    assert config.proxmox.existing_node == IPv6Address("fd00::10")


def test_host_headers(load: Load) -> None:
    """The public URL's host, this machine by its own names, and what the file adds; default ports silent."""
    server = load(with_line("server", "allowed_hosts: [NAS.lan, proxy.lan:444, '[fd00::1]']")).server
    assert server.host_headers == {
        *("192.168.1.100:8080", "localhost:8080", "127.0.0.1:8080", "[::1]:8080"),
        *("nas.lan", "nas.lan:8080", "proxy.lan:444", "[fd00::1]", "[fd00::1]:8080"),
    }
    behind_tls = load(MINIMAL.replace("http://192.168.1.100:8080", "https://Provd.example")).server
    assert behind_tls.host_headers >= {"provd.example", "provd.example:443", "localhost:8080"}


def test_an_empty_section_is_a_section_of_defaults(load: Load) -> None:
    """A section whose keys are all commented out is no error."""
    assert load(f"{MINIMAL}install:\nssh:\ndeadlines:\n").install == load(MINIMAL).install


def test_the_state_directory(load: Load, tmp_path: Path) -> None:
    """systemd's directory beats the default, the file beats systemd, relative means beside the file."""
    assert load(MINIMAL).paths.state_dir == Path("/var/lib/provd")
    assert load(MINIMAL, STATE_DIRECTORY="/a:/b").paths.state_dir == Path("/a")
    named = with_line("paths", "state_dir: state")
    assert load(named, STATE_DIRECTORY="/a").paths.state_dir == tmp_path / "state"


def test_describe_shows_everything_but_secrets(load: Load) -> None:
    """The description is itself a good configuration, but for the secret that it hides."""
    config = load(with_line("infrastructure", "server_type_map: {gpu: 7}"))
    shown = describe(config)
    assert HASH not in shown
    assert HASH not in repr(config)
    again = load(shown.replace("'***'", HASH))
    assert again == config


def test_a_wrong_hash_is_not_quoted(problems: Callable[..., list[str]]) -> None:
    """A password typed in place of its hash does not reach the terminal or the journal."""
    for password in ("hunter2", "!hunter2!x", "'hunter2", "{hunter2", "[hunter2, 1", "hunter2: x"):
        assert "hunter2" not in str(problems(MINIMAL.replace(HASH, password)))


# --- credentials from files ---


def credential(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "cluster-password"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("content", "secret"),
    [(b"geheim", "geheim"), (b"geheim\n", "geheim"), (b"a b \r\n", "a b "), ("ü".encode(), "ü")],
)
def test_a_credential_is_a_file_without_its_last_line_break(
    tmp_path: Path, content: bytes, secret: str
) -> None:
    """Editors end a file with a line break; blanks belong to the secret."""
    assert read_credential(credential(tmp_path, content), "cluster-password", None) == Secret(secret)


def test_an_explicit_file_beats_systemd(tmp_path: Path) -> None:
    """The file that is named counts; without one, systemd's; without that, there is none."""
    (tmp_path / "own").mkdir()
    own = credential(tmp_path / "own", b"own")
    credential(tmp_path, b"given", 0o440)
    assert read_credential(own, "cluster-password", tmp_path) == Secret("own")
    assert read_credential(None, "cluster-password", tmp_path) == Secret("given")
    assert read_credential(None, "infrastructure-token", tmp_path) is None
    assert read_credential(None, "cluster-password", None) is None


@pytest.mark.parametrize(
    ("content", "mode"),
    [
        (b"", 0o600),
        (b"\n", 0o600),
        (b"a\nb\n", 0o600),
        (b"\xff", 0o600),
        (b"x" * 5000, 0o600),
        (b"x", 0o640),
        (b"x", 0o604),
    ],
)
def test_a_bad_credential_is_refused_and_not_shown(tmp_path: Path, content: bytes, mode: int) -> None:
    """Empty, of several lines, no text, too big, or open to others: an error that names the file only."""
    with pytest.raises(ConfigError) as caught:
        read_credential(credential(tmp_path, content, mode), "cluster-password", None)
    assert str(tmp_path / "cluster-password") in str(caught.value)
    assert "xxxx" not in str(caught.value)


def test_a_credential_that_is_named_must_be_there(tmp_path: Path) -> None:
    """A missing file is an error, not the absence of a password."""
    with pytest.raises(ConfigError, match="cannot be read"):
        read_credential(tmp_path / "nothing", "cluster-password", None)


def test_relative_credential_files_lie_beside_the_configuration(load: Load, tmp_path: Path) -> None:
    """A relative path does not depend on where provd was started."""
    config = load(with_line("credentials", "cluster_password_file: secrets/pw"))
    assert config.credentials.cluster_password_file == tmp_path / "secrets/pw"
