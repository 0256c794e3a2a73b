"""What a booting machine may ask and tell, in the order in which it does.

Everybody here is a stranger. A MAC is a name, not a proof; what proves something is that a human
armed this host minutes ago, and from the answer on the operation's machine token, which only the
answer carries. Whoever does not fit gets `NotYourTurn`, always the same, and changes nothing.

The dangerous act is the answer: it wipes disks. **Disarm first, send second**: its bytes leave only
after the transaction that takes the host to `installing` is on disk, and in `installing` nobody is
offered an installer. A crash in between leaves a machine waiting in front of an untouched disk.
"""

import hmac
from collections.abc import Callable
from datetime import timedelta

from attrs import frozen

from provd.config import Config, Unknown
from provd.domain.activity import Level, News
from provd.domain.contacts import Contact, Hop
from provd.domain.documents import one_line
from provd.domain.errors import CannotInstall, Invalid, NotYourTurn
from provd.domain.hosts import Host, HostId, LocalBoot, Mac
from provd.domain.lifecycle import BOOTS, Boots, Fact, State
from provd.domain.operations import Operation
from provd.domain.secrets import Secret
from provd.netboot import scripts
from provd.netboot.loaders import IpxeVersion
from provd.orchestrator.fleet import Change, Fleet
from provd.orchestrator.installers import Installers
from provd.orchestrator.operations import Operations
from provd.orchestrator.planning import make_plan
from provd.orchestrator.quiet import Quiet
from provd.proxmox.answer import build_answer, management_mac
from provd.proxmox.answer_schema import misfits
from provd.proxmox.first_boot import build_first_boot_script
from provd.proxmox.reports import (
    SystemInfo,
    parse_install_report,
    parse_phone_home,
    parse_system_info,
)
from provd.remote.keys import Seal
from provd.server_types import ServerType, ServerTypeBook
from provd.store import hardware, hosts, operations
from provd.store.database import Db, now

RESEND_FOR = timedelta(minutes=2)
RESEND_TIMES = 3
"""A response can be lost. The installer asks once; a human at its console may start it again."""

LONGEST_HELLO = 200

KEY_LIVES = timedelta(days=1)
"""How long the host itself honours our key, should nobody ever come to take it away."""


@frozen
class _Party:
    """A host and the operation that has it."""

    host: Host
    operation: Operation


