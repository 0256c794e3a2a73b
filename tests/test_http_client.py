"""The HTTP client: the pin decides before anything is sent, and every failure becomes one phrase."""

import datetime
import gc
import hashlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from provd.http_client import (
    CertificateMismatch,
    HTTPError,
    describe_failure,
    find_mismatch,
    open_client,
)

Handler = Callable[[trio.abc.Stream], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@frozen
class Certificate:
    pem: Path
    der: bytes

    @property
    def digits(self) -> str:
        return hashlib.sha256(self.der).hexdigest()

    @property
    def fingerprint(self) -> str:
        return ":".join(f"{byte:02X}" for byte in hashlib.sha256(self.der).digest())

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.pem)
        return context


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Self-signed, for another name, and run out: none of which matters to a pin."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somewhere.else")])
    day = datetime.timedelta(days=1)
    yesterday = datetime.datetime.now(datetime.UTC) - day
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(yesterday - day)
        .not_valid_after(yesterday)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    pem, no_password = serialization.Encoding.PEM, serialization.NoEncryption()
    path.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, no_password) + made.public_bytes(pem)
    )
    return Certificate(path, made.public_bytes(serialization.Encoding.DER))


@frozen
class Server:
    port: int
    received: bytearray
    """Everything that was said to it, after TLS where there is TLS."""


@asynccontextmanager
async def serving(answer: bytes, context: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """A server that reads a request head, sends `answer`, and closes."""
    received = bytearray()

    async def serve(plain: trio.SocketStream) -> None:
        stream: trio.abc.Stream = plain
        if context is not None:
            stream = trio.SSLStream(plain, context, server_side=True, https_compatible=True)
        try:
            while b"\r\n\r\n" not in received and (data := await stream.receive_some(4096)):
                received.extend(data)
            await stream.send_all(answer)
            await stream.aclose()
        except trio.BrokenResourceError:
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield Server(listener.socket.getsockname()[1], received)
        nursery.cancel_scope.cancel()


async def failure(url: str, fingerprint: str | None = None) -> HTTPError:
    """The error of a GET that has to fail."""
    with trio.fail_after(10), pytest.raises(HTTPError) as caught:
        async with open_client(fingerprint=fingerprint) as client:
            await client.get(url, headers={"Authorization": "Bearer secret"})
    return caught.value


@pytest.mark.parametrize("write", [str.upper, str.lower, lambda text: text.replace(":", "")])
async def test_the_pinned_certificate_is_enough(
    certificate: Certificate, write: Callable[[str], str]
) -> None:
    """A pin in any spelling takes the place of authority, name and dates."""
    pinned = open_client(fingerprint=write(certificate.fingerprint))
    async with serving(OK, certificate.context()) as server, pinned as client:
        assert (await client.get(f"https://127.0.0.1:{server.port}/")).text == "ok"


@pytest.mark.parametrize("pin", ["00" * 32, "", "AA", "zz" * 32, "ü" * 64])
async def test_another_certificate_is_told_nothing(certificate: Certificate, pin: str) -> None:
    """With any other pin the handshake ends before a byte of the request, and both fingerprints are named."""
    async with serving(OK, certificate.context()) as server:
        error = await failure(f"https://127.0.0.1:{server.port}/", fingerprint=pin)
    assert server.received == b""
    mismatch = find_mismatch(error)
    assert isinstance(mismatch, CertificateMismatch)
    assert mismatch.actual == certificate.fingerprint
    described = describe_failure(error)
    assert f"fingerprint {mismatch.actual}, expected was {mismatch.expected}" in described


async def test_without_a_pin_the_authorities_count(certificate: Certificate) -> None:
    """A self-signed certificate is not accepted by a client that was given no pin."""
    async with serving(OK, certificate.context()) as server:
        error = await failure(f"https://127.0.0.1:{server.port}/")
    assert server.received == b""
    assert "certificate is not trusted" in describe_failure(error)
    assert find_mismatch(error) is None


async def test_redirects_are_answers() -> None:
    """Credentials do not wander to where an answer points."""
    answer = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    async with serving(answer) as server, open_client() as client:
        assert (await client.get(f"http://127.0.0.1:{server.port}/")).status_code == 302


async def test_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy in the environment does not see what is sent inside the LAN."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with serving(OK) as server, open_client() as client:
        assert (await client.get(f"http://127.0.0.1:{server.port}/")).text == "ok"


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_nobody_listens(scheme: str) -> None:
    """A refused connection is two words, whatever lies between it and us."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert describe_failure(await failure(f"{scheme}://127.0.0.1:{port}/", "00")) == "Connection refused"


@pytest.mark.parametrize(
    ("answer", "phrase"),
    [
        (b"", "Server disconnected without sending a response."),
        (b"nonsense\r\n\r\n", "illegal status line"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", "peer closed connection"),
    ],
)
async def test_broken_answers(answer: bytes, phrase: str) -> None:
    """An answer that is no HTTP is an `HTTPError` with a reason that does not quote the request."""
    async with serving(answer) as server:
        described = describe_failure(await failure(f"http://127.0.0.1:{server.port}/"))
    assert phrase in described
    assert "secret" not in described


async def test_plain_http_on_a_tls_port() -> None:
    """A peer that does not speak TLS is an `HTTPError` with a reason."""
    async with serving(b"HTTP/1.1 400 Bad Request\r\n\r\n") as server:
        server.received.extend(b"\r\n\r\n")  # it need not wait for a request
        error = await failure(f"https://127.0.0.1:{server.port}/", "00")
    assert describe_failure(error) == "TLS failed: wrong version number"


@given(st.lists(st.text(max_size=30), min_size=1, max_size=4), st.booleans())
def test_any_chain_has_one_line(texts: list[str], explicit: bool) -> None:
    """Whatever errors lie in each other, the phrase is one line, not empty, and of bounded length."""
    error: Exception = OSError(texts[0])
    for text in texts[1:]:
        outer = ValueError(text)
        outer.__cause__ = error if explicit else ExceptionGroup("all attempts failed", [error])
        error = outer
    described = describe_failure(error)
    assert 0 < len(described) <= 300
    assert len(described.splitlines()) == 1


def test_a_circle_of_causes_ends() -> None:
    """Two errors that name each other as their cause are walked once."""
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    assert describe_failure(one) == "other"


async def test_a_cancelled_handshake_leaves_no_connection() -> None:
    """Whoever hangs in the middle of TLS is hung up on at once, and not when memory is tidied up."""
    silent: list[trio.SocketStream] = []

    async def say_nothing(stream: trio.SocketStream) -> None:
        silent.append(stream)
        await trio.sleep_forever()

    gc.disable()
    try:
        async with trio.open_nursery() as nursery:
            [listener] = await nursery.start(partial(trio.serve_tcp, say_nothing, 0, host="127.0.0.1"))
            port = listener.socket.getsockname()[1]
            async with open_client(fingerprint="AB" * 32) as client:
                async with trio.open_nursery() as asking:
                    asking.start_soon(client.get, f"https://127.0.0.1:{port}/")
                    while not silent:
                        await trio.sleep(0.01)
                    hello = await silent[0].receive_some()
                    asking.cancel_scope.cancel()
                assert hello
                with trio.fail_after(5):
                    assert await silent[0].receive_some() == b""
            nursery.cancel_scope.cancel()
    finally:
        gc.enable()
