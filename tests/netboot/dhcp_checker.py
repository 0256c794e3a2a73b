"""What a proxy's reply must be, byte by byte, by a reader of its own: struct, and nothing of provd's.

The numbers are those of RFC 2131, RFC 2132, RFC 3046, RFC 4578 and PXE 2.1. It is stricter than any client.
"""

import struct
from ipaddress import IPv4Address

from attrs import frozen

HEADER = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s4s")
FORBIDDEN = {1, 3, 6, 15, 50, 51, 58, 59, 66}
"""What only a server of addresses says; and 66, which stands in the header."""


@frozen(kw_only=True)
class Packet:
    op: int
    htype: int
    hlen: int
    hops: int
    xid: int
    secs: int
    flags: int
    ciaddr: str
    yiaddr: str
    siaddr: str
    giaddr: str
    chaddr: bytes
    sname: bytes
    file: bytes
    options: tuple[tuple[int, bytes], ...]

    def option(self, code: int) -> bytes | None:
        """The one option of that number. Asserts that it is not there twice."""
        found = [value for each, value in self.options if each == code]
        assert len(found) <= 1, f"option {code} stands there {len(found)} times"
        return found[0] if found else None

    @property
    def boot_file(self) -> str:
        """As EDK2 takes it: option 67 before the header's field."""
        name = self.option(67) or self.file
        assert b"\0" in name, "the boot file's name does not end"
        return name.partition(b"\0")[0].decode("ascii")


def read(data: bytes) -> Packet:
    """Take a packet apart. Asserts that it is whole, and that there is nothing but zeros after its end."""
    assert len(data) >= 240, "shorter than a header"
    op, htype, hlen, hops, xid, secs, flags, *rest, magic = HEADER.unpack_from(data)
    addresses, (chaddr, sname, file) = rest[:4], rest[4:]
    assert magic == bytes([99, 130, 83, 99]), "no DHCP"
    options, at = [], 240
    while True:
        assert at < len(data), "no option 255"
        if data[at] == 255:
            break
        if data[at] == 0:
            at += 1
            continue
        code, length = data[at], data[at + 1]
        value = data[at + 2 : at + 2 + length]
        assert len(value) == length, f"option {code} is cut off"
        options.append((code, value))
        at += 2 + length
    assert not any(data[at + 1 :]), "something stands behind the end"
    ciaddr, yiaddr, siaddr, giaddr = (str(IPv4Address(each)) for each in addresses)
    return Packet(
        op=op, htype=htype, hlen=hlen, hops=hops, xid=xid, secs=secs, flags=flags, ciaddr=ciaddr,
        yiaddr=yiaddr, siaddr=siaddr, giaddr=giaddr, chaddr=chaddr, sname=sname, file=file,
        options=tuple(options),
    )  # fmt: skip


def check_reply(data: bytes, asked: bytes, *, server: str) -> Packet:
    """Assert what holds for every reply of a proxy to what was `asked`, and give it back taken apart."""
    reply, request = read(data), read(asked)
    assert len(data) >= 300, "shorter than BOOTP's packet"
    limit = max(576, int.from_bytes(request.option(57) or b"", "big")) - 28
    assert len(data) <= limit, f"longer than the {limit} bytes that the client takes"
    assert (reply.op, reply.htype, reply.hlen, reply.hops, reply.secs) == (2, 1, 6, 0, 0)
    assert (reply.xid, reply.giaddr, reply.chaddr) == (request.xid, request.giaddr, request.chaddr)
    assert reply.flags & 0x7FFF == request.flags & 0x7FFF
    assert reply.yiaddr == "0.0.0.0", "a proxy gives no address"
    codes = [code for code, _ in reply.options]
    assert len(codes) == len(set(codes)), f"an option stands there twice: {codes}"
    assert not FORBIDDEN & set(codes), f"a proxy does not say {FORBIDDEN & set(codes)}"
    assert codes[0] == 53
    assert 82 not in codes or codes[-1] == 82, "option 82 is not the last one"
    assert reply.option(54) == IPv4Address(server).packed, "the reply does not say whose it is"
    assert reply.siaddr == server
    assert reply.sname.rstrip(b"\0") == server.encode()
    assert reply.option(60) in (b"PXEClient", b"HTTPClient")
    assert reply.option(97) == request.option(97)
    assert reply.option(82) == request.option(82)
    name = reply.option(67)
    assert name is None or (name.endswith(b"\0") and set(codes[codes.index(67) + 1 :]) <= {82})
    if (vendor := reply.option(43)) is not None:
        check_vendor_options(vendor)
    return reply


def check_vendor_options(value: bytes) -> None:
    """PXE 2.1 §2.1: encapsulated options have lengths, and an end."""
    at = 0
    while value[at] != 255:
        at += 2 + value[at + 1]
        assert at < len(value), "option 43 has no end"
    assert at == len(value) - 1, "something stands behind the end of option 43"
