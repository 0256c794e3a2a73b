"""An installer's URL opens for one operation, while its host is to be installed, and for nobody else."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from attrs import define, frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from provd.config import Config, load_config
from provd.domain.errors import BadImage, Invalid
from provd.domain.hosts import Host, HostOptions, Mac
from provd.domain.lifecycle import BOOTS, Boots, State
from provd.domain.operations import Kind, Operation, Outcome
from provd.domain.secrets import Secret
from provd.orchestrator.bell import Bell
from provd.orchestrator.fleet import Fleet
from provd.orchestrator.installers import Installers, Served
from provd.proxmox.mode_file import MODE_FILE_SIZE
from provd.store import hosts, images, operations
from provd.store.database import Db, Store, open_store, transaction
from provd.store.images import Image, NewImage

EXAMPLES = Path(__file__).parents[2] / "deploy" / "examples"
EXAMPLE = load_config(EXAMPLES / "provisioning.yaml", {})
KEY = bytes(range(32))
NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
NAMES = ["vmlinuz", "initrd.img", "proxmox.iso", "installer.img"]


def mode_file(image: Image, token: Secret) -> bytes:
    return mode_file_of(image.name, token)


def mode_file_of(name: str, token: Secret) -> bytes:
    return f"# {name} {token.reveal()}".encode().ljust(MODE_FILE_SIZE)


@define
class House:
    config: Config
    store: Store
    installers: Installers

    @property
    def db(self) -> Db:
        return self.store.read(lambda db: db)

    def image(self, name: str, release: str = "9.2-1") -> int:
        """An image as an import leaves it behind."""
        directory = self.config.paths.images_dir / name
        directory.mkdir(parents=True)
        for file in NAMES[:3]:
            (directory / file).write_bytes(f"{name} {file} ".encode().ljust(10_000, b"."))
        return images.add(
            self.db,
            NewImage(
                name=name,
                product="pve",
                release=release,
                sha256="0" * 64,
                size=10_000,
                mode_offset=4096,
                prepared_sha256="1" * 64,
            ),
            NOW,
        ).id

    def armed(
        self, number: int, image_id: int | None, state: State = State.PXE_BOOTED
    ) -> tuple[Host, Operation]:
        host = hosts.register(
            self.db, f"nuc{number}", Mac(f"02:00:00:00:00:{number:02x}"), "nuc", HostOptions(), NOW
        )
        hosts.set_state(self.db, host.id, state, NOW)
        operation = operations.open_(self.db, host, Kind.REBUILD, "a test", NOW)
        if image_id is not None:
            operations.set_image(self.db, operation.id, image_id)
        return host, operation

    def token(self, operation: Operation) -> str:
        base, _, token = self.installers.base_url(operation).rpartition("/")
        assert base == self.config.server.image_url
        return token

    def answer_token(self, operation: Operation) -> Secret:
        return Secret(f"provd:{self.token(operation)}")

    def find(self, operation: Operation, name: str = "proxmox.iso") -> Served | None:
        return self.installers.find(self.token(operation), name)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    (tmp_path / "provisioning.yaml").write_text((EXAMPLES / "provisioning.yaml").read_text())
    config = load_config(tmp_path / "provisioning.yaml", {"STATE_DIRECTORY": str(tmp_path / "state")})
    with open_store(tmp_path / "provd.db") as store:
        yield House(config, store, Installers(config, Fleet(store, Bell()), KEY, mode_file))


def first_bytes(served: Served | None) -> bytes:
    assert served is not None
    part = served.file.parts[0]
    return part if isinstance(part, bytes) else part.path.read_bytes()


def test_an_armed_host_finds_its_four_files(house: House) -> None:
    """All of them, of its own image, on its own account; and the mode file is made for its operation."""
    house.image("pve-8")
    host, operation = house.armed(1, house.image("pve-9"))
    for name in NAMES:
        served = house.find(operation, name)
        assert served is not None
        assert (served.name, served.host_id, served.operation_id) == (name, host.id, operation.id)
        assert first_bytes(served).startswith(b"pve-9")
        made = any(part == mode_file_of("pve-9", house.answer_token(operation)) for part in served.file.parts)
        assert made == (name in ("proxmox.iso", "installer.img"))
    assert house.find(operation, "pve-8") is None
    assert house.find(operation, "../pve-8/vmlinuz") is None


def test_the_url_is_the_same_every_time_and_another_for_each_operation(house: House) -> None:
    """A script that is fetched again names the same files; another daemon's key makes another URL."""
    image = house.image("pve-9")
    _, one = house.armed(1, image)
    _, two = house.armed(2, image)
    assert house.token(one) == house.token(one)
    assert house.token(one).partition("-")[2] != house.token(two).partition("-")[2]
    other = Installers(house.config, Fleet(house.store, Bell()), KEY[::-1], mode_file)
    assert other.base_url(one) != house.installers.base_url(one)
    assert other.find(house.token(one), "vmlinuz") is None


