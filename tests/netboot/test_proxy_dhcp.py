"""Who is answered what: the decision alone, without a socket or a clock."""

from ipaddress import IPv4Address

import pytest
from attrs import evolve

from netboot.dhcp_checker import Packet, check_reply
from netboot.dhcp_client import (
    ACK,
    DECLINE,
    DISCOVER,
    FEATURES,
    GUID,
    INFORM,
    MAC,
    OFFER,
    RELEASE,
    REQUEST,
    Captured,
    client_packets,
    packet,
)
from provd.config import Unknown
from provd.domain.architectures import FIRMWARES, Architecture, Firmware, Via
from provd.domain.contacts import Contact, Hop
from provd.domain.hosts import Discovery, Mac
from provd.domain.lifecycle import Boots
from provd.netboot.desk import Policy
from provd.netboot.dhcp_packet import build, parse
from provd.netboot.proxy_dhcp import (
    Answer,
    Arrival,
    Directions,
    Door,
    LoopGuard,
    Ports,
    Silence,
    decide,
    looping,
)

SERVER = "10.9.0.2"
LAN_SERVER = bytes([10, 9, 0, 1])
NO_DISCOVERY = bytes([6, 1, 8, 255])
BUILDS = {
    Architecture.X64: "snponly.efi",
    Architecture.BIOS: "undionly.kpxe",
    Architecture.ARM64: "arm64.efi",
}
INSTALL = Policy(boots=Boots.INSTALLER)
SCRIPT = f"http://{SERVER}:8080/ipxe/{MAC.replace(':', '-')}"
IPXE = (77, b"iPXE")


def loader_for(firmware: Firmware, wanted: str | None) -> str | None:
    return wanted or BUILDS.get(firmware.architecture)


DIRECTIONS = Directions(
    loader_for=loader_for,
    loader_url=lambda address, name: f"http://{address}:8081/loaders/{name}",
    script_url=lambda address, mac: f"http://{address}:8080/ipxe/{str(mac).replace(':', '-')}",
)


def judge(
    data: bytes,
    *,
    door: Door = Door.DHCP,
    policy: Policy = INSTALL,
    unknown: Unknown = Unknown.LOG,
    directions: Directions = DIRECTIONS,
    peer: tuple[str, int] = ("0.0.0.0", 68),
) -> Answer | Silence:
    arrival = Arrival(door=door, local=IPv4Address(SERVER), peer=peer)
    return decide(
        parse(data),
        arrival,
        policy_of=lambda _: policy,
        directions=directions,
        unknown=unknown,
        ports=Ports(),
    )


def answer(data: bytes, **how: object) -> tuple[Packet, Answer]:
    """The reply, checked for all that holds for every one, and what else belongs to it."""
    decision = judge(data, **how)  # type: ignore[arg-type]
    assert isinstance(decision, Answer), decision
    return check_reply(build(decision.reply), data, server=SERVER), decision


def reply(data: bytes, **how: object) -> Packet:
    return answer(data, **how)[0]


def silence(data: bytes, **how: object) -> Silence:
    decision = judge(data, **how)  # type: ignore[arg-type]
    assert isinstance(decision, Silence), decision
    return decision


# --- the offer -----------------------------------------------------------------------------------


def test_a_uefi_machine_is_offered_its_loader() -> None:
    """An OFFER with the file's name in the header, our address three times, and option 43 that says so."""
    seen, made = answer(packet())
    assert seen.option(53) == bytes([OFFER])
    assert (seen.file.rstrip(b"\0"), seen.option(67)) == (b"snponly.efi", None)
    assert seen.option(60) == b"PXEClient"
    assert seen.option(43) == NO_DISCOVERY
    assert seen.option(175) is None
    assert seen.option(97) == GUID[1]
    assert made.target == ("255.255.255.255", 68)
    assert made.loads
    assert made.contact == Contact(
        mac=Mac(MAC),
        hop=Hop.DISCOVER,
        message="UEFI x64 asked for a boot server and got snponly.efi by TFTP",
        firmware="UEFI x64",
    )


