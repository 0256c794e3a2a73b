"""The HTTPS server of one node: sockets, TLS, HTTP/1.1 and the envelope; what is answered is in `routes.py`.

Every connection gets the certificate that the node has at that moment, and the listening socket closes while
the node's API is down, so that clients are really refused.
"""

import json
import os
import re
import socket
import ssl
import struct
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from subprocess import DEVNULL
from typing import Any
from urllib.parse import parse_qsl, unquote

import h11
import trio
from attrs import evolve

from provd.simulator.cluster import leaves
from provd.simulator.cluster.cluster import Cluster
from provd.simulator.cluster.console import STARTED
from provd.simulator.cluster.machine import Machine
from provd.simulator.cluster.request import PMXCFS_DOWN, View, fail_parameters
from provd.simulator.cluster.routes import answer
from provd.simulator.cluster.state import ClusterNode, ClusterState
from provd.simulator.cluster.tasks import Upid, process_start
from provd.simulator.cluster.tickets import ApiError

MAX_BODY = 512 * 1024
# How often other processes' changes are looked for, in seconds; nothing can wake this one.
GLANCE = 0.02


async def serve_api(
    cluster: Cluster,
    node: str,
    *,
    root: Path | None = None,
    task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the API of `node` until cancelled; started with its address and port.

    `node` is a member of `cluster`, or, where `root` is given, the machine of that root: in no cluster
    first, and a member from the moment it has joined. A member's port is the cluster's `api_port`.
    """
    async with trio.open_nursery() as nursery:
        server = Server(cluster, node, root, nursery)
        ip = server.ip()
        listener = await _listen(ip, cluster.read().api_port)
        port = listener.socket.getsockname()[1]
        if cluster.read().api_port == 0:
            with cluster.edit() as state:
                state.api_port = port
        task_status.started((ip, port))
        while True:
            async with listener, trio.open_nursery() as accepting:
                accepting.start_soon(server.accept, listener)
                await server.wait_until(down=True)
                accepting.cancel_scope.cancel(reason="the simulated API goes down")
            await server.wait_until(down=False)
            listener = await _listen(ip, port)


async def _listen(ip: str, port: int) -> trio.SocketListener:
    [listener] = await trio.open_tcp_listeners(port, host=ip)
    return listener


class Server:
    def __init__(self, cluster: Cluster, node: str, root: Path | None, nursery: trio.Nursery) -> None:
        self._cluster = cluster
        self._node = node
        self._root = root
        self._nursery = nursery
        self._contexts: dict[bytes, ssl.SSLContext] = {}
        self._newest: ssl.SSLContext | None = None

    # --- what the node is at this moment ----------------------------------------------------------

    def ip(self) -> str:
        if self._root is not None:
            return Machine(self._root).read().ip
        return self._cluster.read().nodes[self._node].ring0_addr

    def is_member(self) -> bool:
        """Whether it has ever joined; it may have been struck out since."""
        return self._root is None or Machine(self._root).read().joined

    def is_down(self) -> bool:
        if self._root is not None and "pveproxy" in Machine(self._root).read().stopped_units:
            return True
        if not self.is_member():
            return False
        state = self._cluster.read()
        node = state.nodes.get(self._node)
        if self._node in state.faults.peer_down:
            return True
        if node is None:
            return self._root is None
        return time.time() - node.restarted_at < state.timings.api_restart

    def view(self) -> View:
        """Raise `ApiError` while the node has no /etc/pve."""
        state = self._cluster.read()
        if self.is_member():
            return self._view_of_member(state)
        assert self._root is not None  # or it would be a member
        machine = Machine(self._root)
        own = machine.read()
        if not own.pve_cluster or own.corosync:
            raise ApiError(500, PMXCFS_DOWN)
        alone = ClusterState(name=None, profile=state.profile, api_port=state.api_port, timings=state.timings)
        alone.nodes[self._node] = ClusterNode(
            nodeid=0, links={"0": own.ip}, online=True, seen=True, root_password=own.root_password
        )
        return View(alone, machine.pve, self._node, machine, self._cluster)

    def _view_of_member(self, state: ClusterState) -> View:
        """Only who is online sees the others; who was struck out does not even know it (pmxcfs)."""
        node = state.nodes.get(self._node)
        root = self._root or (Path(node.root) if node and node.root else None)
        if root is None:
            raise ApiError(500, PMXCFS_DOWN)
        machine = Machine(root)
        own = machine.read()
        if not own.pve_cluster:
            raise ApiError(500, PMXCFS_DOWN)
        if node is not None and node.online and node.root == str(root):
            return View(state, self._cluster.pve, self._node, machine, self._cluster)
        for other in state.nodes.values():
            other.online = False
        if node is None:
            free = max((other.nodeid for other in state.nodes.values()), default=0) + 1
            node = ClusterNode(nodeid=free, links={"0": own.ip}, root_password=own.root_password)
        alone_in_it = evolve(node, online=True, seen=True)
        state.nodes[self._node] = alone_in_it
        state.expected_votes = state.configured_votes
        return View(state, machine.pve, self._node, machine, self._cluster)

    def tls(self) -> ssl.SSLContext:
        """For the leaf of this moment; while /etc/pve is away the last one, as pveproxy keeps it."""
        leaf = leaves.served_leaf(Machine(self._root).pve if self._root else self._cluster.pve, self._node)
        try:
            pem = leaf.read_bytes()
        except FileNotFoundError:
            if self._newest is None:
                raise
            return self._newest
        if pem not in self._contexts:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(leaf, leaf.with_suffix(".key"))
            self._contexts[pem] = context
        self._newest = self._contexts[pem]
        return self._newest

    async def wait_until(self, *, down: bool) -> None:
        while self.is_down() is not down:  # noqa: ASYNC110 - what changes is a file
            await trio.sleep(GLANCE)

    # --- connections --------------------------------------------------------------------------------

    async def accept(self, listener: trio.SocketListener) -> None:
        while True:
            stream = await listener.accept()
            if self.is_down():
                # Too late to refuse: reset, which is what a client sees of a server that dies just now.
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                await stream.aclose()
                return
            self._nursery.start_soon(self.converse, stream)

    async def converse(self, stream: trio.SocketStream) -> None:
        """Answer one connection until either side ends it."""
        async with stream:
            try:
                dropped = self._is_dropped(stream.socket.getpeername()[0])
                context = self.tls()
            except OSError:
                return  # the client is gone already, or the node has no certificate yet
            # A client that goes away or talks something else harms its own connection only.
            with suppress(trio.BrokenResourceError, h11.RemoteProtocolError):
                if dropped:
                    while await stream.receive_some():
                        pass  # a firewall that drops says nothing
                    return
                tls = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
                await self._speak_http(tls)

    def _is_dropped(self, peer: str) -> bool:
        state = self._cluster.read()
        node = state.nodes.get(self._node)
        return self.is_member() and node is not None and node.firewalled and peer not in state.management

    async def _speak_http(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        http = h11.Connection(h11.SERVER)

        async def receive() -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
            while (event := http.next_event()) is h11.NEED_DATA:
                http.receive_data(bytes(await stream.receive_some(65536)))
            return event

        while isinstance(request := await receive(), h11.Request):
            body = b""
            while isinstance(part := await receive(), h11.Data):
                body += part.data
                if len(body) > MAX_BODY:
                    return
            status, reason, content = await self._answer(request, body)
            headers = [
                ("Server", "pve-api-daemon/3.0"),
                ("Cache-Control", "max-age=0"),
                ("Content-Type", "application/json;charset=UTF-8"),
                ("Content-Length", str(len(content))),
                *([("Connection", "close")] if status >= 400 else []),
            ]
            for event in (
                h11.Response(status_code=status, reason=reason.encode(), headers=headers),
                h11.Data(data=content),
                h11.EndOfMessage(),
            ):
                await stream.send_all(http.send(event) or b"")
            if http.our_state is h11.MUST_CLOSE:
                return
            http.start_next_cycle()

    async def _answer(self, request: h11.Request, body: bytes) -> tuple[int, str, bytes]:
        """Status, reason phrase and body."""
        path, _, query = request.target.decode("latin-1").partition("?")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers}
        message_in_body = self._cluster.read().release.message_in_body
        try:
            data = await answer(
                self.view(),
                self,
                method=request.method.decode("latin-1"),
                path=unquote(path),
                headers=headers,
                parameters=parameters_in(query, headers.get("content-type", ""), body),
            )
        except ApiError as error:
            message = str(error)
            reason = re.sub(r"[\x00-\x1f\x7f]", " ", message.partition("\n")[0])
            if error.status == 401:
                await trio.sleep(self._cluster.read().timings.auth_delay)
            if error.status == 401 or error.status >= 595:
                return error.status, reason, b""
            document: dict[str, Any] = {"data": None}
            if message_in_body:
                document["message"] = f"{message}\n"
            if error.errors:
                document["errors"] = error.errors
            return error.status, reason, json.dumps(document).encode()
        return 200, "OK", json.dumps({"data": data}, ensure_ascii=False).encode()

    # --- tasks --------------------------------------------------------------------------------------

    async def start_join(self, machine: Machine, words: list[str], password: str) -> Upid:
        """Run the machine's own `pvecm`; it outlives the request, and ends with the server."""
        started = int(time.time())
        process = await self._nursery.start(
            partial(
                trio.run_process,
                [machine.path("/usr/local/bin/pvecm"), *words],
                stdin=f"{password}\n".encode(),
                stdout=DEVNULL,
                stderr=DEVNULL,
                check=False,
                cwd="/",
                env={**os.environ, STARTED: str(started)},
            )
        )
        pid = process.pid
        upid = Upid(
            node=self._node, pid=pid, pstart=process_start(pid), starttime=started, type="clusterjoin"
        )
        log = upid.file(machine.root)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()  # the task can be asked for before its process has said a word
        return upid


def parameters_in(query: str, content_type: str, body: bytes) -> dict[str, str]:
    """Query and body as one, all values as text; raise `ApiError` for a body that cannot be read."""
    found = dict(parse_qsl(query, keep_blank_values=True))
    text = body.decode("utf-8", "replace")
    if not text:
        return found
    if not re.match(r"application/json\b", content_type):
        return found | dict(parse_qsl(text, keep_blank_values=True))
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        fail_parameters({"body": "malformed JSON string"})
    return found | {
        name: str(int(value)) if isinstance(value, bool) else str(value)
        for name, value in document.items()
        if value is not None
    }
