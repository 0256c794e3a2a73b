"""The Proxmox automated installer's conversation: get an answer, get the first-boot script, report.

One attempt each and no retry, as in the original: whatever goes wrong raises `InstallerRefused` and
leaves the machine at a root shell on its console. What is installed, and where, is not known here.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen

from provd.simulator.machine.answer_keys import INSTALLERS
from provd.simulator.machine.answer_rules import (
    FirstBootOrder,
    InstallOrder,
    WebhookOrder,
    check_answer,
    check_document,
)
from provd.simulator.machine.hardware import Hardware
from provd.simulator.machine.ipxe import Boots
from provd.simulator.machine.refusal import InstallerRefused
from provd.simulator.machine.reports import system_information
from provd.simulator.machine.requests import Reply, post_and_hang_up, request

ANSWER_AT_MOST = 10 << 20
FIRST_BOOT_AT_MOST = 1 << 20
_JSON = "application/json; charset=utf-8"
_DROPPED = re.compile(
    r"(BOOT_IMAGE|root|ramdisk_size|splash|vga|hdsize|swapsize|maxroot|minfree|maxvz)=.*"
    r"|ro|rw|quiet|ext4|xfs|prox(debug|tui|auto)|proxmox-.*"
)
# A file in a "newc" archive that somebody appended to the initrd: header of 110 bytes, then the name.
_APPENDED_ISO = re.compile(rb"070701[0-9A-Fa-f]{104}(?:\./|/)?proxmox\.iso\0")


@frozen(kw_only=True)
class Installer:
    """One run of the installer on one machine. `say` prints on its console."""

    hardware: Hardware
    release: str
    source_ip: str
    say: Callable[[str], None]

    @property
    def strict(self) -> bool:
        """9.2.0 began to insist on 200 or 201, and to understand JSON answers."""
        return INSTALLERS[self.release] >= (9, 2, 0)

    async def fetch_order(
        self,
        url: str,
        *,
        token: str | None = None,
        lose_first_response: bool = False,
        others: tuple[str, ...] = (),
    ) -> InstallOrder:
        """Ask `url` for the answer and judge it. Raises `InstallerRefused`.

        `token` is the prepared ISO's, which installers know since PVE 9.2.
        """
        headers = {"content-type": _JSON}
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        if self.strict:
            headers["accept"] = "application/json, application/toml;q=0.5"
        document = system_information(self.hardware, self.release)
        if others:
            stranger = document | {
                "network_interfaces": [{"link": f"eno{n}", "mac": mac} for n, mac in enumerate(others, 1)]
            }
            reply = await self._post(url, stranger, headers)
            self.say(f"the installer of {', '.join(others)} was told {reply.status}")
        if lose_first_response:
            await post_and_hang_up(url, body=_body(document), headers=headers)
            self.say("the answer did not arrive; asking once more")
        reply = await self._post(url, document, headers)
        self._check_status(reply, "fetching the answer failed")
        if len(reply.body) >= ANSWER_AT_MOST:
            raise InstallerRefused("fetching the answer failed: the body is too large")
        if self.strict and reply.content_type.lower().startswith("application/json"):
            return check_document(_read_json(reply), self.release, self.hardware)
        try:
            answer = reply.body.decode()
        except UnicodeDecodeError as error:
            raise InstallerRefused("the answer is not UTF-8") from error
        return check_answer(answer, self.release, self.hardware)

    async def fetch_first_boot(self, order: FirstBootOrder) -> bytes:
        """Get the script, before any disk is touched. What exceeds 1 MiB is cut off without a word."""
        if order.url is None:
            raise InstallerRefused("first-boot: this ISO carries no first-boot file")
        reply = await request(
            "GET",
            order.url,
            source_ip=self.source_ip,
            fingerprint=order.cert_fingerprint,
            at_most=FIRST_BOOT_AT_MOST,
        )
        if reply.status >= 400:
            raise InstallerRefused(f"fetching the first-boot script failed: status {reply.status}")
        return reply.body

    async def report(self, order: WebhookOrder, document: Mapping[str, Any]) -> None:
        """Post the webhook once. Raises `InstallerRefused`: the system is installed all the same."""
        reply = await self._post(order.url, document, {"content-type": _JSON}, order.cert_fingerprint)
        self._check_status(reply, "the post-installation webhook failed")

    async def _post(
        self, url: str, document: Mapping[str, Any], headers: Mapping[str, str], pin: str | None = None
    ) -> Reply:
        return await request(
            "POST",
            url,
            source_ip=self.source_ip,
            body=_body(document),
            headers=headers,
            fingerprint=pin,
            at_most=ANSWER_AT_MOST,
        )

    def _check_status(self, reply: Reply, failure: str) -> None:
        """Since 9.2.0 the console shows status and body; before, any non-error status would do."""
        if self.strict and reply.status not in (200, 201):
            raise InstallerRefused(f"{failure}: status {reply.status}: {reply.text}")
        if reply.status >= 400:
            raise InstallerRefused(f"{failure}: status {reply.status}")


def find_iso(boots: Boots) -> None:
    """Raise `InstallerRefused` unless the initramfs will hold `/proxmox.iso`, as the installer's init wants.

    iPXE gives a file a name there when the `initrd` line has one. An archive appended to another
    initrd counts where it begins on a multiple of four bytes; elsewhere the kernel skips it.
    """
    named = any(image.arguments.split()[:1] == ["proxmox.iso"] and image.content for image in boots.initrds)
    appended = any(
        found.start() % 4 == 0
        for image in boots.initrds
        if not image.arguments
        for found in _APPENDED_ISO.finditer(image.content)
    )
    if not named and not appended:
        raise InstallerRefused("no device with valid ISO found")


def leaked_arguments(command_line: str) -> tuple[str, ...]:
    """The words of the installer's kernel line that stay in the installed system's (PVE 8.2 to 9.2)."""
    return tuple(word for word in command_line.split() if _DROPPED.fullmatch(word) is None)


def _body(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _read_json(reply: Reply) -> object:
    """`null` is the same as an absent key."""

    def without_null(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without_null(item) for key, item in value.items() if item is not None}
        return [without_null(item) for item in value] if isinstance(value, list) else value

    try:
        return without_null(json.loads(reply.body))
    except (ValueError, RecursionError) as error:
        raise InstallerRefused(f"failed parsing answer file: {error}") from error