@pytest.mark.parametrize("flags", [0, 0x8000, 0x7FFF])
def test_an_offer_is_a_broadcast_whatever_the_client_can(flags: int) -> None:
    """The broadcast flag is set, the other bits come back: a proxy knows no address to send to."""
    seen, made = answer(packet(flags=flags))
    assert (seen.flags, made.target) == (flags | 0x8000, ("255.255.255.255", 68))


def test_a_relayed_request_is_answered_to_its_relay() -> None:
    """giaddr and option 82 come back, 82 as the last one, and the answer goes to giaddr, port 67."""
    relay = (82, bytes([1, 4]) + b"eth0")
    seen, made = answer(packet(giaddr="10.1.0.1", options=[relay, GUID], hops=1))
    assert (seen.giaddr, seen.flags & 0x8000) == ("10.1.0.1", 0x8000)
    assert made.target == ("10.1.0.1", 67)
    assert seen.options[-1] == relay


def test_ciaddr_is_not_in_an_offer() -> None:
    """A client's own address stands in an ACK only, as with dnsmasq."""
    assert reply(packet(ciaddr="10.9.0.7")).ciaddr == "0.0.0.0"


@pytest.mark.parametrize("number", FIRMWARES)
def test_each_known_firmware_gets_its_own_build(number: int) -> None:
    """By option 93 alone, whatever option 60 says; one whose build is missing gets none, with a warning."""
    firmware = FIRMWARES[number]
    word = b"HTTPClient" if firmware.via is Via.HTTP else b"PXEClient"
    decision = judge(packet(architecture=number, vendor_class=word))
    if (build_name := BUILDS.get(firmware.architecture)) is None:
        assert isinstance(decision, Silence)
        assert decision.warning
        return
    assert isinstance(decision, Answer)
    expected = f"http://{SERVER}:8081/loaders/{build_name}" if firmware.via is Via.HTTP else build_name
    assert decision.reply.file.decode() == expected


@pytest.mark.parametrize("number", [1, 2, 5, 6, 8, 10, 12, 15, 18, 20, 21, 25, 31, 41, 65_535])
def test_an_unknown_firmware_is_left_alone_and_told_of(number: int) -> None:
    """There is no build for it: silence, and the operator sees the number."""
    contact = silence(packet(architecture=number)).contact
    assert contact is not None
    assert contact.message == (
        f"firmware of type {number} asked for a boot server and got no answer: there is no iPXE for it"
    )
    assert contact.firmware == ""


def test_the_first_known_of_several_architectures_counts() -> None:
    """Option 93 is a list, of which a client may be several."""
    both = packet(architecture=None, options=[(93, b"\0\x06\0\x0b\0\x07")])
    assert reply(both).boot_file == "arm64.efi"


@pytest.mark.parametrize("number", FIRMWARES)
def test_a_contact_tells_the_firmware(number: int) -> None:
    """By its number, and by how it says in option 60 that it reads its boot file; also from a stranger."""
    word = b"HTTPClient" if FIRMWARES[number].via is Via.HTTP else b"PXEClient"
    contact = silence(packet(architecture=number, vendor_class=word), policy=Policy(boots=None)).contact
    assert contact is not None
    assert contact.firmware == str(FIRMWARES[number])


@pytest.mark.parametrize("number", [0, 7])
def test_a_raspberry_pi_is_no_bios_pc(number: int) -> None:
    """Its ROM says type 0, for which undionly.kpxe would be given; under UEFI it is what it says."""
    data = packet(architecture=number, mac="dc:a6:32:01:02:03")
    if number == 0:
        seen = silence(data)
        assert "Raspberry Pi" in seen.reason
        assert seen.contact is not None
        assert seen.contact.firmware == ""
    else:
        assert reply(data).boot_file == "snponly.efi"