class BootDesk:
    def __init__(
        self,
        config: Config,
        book: ServerTypeBook,
        fleet: Fleet,
        runner: Operations,
        seal: Seal,
        installers: Installers,
        heard: Callable[[Contact], None],
    ) -> None:
        self._config = config
        self._book = book
        self._fleet = fleet
        self._runner = runner
        self._seal = seal
        self._installers = installers
        self._heard = heard
        self._quiet = Quiet()

    # --- 1. the firmware, through iPXE ---

    async def script(self, mac_text: str, address: str, user_agent: str | None) -> str:
        """The iPXE script for whoever has this MAC. `NotYourTurn` for a stranger, who is noted.

        Strangers get a menu where `pxe.unknown` says so. `user_agent` is iPXE's, with its version.
        """
        mac = _parse_mac(mac_text)
        known = self._host_of([mac])
        if known is None:
            return await self._script_for_stranger(mac, address)
        host_id = known.id
        version = IpxeVersion.of_user_agent(user_agent)
        self._tell(known, Hop.SCRIPT, f"fetched its boot script with {version or 'an unknown iPXE'}", address)
        if BOOTS[known.state] is not Boots.INSTALLER and not self._quiet.may_say(host_id, known.state):
            return _local_disk_script(known)

        def fetched(change: Change) -> Host:
            boots = BOOTS[hosts.get(change.db, host_id).state]
            return change.fact(host_id, Fact.SCRIPT_FETCHED, f"{address} fetched its boot script: {boots}")

        host = await self._fleet.change(fetched)
        if BOOTS[host.state] is not Boots.INSTALLER:
            return _local_disk_script(host)
        elsewhere = self._config.proxmox.installer_url
        return scripts.installer_script(
            hostname=host.hostname,
            base_url=elsewhere or self._installers.base_url(self._party(host_id).operation),
            # Another web server has the three files of Proxmox's own tool, and no fourth.
            form=scripts.Form.SEPARATE if elsewhere else scripts.form_for(version),
            local_boot=host.options.local_boot or LocalBoot.EXIT,
        )

    async def _script_for_stranger(self, mac: Mac, address: str) -> str:
        unknown = self._config.pxe.unknown
        if unknown is not Unknown.IGNORE:
            await self._fleet.sighted(mac, address, "asked for an iPXE script")
        if unknown is not Unknown.MENU:
            raise NotYourTurn(f"{mac} is not registered here")
        return scripts.unknown_script(mac=mac, base_url=self._config.server.public_url)

    async def hello(self, mac_text: str, address: str, about: str) -> str:
        """A stranger's menu: its operator wants it to be listed. `about` is what it says of itself."""
        mac = _parse_mac(mac_text)
        if self._config.pxe.unknown is not Unknown.MENU or self._host_of([mac]) is not None:
            raise NotYourTurn(f"{mac} has no menu to say hello from")
        await self._fleet.sighted(mac, address, one_line(f"says hello: {about}", LONGEST_HELLO))
        return scripts.greeting_script(mac)

    # --- 2. the installer ---

    async def answer(self, body: bytes, address: str, authorization: str | None = None) -> bytes:
        """The answer file for the machine that posted `body`. Ends the offer before it returns.

        An installer that can shows in `authorization` that it came with the ISO of this very operation.

        Raises `BadDocument`, or `NotYourTurn` for whoever is not about to be installed.
        """
        machine = parse_system_info(body)
        host = self._host_of([link.mac for link in machine.links])
        if host is None:
            for link in machine.links[:1]:
                await self._fleet.sighted(link.mac, address, "an installer asked for an answer")
            raise NotYourTurn("no registered host has one of these MACs")
        party = self._party(host.id)
        if not self._installers.has_read(party.operation, authorization):
            await self._turned_away(host, f"{address} asked for an answer without having read the ISO")
            raise NotYourTurn(f"not the bearer token of operation {party.operation.id}")
        asker = f"{address} {machine.identity}"
        if host.state is State.INSTALLING:
            return await self._answer_again(party, asker)
        if host.state is not State.PXE_BOOTED:
            await self._turned_away(host, f"{address} asked for an answer")
            raise NotYourTurn(f"{host.hostname} is {host.state}")
        return await self._answer_once(party, machine, asker)

    async def _answer_once(self, party: _Party, machine: SystemInfo, asker: str) -> bytes:
        host, operation = party.host, party.operation
        token = Secret.random()
        unfit: CannotInstall | Invalid | None = None
        try:
            plan = make_plan(self._config, self._server_type(host), host)
            nic = management_mac(plan, machine, host.mac)
            answer = build_answer(
                plan,
                machine,
                boot_mac=host.mac,
                webhook_url=self._machine_url(host, "installed", token),
                first_boot_url=self._machine_url(host, "first-boot-script", token),
            )
            if wrong := misfits(answer, machine.release):
                raise CannotInstall(f"the answer does not fit its installer: {'; '.join(wrong)}")
        except (CannotInstall, Invalid) as exc:
            unfit = exc
        if unfit is not None:
            await self._runner.fail(operation.id, unfit)
            raise NotYourTurn(str(unfit)) from unfit

        def disarm(change: Change) -> None:
            # Looked at again inside the transaction: of many requests at once, one finds it armed.
            armed = hosts.get(change.db, host.id).state is State.PXE_BOOTED
            if not armed or not operations.get(change.db, operation.id).active:
                raise NotYourTurn(f"{host.hostname} is not waiting for an answer any more")
            change.fact(
                host.id,
                Fact.ANSWER_SENT,
                f"answer sent to {asker.split()[0]}: {describe_machine(machine)}",
            )
            hardware.keep(change.db, host.id, machine.hardware, change.at)
            operations.keep_answer(
                change.db,
                operation.id,
                sealed=self._seal.seal(answer.encode(), _answer_context(operation)),
                token_hash=token.digest(),
                to=asker,
                management_mac=nic,
                at=change.at,
            )

        await self._fleet.change(disarm)
        self._tell(host, Hop.ANSWER, "the installer fetched its answer", asker.split()[0])
        return answer.encode()

    async def _answer_again(self, party: _Party, asker: str) -> bytes:
        """The same bytes to the same machine, a few times, soon: a response was lost on its way."""
        operation = party.operation
        served = self._fleet.store.read(lambda db: operations.answer(db, operation.id))
        if (
            served is None
            or served.to != asker
            or served.times >= RESEND_TIMES
            or now() - served.at > RESEND_FOR
        ):
            await self._turned_away(party.host, f"{asker.split()[0]} asked for an answer again")
            raise NotYourTurn(f"{party.host.hostname} has its answer already")

        def count(change: Change) -> None:
            operations.count_answer(change.db, operation.id)
            change.fact(party.host.id, Fact.ANSWER_SENT, "the same answer sent once more")

        await self._fleet.change(count)
        return self._seal.open(served.sealed, _answer_context(operation))

    def first_boot_script(self, host_id: HostId, token: Secret, address: str) -> bytes:
        """The script that the installer puts into the new system. Fetched before the disk is touched."""
        party = self._proven(host_id, token)
        key = self._fleet.store.read(lambda db: operations.key(db, party.operation.id))
        if key is None:
            raise NotYourTurn("this operation has no key any more")
        self._tell(party.host, Hop.FIRST_BOOT_SCRIPT, "the installer fetched the first-boot script", address)
        return build_first_boot_script(
            phone_home_url=f"{self._config.server.public_url}/api/hosts/{host_id}/phone-home",
            token=token,
            public_key_line=key.public_line,
            key_expires=party.operation.started_at + KEY_LIVES,
            gpu=self._server_type(party.host).gpu,
            hostname=party.host.hostname,
        )

    async def installed(self, host_id: HostId, token: Secret, body: bytes) -> None:
        """The installer's one report: the new system's host keys, before it has ever been online."""
        party = self._proven(host_id, token)
        report = parse_install_report(body)
        wanted = self._fleet.store.read(lambda db: operations.management_mac(db, party.operation.id))

        def write(change: Change) -> Host:
            before = hosts.get(change.db, host_id).state
            host = change.fact(
                host_id,
                Fact.INSTALL_REPORTED,
                f"installed as {one_line(report.fqdn)}; its SSH host keys are pinned",
            )
            if before is not host.state:
                hosts.set_host_keys(change.db, host_id, report.host_keys)
                hardware.keep_disks(change.db, host_id, report.disks, change.at)
            return host

        host = await self._fleet.change(write)
        self._tell(host, Hop.REPORT, "the installer reported that it is done")
        managed = report.management.mac if report.management is not None else None
        if managed is not None and wanted is not None and managed != wanted:
            await self._runner.fail(
                party.operation.id,
                CannotInstall(
                    f"installed, but managed through {managed} instead of {wanted}: with DHCP the "
                    "installer takes the NIC that has the default route; plug that cable elsewhere "
                    "or give the host a static address"
                ),
            )

    # --- 3. the new system ---

    async def phoned_home(self, host_id: HostId, token: Secret, body: bytes) -> None:
        """The first-boot script calls: this is where the host lives from now on."""
        party = self._proven(host_id, token)
        call = parse_phone_home(body)

        def write(change: Change) -> None:
            before = hosts.get(change.db, host_id).state
            host = change.fact(host_id, Fact.PHONED_HOME, f"called home from {call.ip}")
            if before is host.state:
                return
            hosts.set_address(change.db, host_id, call.ip, call.hardware_id, call.memory_mib)
            # What the installer reported was pinned and stays; only a lost report is made good.
            if before is State.INSTALLING:
                hosts.set_host_keys(change.db, host_id, call.host_keys)

        await self._fleet.change(write)
        self._tell(party.host, Hop.PHONE_HOME, "the new system called home", str(call.ip))

    # --- who is who ---

    def _tell(self, host: Host, hop: Hop, message: str, address: str = "") -> None:
        self._heard(Contact(mac=host.mac, hop=hop, message=message, address=address))

    def _host_of(self, macs: list[Mac]) -> Host | None:
        """The one host that has one of `macs`. Two would be a contradiction: then it is nobody."""
        found = self._fleet.store.read(lambda db: hosts.find_by_mac(db, macs))
        return found[0] if len(found) == 1 else None

    def _party(self, host_id: HostId) -> _Party:
        def find(db: Db) -> _Party:
            operation = operations.active_on(db, host_id)
            if operation is None:
                raise NotYourTurn(f"nothing is being done to host {host_id}")
            return _Party(hosts.get(db, host_id), operation)

        return self._fleet.store.read(find)

    def _proven(self, host_id: HostId, token: Secret) -> _Party:
        """Whoever shows the machine token of the host's present operation. In constant time."""
        party = self._party(host_id)
        expected = self._fleet.store.read(lambda db: operations.token_hash(db, party.operation.id))
        if not hmac.compare_digest(expected or b"", token.digest()):
            raise NotYourTurn(f"not the machine token of operation {party.operation.id}")
        return party

    async def _turned_away(self, host: Host, what: str) -> None:
        if not self._quiet.may_say(host.id, what):
            return
        await self._fleet.note(
            News(
                event="machine.turned_away",
                message=f"{what} and was refused: {host.hostname} is {host.state}",
                level=Level.WARNING,
                host_id=host.id,
            )
        )

    def _server_type(self, host: Host) -> ServerType:
        server_type = self._book.current.get(host.server_type)
        if server_type is None:
            raise CannotInstall(f"server-types.yaml has no type {host.server_type!r} any more")
        return server_type

    def _machine_url(self, host: Host, what: str, token: Secret) -> str:
        return f"{self._config.server.public_url}/api/hosts/{host.id}/{what}?token={token.reveal()}"


def _parse_mac(text: str) -> Mac:
    try:
        return Mac.parse(text)
    except Invalid as exc:
        raise NotYourTurn(str(exc)) from exc


def _local_disk_script(host: Host) -> str:
    return scripts.local_disk_script(host.hostname, host.options.local_boot or LocalBoot.EXIT)


def describe_machine(machine: SystemInfo) -> str:
    release = ".".join(map(str, machine.release))
    return one_line(f"{machine.dmi.product_name or 'a machine'}, {machine.product} {release}")


def _answer_context(operation: Operation) -> str:
    return f"operations/{operation.id}/answer"
