"""The iPXE interpreter: what a script does, where it ends, and that no script can break it."""

import trio
from hypothesis import given
from hypothesis import strategies as st

from provd.simulator.machine.ipxe import COMMANDS, Boots, BootsLocalDisk, FetchFailed, Run, run_script

BASE = "http://192.0.2.5/ipxe/02-00-00-00-00-01"
FILES = {f"http://192.0.2.5/{name}": name.encode() for name in ("vmlinuz", "initrd.img", "proxmox.iso")} | {
    f"http://192.0.2.5/{name}": b"#!ipxe\n" + script
    for name, script in {
        "one": b"echo in one\nset left one\nexit\necho never",
        "fails": b"echo in two\nexit 1\necho never",
        "breaks": b"isset ${nothing}\necho never",
        "sub/far": b"chain ../one",
        "leaves": b"sanboot --drive 0x80",
        "circle": b"chain --replace circle",
        "labels": b"goto b\nexit 1\n:b\necho b",
    }.items()
}
SETTINGS = {"mac": "02:00:00:00:00:01", "net0/mac": "02:00:00:00:00:01", "platform": "efi"}


async def fetch(url: str) -> bytes:
    await trio.lowlevel.checkpoint()
    if url not in FILES:
        raise FetchFailed("status 404")
    return FILES[url]


async def run(*lines: str, picks: str | None = None) -> Run:
    script = "\n".join(["#!ipxe", *lines])
    return await run_script(script, base=BASE, settings=SETTINGS, fetch=fetch, picks=picks)


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
        (["exit 3"], "exit 3"),
        (["autoboot || exit 1"], "autoboot"),
        (["isset ${nothing} &&", "exit"], "script failed: isset: not set"),
        (["sleep soon", "exit"], "script failed: 'soon': invalid number"),
        (["ifopen net7", "exit"], "script failed: net7: no such network device"),
        (["ifopen net0", "exit"], "exit"),
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
    """They bind from left to right, as in a shell; a comment ends the line."""
    for line, echoed in (
        ("isset ${nothing} || echo b", ("b",)),
        ("isset ${mac} || echo b", ()),
        ("isset ${mac} && echo b", ("b",)),
        ("isset ${mac} || echo b && echo c", ("c",)),
        ("isset ${nothing} && echo b || echo c", ("c",)),
        ("isset ${nothing} || echo b && echo c", ("b", "c")),
        ("iseq a b || iseq a c && echo b || echo c", ("c",)),
        ("isset ${nothing} ; echo b", ("b",)),
        ("isset ${nothing} &&", ()),
        ("isset ${nothing} ||", ()),
        ("iseq ${platform} efi && echo a && echo b", ("a", "b")),
        ("echo a # || echo b", ("a",)),
        ("goto nowhere || echo b", ("b",)),
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


MENU = ("menu what now", "item --gap -- some ${platform} words", "item one The first", "item two The second")


async def test_a_menu_is_left_to_its_timeout_or_to_somebody() -> None:
    """The default after the time, the first item without one, and otherwise what is picked."""
    for choose, picks, choice, waited in (
        ("choose --timeout 5000 --default two choice", None, "two", (5.0,)),
        ("choose --timeout 5000 choice", None, "one", (5.0,)),
        ("choose --timeout 5000 --default two choice", "one", "one", ()),
        ("choose choice", "two", "two", ()),
    ):
        ran = await run(*MENU, choose, "echo ${choice}", picks=picks)
        assert (ran.echoed, ran.slept) == ((choice,), waited)


async def test_menus_that_go_wrong() -> None:
    """A machine that waits for ever is told; items and choices without a menu, or unknown ones, fail."""
    for lines, reason in (
        ([*MENU, "choose choice || exit"], "choose: waits for ever"),
        (["item one The first"], "script failed: item: no such menu"),
        (["choose --timeout 1 choice"], "script failed: choose: no such menu"),
        ([*MENU, "choose --timeout 1 --default three choice"], "script failed: choose: no such item"),
        ([*MENU, "choose --time 1 choice"], "script failed: --time: unrecognised option"),
        ([*MENU, "choose --timeout 1 a", "choose --timeout 1 a"], "script failed: choose: no such menu"),
    ):
        assert (await run(*lines)).outcome == BootsLocalDisk(reason)


async def test_scripts_that_chain() -> None:
    """Another script runs with the same settings; control comes back, unless it was to be replaced."""
    for lines, echoed, reason in (
        (["chain /one && echo ${left}"], ("in one", "one"), "the script ended"),
        (["chain --autofree /fails || echo back"], ("in two", "back"), "the script ended"),
        (["chain --replace /one", "echo never"], ("in one",), "exit"),
        (["chain --replace /fails || echo never"], ("in two",), "exit 1"),
        (["chain --replace /breaks || echo never"], (), "script failed: isset: not set"),
        (["chain /breaks || echo back"], ("back",), "the script ended"),
        (["chain /sub/far"], ("in one",), "the script ended"),
        (["chain /leaves && echo never"], (), "sanboot --drive 0x80"),
        (["chain /vmlinuz || echo back"], ("back",), "the script ended"),
        (["chain /nowhere || echo back"], ("back",), "the script ended"),
        (["chain --replace /nowhere || echo back"], ("back",), "the script ended"),
        (["chain --free /one || echo back"], ("back",), "the script ended"),
        (["chain /circle"], (), "the scripts go in circles"),
        (
            ["goto b", "chain /one", ":b", "chain /labels", "goto b2", "exit", ":b2"],
            ("b",),
            "the script ended",
        ),
    ):
        ran = await run(*lines)
        assert (ran.echoed, ran.outcome) == (echoed, BootsLocalDisk(reason)), lines


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
        "--gap",
        "--timeout",
        "--replace",
        "/one",
        "/circle",
        ";",
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