@pytest.mark.parametrize("value", [b"", b"\0" * 16, b"\1" + b"x" * 16, b"x" * 40])
def test_an_odd_machine_id_comes_back_or_is_left_out(value: bytes) -> None:
    """ROMs leave option 97 out or fill it oddly: it is an echo and decides nothing."""
    data = packet(options=[(97, value)] if value else [])
    assert reply(data).option(97) == (value or None)


@pytest.mark.parametrize("options", [[], [(94, b"\1\3\0")], [(94, b"\1")], [(94, b"12345678")]])
def test_the_network_interface_type_decides_nothing(options: list[tuple[int, bytes]]) -> None:
    """Option 94 may be missing or of any length."""
    assert reply(packet(options=options)).boot_file == "snponly.efi"


@pytest.mark.parametrize(("secs", "hops"), [(0, 0), (65_535, 255), (4, 16)])
def test_secs_and_hops_decide_nothing(secs: int, hops: int) -> None:
    """iPXE counts in `secs` what it likes; neither comes back."""
    assert reply(packet(secs=secs, hops=hops)).boot_file == "snponly.efi"


def test_a_chained_client_without_architecture_in_its_class_is_one() -> None:
    """A started loader may send nothing but `PXEClient` in option 60; option 93 says what it is."""
    assert reply(packet(vendor_class=b"PXEClient")).boot_file == "snponly.efi"


# --- silence -------------------------------------------------------------------------------------


@pytest.mark.parametrize("vendor_class", [None, b"", b"MSFT 5.0", b"PXEclient", b"xPXEClient", b"HTTP"])
def test_who_is_no_pxe_client_is_not_even_looked_up(vendor_class: bytes | None) -> None:
    """Phones ask for addresses all day: silence, and neither policy nor operator hears of them."""
    arrival = Arrival(door=Door.DHCP, local=IPv4Address(SERVER), peer=("0.0.0.0", 68))
    decision = decide(
        parse(packet(vendor_class=vendor_class)),
        arrival,
        policy_of=lambda _: pytest.fail("it was looked up"),
        directions=DIRECTIONS,
        unknown=Unknown.MENU,
        ports=Ports(),
    )
    assert isinstance(decision, Silence)
    assert decision.contact is None


def test_who_does_not_say_its_architecture_is_left_alone() -> None:
    """Without option 93 there is no telling what it could run."""
    assert silence(packet(architecture=None)).contact is None


@pytest.mark.parametrize("message_type", [None, OFFER, REQUEST, DECLINE, ACK, RELEASE, INFORM, 9, 0, 255])
def test_port_67_answers_discovers_only(message_type: int | None) -> None:
    """A REQUEST belongs to the server that gave the address, even where it names none; the rest to others."""
    for options in ([], [(54, LAN_SERVER)]):
        silence(packet(message_type, options=options))


@pytest.mark.parametrize("message_type", [None, DISCOVER, OFFER, DECLINE, ACK, RELEASE, INFORM])
def test_port_4011_answers_requests_only(message_type: int | None) -> None:
    """A DISCOVER there is nobody's."""
    silence(packet(message_type), door=Door.BOOT_SERVER)


LEFT_ALONE = {
    "nobody registered it": Policy(boots=None),
    "there is nothing for it to boot": Policy(boots=Boots.NOTHING),
    "its discovery is off": Policy(boots=Boots.INSTALLER, discovery=Discovery.OFF),
}


@pytest.mark.parametrize("reason", LEFT_ALONE)
@pytest.mark.parametrize("options", [[GUID], [IPXE]])
@pytest.mark.parametrize("door", Door)
def test_a_machine_that_is_to_be_left_alone_is(
    reason: str, options: list[tuple[int, bytes]], door: Door
) -> None:
    """Unregistered, without anything to boot, or with its discovery off: silence to all it asks."""
    kind = DISCOVER if door is Door.DHCP else REQUEST
    decision = silence(packet(kind, options=options), door=door, policy=LEFT_ALONE[reason])
    assert decision.reason == reason
    assert decision.contact is not None
    assert decision.contact.message.endswith(f"and got no answer: {reason}")
    assert not decision.warning


