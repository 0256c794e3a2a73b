"""The iPXE interpreter: what a script does, where it ends, and that no script can break it."""

import trio
from hypothesis import given
from hypothesis import strategies as st

from provd.simulator.machine.ipxe import COMMANDS, Boots, BootsLocalDisk, FetchFailed, Run, run_script

BASE = "http://192.0.2.5/ipxe/02-00-00-00-00-01"
FILES = {f"http://192.0.2.5/{name}": name.encode() for name in ("vmlinuz", "initrd.img", "proxmox.iso")}
SETTINGS = {"mac": "02:00:00:00:00:01", "net0/mac": "02:00:00:00:00:01", "platform": "efi"}


async def fetch(url: str) -> bytes:
    await trio.lowlevel.checkpoint()
    if url not in FILES:
        raise FetchFailed("status 404")
    return FILES[url]


async def run(*lines: str) -> Run:
    return await run_script("\n".join(["#!ipxe", *lines]), base=BASE, settings=SETTINGS, fetch=fetch)


async def test_kernel_and_initrds_are_booted() -> None:
    """`boot` starts the kernel with its words and every initrd with its name, in order."""
    ran = await run(
        "imgfree",
        "set b http://192.0.2.5",
        "kernel ${b}/vmlinuz initrd=initrd.magic quiet || goto bad",
        "initrd ${b}/initrd.img",
        "initrd /proxmox.iso proxmox.iso",
        "boot || goto bad",
        ":bad",
        "exit 1",
    )
    assert isinstance(ran.outcome, Boots)
    assert ran.outcome.kernel.arguments == "initrd=initrd.magic quiet"
    assert [image.arguments for image in ran.outcome.initrds] == ["", "proxmox.iso"]
    assert ran.outcome.initrds[1].content == b"proxmox.iso"


async def test_a_failed_download_takes_the_other_way() -> None:
    """`||` runs after a failure only; the label's commands follow; sleeps are noted, not slept."""
    ran = await run(
        "kernel http://192.0.2.5/nothing || goto bad", "boot", ":bad", "echo oh  no", "sleep 30", "exit 1"
    )
    assert ran.outcome == BootsLocalDisk("exit 1")
    assert ran.echoed == ("oh no",)
    assert ran.slept == (30.0,)


async def test_how_a_script_hands_over_to_the_disk() -> None:
    """exit, sanboot, the end, an error, an unknown command, a missing label, no images, endless loops."""
    for lines, reason in (
        (["exit"], "exit"),
        (["sanboot --no-describe --drive 0x80", "echo not reached"], "sanboot --no-describe --drive 0x80"),
        (["echo x"], "the script ended"),
        (["kernel http://192.0.2.5/nothing", "exit"], "script failed: http://192.0.2.5/nothing: status 404"),
        (["frobnicate", "exit"], "script failed: frobnicate: command not found"),
        (["goto nowhere"], "script failed: goto nowhere: no such label"),
        (["boot"], "script failed: boot: no image selected"),
        ([":a", "goto a"], "the script goes in circles"),
    ):
        ran = await run(*lines)
        assert ran.outcome == BootsLocalDisk(reason)
        assert "not reached" not in ran.echoed


async def test_only_a_script_is_run() -> None:
    """Anything without `#!ipxe` at its head is no script."""
    for text in ("", "hello", "# !ipxe\nexit", "#!ipxes\nexit"):
        ran = await run_script(text, base=BASE, settings=SETTINGS, fetch=fetch)
        assert ran.outcome == BootsLocalDisk("not an iPXE script")


async def test_the_joints_of_a_line() -> None:
    """The first joint that does not want more ends the line; a comment ends it too."""
    for line, echoed in (
        ("isset ${nothing} || echo b", ("b",)),
        ("isset ${mac} || echo b", ()),
        ("isset ${mac} && echo b", ("b",)),
        ("isset ${mac} || echo b && echo c", ()),
        ("isset ${nothing} && echo b || echo c", ()),
        ("iseq ${platform} efi && echo a && echo b", ("a", "b")),
        ("echo a # || echo b", ("a",)),
    ):
        ran = await run(line)
        assert ran.echoed == echoed, line


async def test_settings_are_expanded() -> None:
    """Types, nesting, unset ones; a value with blanks stays one word."""
    ran = await run(
        "set name mac",
        "echo ${net0/mac:hexhyp} ${${name}} [${nothing}] ${platform:uristring}",
        "set two a  b",
        "iseq ${two} ${two} && echo same",
        "set wait:int32 0",
        "inc wait 5",
        "inc wait",
        "echo ${wait}",
        "clear two",
        "isset ${two} || echo gone",
        "inc name",
    )
    assert ran.echoed == (
        "02-00-00-00-00-01 02:00:00:00:00:01 [] efi",
        "same",
        "6",
        "gone",
    )
    assert ran.outcome == BootsLocalDisk("script failed: inc: not a number")


async def test_imgfree_and_a_second_kernel() -> None:
    """`imgfree` forgets every image; of two kernels the last one is booted."""
    ran = await run("kernel /vmlinuz", "imgfree", "boot")
    assert ran.outcome == BootsLocalDisk("script failed: boot: no image selected")
    ran = await run("kernel /initrd.img a", "kernel /vmlinuz b", "boot")
    assert isinstance(ran.outcome, Boots)
    assert ran.outcome.kernel.arguments == "b"
    assert not ran.outcome.initrds


WORDS = st.sampled_from(
    [
        *COMMANDS,
        "||",
        "&&",
        "#",
        ":a",
        "a",
        "${a}",
        "${${a}}",
        "5",
        "/vmlinuz",
        "--name",
        "\n",
        "\n",
        "${",
        "}",
    ]
)


@given(st.one_of(st.text(), st.lists(WORDS).map(" ".join)))
def test_any_text_is_booted_or_not(text: str) -> None:
    """Whatever the script holds, it ends in a boot or at the local disk."""

    async def main() -> Run:
        return await run_script("#!ipxe\n" + text, base=BASE, settings=SETTINGS, fetch=fetch)

    assert isinstance(trio.run(main).outcome, Boots | BootsLocalDisk)