def test_who_has_read_an_iso_can_show_it(house: House) -> None:
    """The token in the ISO of one operation proves that it was read, and no other header does."""
    image = house.image("pve-9")
    _, one = house.armed(1, image)
    _, two = house.armed(2, image)
    header = f"Bearer {house.answer_token(one).reveal()}"
    assert house.installers.has_read(one, header)
    for other in (None, "", header[:-1], header.lower().upper(), "Bearer provd:"):
        assert not house.installers.has_read(one, other)
    assert not house.installers.has_read(two, header)


def test_an_installer_that_has_no_token_needs_none(house: House) -> None:
    """PVE 9.1 cannot send one, and neither can one that comes from another web server."""
    _, old = house.armed(1, house.image("pve-9.1", "9.1-2"))
    _, elsewhere = house.armed(2, None)
    assert house.installers.has_read(old, None)
    assert house.installers.has_read(elsewhere, None)


@pytest.mark.parametrize("state", State)
def test_an_installer_is_served_in_two_states_only(house: House, state: State) -> None:
    """The same table as for the boot script: from `installing` on there is nothing any more."""
    _, operation = house.armed(1, house.image("pve-9"), state)
    assert (house.find(operation) is not None) == (BOOTS[state] is Boots.INSTALLER)


@pytest.mark.parametrize("outcome", Outcome)
def test_an_operation_that_is_over_serves_nothing(house: House, outcome: Outcome) -> None:
    """However it ended, and even though the next one of that host is waiting."""
    image = house.image("pve-9")
    host, operation = house.armed(1, image)
    operations.close(house.db, operation.id, outcome, "", NOW)
    assert house.find(operation) is None
    following = operations.open_(house.db, host, Kind.REBUILD, "a test", NOW)
    operations.set_image(house.db, following.id, image)
    assert house.find(operation) is None
    assert house.find(following) is not None


def test_what_was_removed_is_not_there(house: House) -> None:
    """A host, an image, or the choice of one: each of them may be gone, and that is no error."""
    image = house.image("pve-9")
    _, chose_nothing = house.armed(1, None)
    host, hostless = house.armed(2, image)
    with transaction(house.db):
        house.db.execute("DELETE FROM hosts WHERE id = ?", (host.id,))
    _, imageless = house.armed(3, image + 1)
    for operation in (chose_nothing, hostless, imageless):
        assert house.find(operation) is None


def test_a_broken_image_says_so_to_the_one_who_may_have_it(house: House) -> None:
    """Missing files and a URL that no installer takes are `BadImage`; a stranger hears nothing of it."""
    _, operation = house.armed(1, house.image("pve-9"))
    (house.config.paths.images_dir / "pve-9" / "initrd.img").unlink()
    with pytest.raises(BadImage, match=r"initrd\.img cannot be read"):
        house.find(operation)
    assert house.installers.find(house.token(operation)[:-1] + "x", "vmlinuz") is None

    def unfit(image: Image, operation: Operation) -> bytes:
        raise Invalid("the address is too long")

    _, operation = house.armed(2, house.image("pve-8"))
    installers = Installers(house.config, Fleet(house.store, Bell()), KEY, unfit)
    with pytest.raises(BadImage, match=r"pve-8 .* the address is too long"):
        installers.find(house.token(operation), "vmlinuz")


def test_a_file_that_changed_has_another_tag(house: House) -> None:
    """Nothing is remembered from the last request that could be wrong in this one."""
    _, operation = house.armed(1, house.image("pve-9"))
    before = house.find(operation)
    assert before == house.find(operation)
    (house.config.paths.images_dir / "pve-9" / "proxmox.iso").write_bytes(bytes(9_000))
    after = house.find(operation)
    assert before is not None
    assert after is not None
    assert after.file.size == 9_000
    assert after.file.etag != before.file.etag


@frozen
class NoStore:
    """A database that must not be asked."""

    def read(self, query: object) -> object:
        raise AssertionError("a guess reached the database")


@settings(deadline=None)
@given(
    st.text(max_size=60)
    | st.tuples(st.integers(0, 10**20), st.text("0123456789abcdef", max_size=40)).map(
        lambda guess: f"{guess[0]}-{guess[1]}"
    )
)
def test_no_guess_reaches_the_database(token: str) -> None:
    """Whatever stands in its place: a token that this daemon did not make is nothing."""
    fleet = Fleet(NoStore(), Bell())  # type: ignore[arg-type]
    assert Installers(EXAMPLE, fleet, KEY, mode_file).find(token, "vmlinuz") is None