@pytest.mark.parametrize("unknown", Unknown)
def test_an_unregistered_machine_is_answered_only_for_the_menu(unknown: Unknown) -> None:
    """`pxe.unknown: menu` gives strangers iPXE and then a script; they are told of in any case."""
    for data in (packet(), packet(options=[IPXE])):
        decision = judge(data, policy=Policy(boots=None), unknown=unknown)
        assert isinstance(decision, Answer) == (unknown is Unknown.MENU)
        assert decision.contact is not None


def test_a_registered_machine_with_a_disk_to_boot_is_answered() -> None:
    """Silence costs a UEFI machine a minute; it gets iPXE and then the script that leaves its disk alone."""
    assert reply(packet(), policy=Policy(boots=Boots.LOCAL_DISK)).boot_file == "snponly.efi"


# --- a host's own wishes -------------------------------------------------------------------------


def test_the_loader_of_a_host_is_given() -> None:
    """A host whose firmware fails with one build gets the other, by TFTP and as URL."""
    policy = evolve(INSTALL, loader="ipxe.efi")
    assert reply(packet(), policy=policy).boot_file == "ipxe.efi"
    http = packet(architecture=16, vendor_class=b"HTTPClient:Arch:00016:UNDI:003000")
    assert reply(http, policy=policy).boot_file == f"http://{SERVER}:8081/loaders/ipxe.efi"


@pytest.mark.parametrize(
    ("wanted", "named"), [("other.efi", "other.efi"), (None, "an iPXE build for UEFI x64")]
)
def test_a_missing_loader_is_a_warning_that_names_it(wanted: str | None, named: str) -> None:
    """Somebody has to install a package or correct a name: it is said which."""
    directions = evolve(DIRECTIONS, loader_for=lambda _, __: None)
    decision = silence(packet(), policy=evolve(INSTALL, loader=wanted), directions=directions)
    assert decision.warning
    assert decision.reason == f"{named} is not in pxe.loader_dir"


def test_discovery_by_boot_server_leaves_option_43_out() -> None:
    """Then EDK2 asks on port 4011; all else is in the offer as ever."""
    seen = reply(packet(), policy=evolve(INSTALL, discovery=Discovery.BOOT_SERVER))
    assert (seen.option(43), seen.boot_file, seen.siaddr) == (None, "snponly.efi", SERVER)


# --- port 4011 -----------------------------------------------------------------------------------


@pytest.mark.parametrize("port", [68, 4011])
@pytest.mark.parametrize("options", [[GUID], [GUID, (54, IPv4Address(SERVER).packed)]])
def test_the_boot_server_acknowledges_to_where_it_was_asked_from(
    port: int, options: list[tuple[int, bytes]]
) -> None:
    """EDK2 asks from 4011 and names nobody, iPXE from 68 and names us: ACK to source address and port."""
    data = packet(REQUEST, ciaddr="10.9.0.130", options=options, flags=0)
    seen, made = answer(data, door=Door.BOOT_SERVER, peer=("10.9.0.130", port))
    assert seen.option(53) == bytes([ACK])
    assert (seen.ciaddr, seen.flags, seen.boot_file) == ("10.9.0.130", 0, "snponly.efi")
    assert (seen.option(60), seen.option(97), seen.option(43)) == (b"PXEClient", GUID[1], None)
    assert made.target == ("10.9.0.130", port)
    assert made.contact == Contact(
        mac=Mac(MAC),
        hop=Hop.BOOT_SERVER,
        message="UEFI x64 asked for its boot file and got snponly.efi by TFTP",
        address="10.9.0.130",
        firmware="UEFI x64",
    )


def test_the_boot_server_leaves_what_another_one_is_asked() -> None:
    """Option 54 of another server on port 4011: silence."""
    silence(packet(REQUEST, options=[(54, LAN_SERVER)]), door=Door.BOOT_SERVER)


