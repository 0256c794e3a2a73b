"""Plays a daemon's HTTP answers for simulated machines, and keeps every request it gets."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from attrs import Factory, define, frozen
from hypercorn.config import Config
from hypercorn.trio import serve

INSTALLER = """#!ipxe
imgfree
set b {url}/files
kernel ${{b}}/vmlinuz initrd=initrd.magic ramdisk_size=16777216 rw quiet {words} || goto bad
initrd ${{b}}/initrd.img || goto bad
initrd ${{b}}/proxmox.iso proxmox.iso || goto bad
boot || goto bad
:bad
echo installer boot failed
exit 1
"""
ANSWER = """
[global]
country = "us"
keyboard = "en-us"
timezone = "UTC"
fqdn = "nuc1.lab.example"
mailto = "ops@lab.example"
root-password-hashed = "$6$x$y"
root-ssh-keys = {keys}
reboot-on-error = {reboot_on_error}
[network]
source = "from-dhcp"
[disk-setup]
filesystem = "ext4"
disk-list = ["nvme0n1"]
[post-installation-webhook]
url = "{url}/api/hosts/1/installed"
[first-boot]
source = "from-url"
ordering = "fully-up"
url = "{url}/api/hosts/1/first-boot-script"
"""
FIRST_BOOT = b"""#!/bin/sh
set -e
echo "argument: $1, directory: $PWD"
echo vfio-pci >> "$PROVD_ROOT/etc/modules"
update-grub --all
"""


@frozen
class Reply:
    status: int = 200
    content_type: str | None = "text/plain"
    body: bytes = b""


@frozen
class Received:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    peer: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@define(eq=False)
class ScriptedDaemon:
    """`replies` wins over the ordinary course: installer while `armed`, disarmed by the answer."""

    url: str = ""
    armed: bool = True
    keys: list[str] = Factory(list)
    reboot_on_error: bool = True
    words: str = "proxmox-start-auto-installer"
    disarmed_by: str = "/api/boot/answer"
    first_boot: bytes = FIRST_BOOT
    answer: str = ANSWER
    replies: dict[str, Reply] = Factory(dict)
    received: list[Received] = Factory(list)
    hosts: dict[str, str] = Factory(dict)
    _arrived: trio.Event = Factory(trio.Event)

    def of(self, path: str) -> list[Received]:
        return [one for one in self.received if one.path == path]

    async def wait_for(self, path: str, times: int = 1) -> list[Received]:
        while len(found := self.of(path)) < times:
            await self._arrived.wait()
        return found

    def reply(self, one: Received) -> Reply:
        if one.path == self.disarmed_by:
            self.armed = False
        if one.path in self.replies:
            return self.replies[one.path]
        match one.method, one.path.split("/")[1:]:
            case "GET", ["ipxe", _]:
                script = INSTALLER.format(url=self.url, words=self.words) if self.armed else "#!ipxe\nexit\n"
                return Reply(body=script.encode())
            case "GET", ["files", _]:
                return Reply(body=b"x" * 64)
            case "POST", ["api", "boot", "answer"]:
                flag = "true" if self.reboot_on_error else "false"
                text = self.answer.format(url=self.url, keys=json.dumps(self.keys), reboot_on_error=flag)
                return Reply(content_type="application/toml", body=text.encode())
            case "POST", ["api", "hosts", _, "installed"]:
                return Reply()
            case "GET", ["api", "hosts", _, "first-boot-script"]:
                return Reply(body=self.first_boot)
            case "POST", ["api", "hosts"]:
                known = one.json["mac"] in self.hosts
                self.hosts.setdefault(one.json["mac"], "registered")
                return Reply(409 if known else 201)
            case "GET", ["api", "hosts"]:
                hosts = [{"mac": mac, "state": state} for mac, state in self.hosts.items()]
                return Reply(content_type="application/json", body=json.dumps({"hosts": hosts}).encode())
        return Reply(404, body=b"nothing here\n")

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                event = (await receive())["type"]
                await send({"type": f"{event}.complete"})
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        one = Received(scope["method"], scope["path"], headers, body, scope["client"][0])
        reply = self.reply(one)
        self.received.append(one)
        arrived, self._arrived = self._arrived, trio.Event()
        arrived.set()
        lines = [(b"content-length", str(len(reply.body)).encode())]
        if reply.content_type is not None:
            lines.append((b"content-type", reply.content_type.encode()))
        if reply.status in (301, 302, 307, 308):
            lines.append((b"location", b"/elsewhere"))
        await send({"type": "http.response.start", "status": reply.status, "headers": lines})
        await send({"type": "http.response.body", "body": reply.body})


@asynccontextmanager
async def scripted_daemon(port: int = 0) -> AsyncIterator[ScriptedDaemon]:
    daemon = ScriptedDaemon()
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.errorlog = None
    config.accesslog = None
    async with trio.open_nursery() as nursery:
        daemon.url = (await nursery.start(serve, daemon.app, config))[0]
        yield daemon
        nursery.cancel_scope.cancel()