# --- iPXE ----------------------------------------------------------------------------------------

IPXES = {
    "raw user class": [IPXE],
    "user class with a length": [(77, b"\x04iPXE")],
    "one of several user classes": [(77, b"\x03abc\x04iPXE")],
    "HTTP and EFI": [(175, FEATURES)],
    "HTTP and bzImage": [(175, bytes([0x13, 1, 1, 0x18, 1, 1]))],
    "of a version that cannot be": [IPXE, (175, bytes([0xEB, 3, 0, 0, 1]))],
}
NO_IPXES = {
    "bzImage without HTTP, as in VirtualBox": [(175, bytes([0x18, 1, 1, 0x21, 1, 1]))],
    "HTTP without an image format": [(175, bytes([0x13, 1, 1]))],
    "HTTP switched off": [(175, bytes([0x13, 1, 0, 0x24, 1, 1]))],
    "a version alone": [(175, bytes([0xEB, 3, 2, 0, 0]))],
    "another user class": [(77, b"gPXE")],
    "a user class that only begins so": [(77, b"iPXElinux")],
}


@pytest.mark.parametrize("kind", IPXES)
def test_ipxe_is_sent_to_its_script(kind: str) -> None:
    """By its name in either form, or by features that are enough, never by its version."""
    seen, made = answer(packet(options=[GUID, *IPXES[kind]]))
    assert (seen.boot_file, seen.option(60), seen.option(175)) == (SCRIPT, b"PXEClient", b"\1\1\1")
    assert not made.loads
    assert made.contact == Contact(
        mac=Mac(MAC),
        hop=Hop.IPXE,
        message=f"iPXE on UEFI x64 asked for its script and was sent to {SCRIPT}",
        firmware="UEFI x64",
    )


@pytest.mark.parametrize("kind", NO_IPXES)
def test_what_is_not_enough_of_an_ipxe_is_given_a_whole_one(kind: str) -> None:
    """Features that our scripts need are missing: the loader, and no option 175."""
    seen, made = answer(packet(options=NO_IPXES[kind]))
    assert (seen.boot_file, seen.option(175), made.loads) == ("snponly.efi", None, True)


def test_ipxe_needs_no_build_of_ours() -> None:
    """It runs already, on whatever it runs."""
    assert reply(packet(architecture=6, options=[IPXE])).boot_file == SCRIPT
    directions = evolve(DIRECTIONS, loader_for=lambda _, __: None)
    assert reply(packet(options=[IPXE]), directions=directions).boot_file == SCRIPT


def test_ipxe_that_came_by_http_is_sent_to_its_script() -> None:
    """Whatever stands in its option 60, it takes a proxy's offer for one only where that says PXEClient."""
    seen = reply(packet(architecture=16, vendor_class=b"HTTPClient:Arch:00016", options=[IPXE]))
    assert (seen.boot_file, seen.option(60), seen.option(175)) == (SCRIPT, b"PXEClient", b"\1\1\1")


# --- UEFI HTTP boot ------------------------------------------------------------------------------


def test_an_http_client_is_given_a_url() -> None:
    """The URL has our address in it, not a name; option 60 says HTTPClient; there is no option 43."""
    seen, made = answer(packet(architecture=16, vendor_class=b"HTTPClient:Arch:00016:UNDI:003000"))
    assert seen.boot_file == f"http://{SERVER}:8081/loaders/snponly.efi"
    assert (seen.option(60), seen.option(43), seen.option(53)) == (b"HTTPClient", None, bytes([OFFER]))
    assert made.contact.message == "UEFI x64 by HTTP asked for a boot server and got snponly.efi by HTTP"
    assert made.contact.firmware == "UEFI x64 by HTTP"


def test_a_long_url_is_not_cut() -> None:
    """What does not fit into the header's field stands in option 67."""
    directions = evolve(DIRECTIONS, script_url=lambda *_: "http://a/" + "x" * 180)
    assert reply(packet(options=[IPXE]), directions=directions).boot_file == "http://a/" + "x" * 180


# --- what real firmware asked --------------------------------------------------------------------

EXPECTED: dict[tuple[int, int, bool, bool], dict[int, str | None]] = {
    # (port, type, HTTP?, iPXE?): the file, or None for silence
    (67, DISCOVER, False, False): {0: "undionly.kpxe", 7: "snponly.efi", 11: "arm64.efi"},
    (67, DISCOVER, True, False): {16: f"http://{SERVER}:8081/loaders/snponly.efi"},
    (67, DISCOVER, False, True): {0: "script", 7: "script", 11: "script"},
    (67, REQUEST, False, False): {0: None, 7: None, 11: None},
    (67, REQUEST, True, False): {16: None},
    (67, REQUEST, False, True): {0: None, 7: None, 11: None},
    (4011, REQUEST, False, False): {7: "snponly.efi"},
    (4011, REQUEST, False, True): {0: "script"},
}


@pytest.mark.parametrize("client", client_packets(), ids=str)
def test_captured_packets_are_answered_as_their_firmware_needs(client: Captured) -> None:
    """Each packet of a real boot gets what its sender took then, or the silence that it needs."""
    request = parse(client.payload)
    kind = (
        client.target[1],
        request.message_type,
        request.vendor_class.startswith(b"HTTP"),
        b"iPXE" in request.user_classes,
    )
    expected = EXPECTED[kind][request.architectures[0]]
    decision = judge(client.payload, door=Door(client.target[1]), peer=client.source)
    if expected is None:
        assert isinstance(decision, Silence)
        return
    assert isinstance(decision, Answer)
    assert decision.contact.firmware in map(str, FIRMWARES.values())
    seen = check_reply(build(decision.reply), client.payload, server=SERVER)
    script = f"http://{SERVER}:8080/ipxe/{str(request.mac).replace(':', '-')}"
    assert seen.boot_file == (script if expected == "script" else expected)
    # Nothing that a client must have is missing from what its firmware took then.
    assert decision.target == (("255.255.255.255", 68) if client.target[1] == 67 else client.source)


# --- the loop guard ------------------------------------------------------------------------------

HOST, OTHER = Mac(MAC), Mac("52:54:00:00:00:02")


def test_the_fourth_round_within_a_minute_is_not_admitted() -> None:
    """Three loaders may be given in 60 seconds; when the first of them is a minute old, one more."""
    guard = LoopGuard()
    assert [guard.admits(HOST, xid, xid * 10.0) for xid in range(6)] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]
    assert guard.admits(HOST, 6, 59.9) is False
    assert guard.admits(HOST, 7, 60.0) is True
    assert guard.admits(HOST, 8, 61.0) is False
    assert guard.admits(OTHER, 9, 61.0) is True


def test_a_repeated_packet_is_no_new_round() -> None:
    """A client whom no answer reaches asks again with the same number, and is answered each time."""
    guard = LoopGuard()
    assert all(guard.admits(HOST, 1, float(second)) for second in range(0, 60, 4))
    assert [guard.admits(HOST, xid, 59.5) for xid in (2, 3, 4, 1)] == [True, True, False, True]


def test_the_guard_remembers_a_bounded_number_of_machines() -> None:
    """Made-up addresses do not fill the memory: who began longest ago is forgotten."""
    guard = LoopGuard(capacity=3)
    for number in range(100):
        guard.admits(Mac(f"02:00:00:00:00:{number:02x}"), number, 0.0)
    assert len(guard._given) == 3


def test_what_is_said_of_a_loop() -> None:
    """The operator reads who loops and what provd does about it, as a warning."""
    decision = judge(packet())
    assert isinstance(decision, Answer)
    said = looping(decision)
    assert said.warning
    assert said.contact is not None
    assert said.contact.message == (
        "UEFI x64 asked for a boot server and got no answer: it was given iPXE three times within a minute "
        "and is back without having asked for a script"
    )
