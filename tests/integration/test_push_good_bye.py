"""How a dataplane takes leave of a provider: the peer is Python's h2 over ssl, which sees frames and TLS alerts.

Whatever ends the connection (a broken frame, a window that overflows, an answer to a PING that does not come, the
stop of the worker), the peer reads a GOAWAY with the reason (RFC 9113 sections 5.4.1, 6.8, 6.9.1) and then TLS's
close_notify (RFC 8446 section 6.1), and not a reset in their place."""
import socket
import ssl
import struct
import subprocess
import threading

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest

from harness import openssl
from sim import BUILD, TIMES, WAIT_S


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("peer")
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
            "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", str(folder / "key.pem"), "-out",
            str(folder / "cert.pem"))
    return folder


class Provider:
    """Accepts one connection, answers what |script| says, and reads to its end."""

    def __init__(self, certificate, script, version=None):
        self.script, self.error = script, None
        self.goaway, self.close_notify, self.requests, self.failure = None, None, 0, None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
        context.set_alpn_protocols(["h2"])
        context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
        if version:
            context.maximum_version = version
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(WAIT_S * 4)
        self.port = self.listener.getsockname()[1]
        self.context = context
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        try:
            raw, _ = self.listener.accept()
            raw.settimeout(WAIT_S * 4)
            self.tls = self.context.wrap_socket(raw, server_side=True, suppress_ragged_eofs=False)
            self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
            self.h2.initiate_connection()
            self.flush()
            self.read()
        except Exception as error:  # the thread's only voice
            self.failure = error
        finally:
            self.listener.close()

    def flush(self):
        data = self.h2.data_to_send()
        if data:
            self.tls.sendall(data)

    def read(self):
        while True:
            try:
                data = self.tls.recv(65536)
            except ssl.SSLEOFError:
                self.close_notify = False
                return
            if not data:  # TLS said that it ends; the socket was not reset
                self.close_notify = True
                self.tls.close()
                return
            for event in self.h2.receive_data(data):
                if isinstance(event, h2.events.ConnectionTerminated):
                    self.goaway = event.error_code
                if isinstance(event, h2.events.StreamEnded):
                    self.requests += 1
                    self.script(self, event.stream_id)
            if self.goaway is None:
                self.flush()

    def answer(self, stream, status=200):
        self.h2.send_headers(stream, [(":status", str(status))], end_stream=True)

    def frame(self, kind, flags, stream, payload):
        self.flush()
        self.tls.sendall(struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload)


def talk(certificate, script, *options, version=None, seconds=20):
    peer = Provider(certificate, script, version)
    command = [str(BUILD / "push_tool"), "--port", str(peer.port), "--ca", str(certificate / "cert.pem"), "--pushes", "1",
               "--seconds", str(int(seconds * TIMES)), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=(seconds + 60) * TIMES)
    assert done.stdout, done.stderr
    peer.thread.join(WAIT_S * 4)
    assert peer.failure is None, (peer.failure, done.stdout)
    return peer, done.stdout


def answers(peer, stream):
    peer.answer(stream)


def overflow(peer, stream):
    peer.frame(8, 0, 0, struct.pack(">I", 0x7fffffff))


def broken(peer, stream):
    peer.frame(0, 1, 0, b"oops")


def crowded(peer, stream):
    """Its receive buffer is full of what it has not read yet: closing over it would reset the connection."""
    peer.frame(8, 0, 0, struct.pack(">I", 0x7fffffff))
    for _ in range(40):
        peer.frame(0xbb, 0, 0, bytes(16384))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("script,code", [(answers, 0), (overflow, 3), (broken, 1), (crowded, 3)],
                         ids=["the worker stops", "a window overflows", "a broken frame", "in the middle of much"])
def test_good_bye(certificate, script, code, version):
    peer, said = talk(certificate, script, "--deadline", "1000", version=version)
    assert peer.requests == 1
    assert peer.goaway == code, (peer.goaway, said)
    assert peer.close_notify is True, "close_notify"


def test_data_behind_the_end_of_a_stream(certificate):
    """512 KiB of DATA on a stream that is over are ignored (section 5.1), and never called a header block."""
    def script(peer, stream):
        peer.answer(stream)
        for _ in range(32):
            peer.frame(0, 0, stream, bytes(16384))
    peer, said = talk(certificate, script, "--linger", "500")
    assert "header block" not in said and '"failures":0' in said, said
    assert peer.goaway == 0 and peer.close_notify is True, (peer.goaway, said)


def test_an_idle_peer_that_answers_no_ping(certificate):
    """A peer that is silent for five seconds: we end the connection, and say so."""
    class Deaf(Provider):
        def flush(self):
            data = self.h2.data_to_send()
            if data and not getattr(self, "is_deaf", False):
                self.tls.sendall(data)

    def script(peer, stream):
        peer.answer(stream)
        peer.flush()
        peer.is_deaf = True
    peer = Deaf(certificate, script)
    done = subprocess.run([str(BUILD / "push_tool"), "--port", str(peer.port), "--ca", str(certificate / "cert.pem"),
                           "--pushes", "1", "--ping-idle", "200", "--linger", "7000"], capture_output=True, text=True,
                          timeout=90 * TIMES)
    peer.thread.join(WAIT_S * 4)
    assert peer.failure is None, peer.failure
    assert peer.goaway == 0 and peer.close_notify is True, (peer.goaway, done.stdout)
    assert '"failures":0' not in done.stdout, done.stdout


def test_an_untrusted_peer_is_told_by_alert(certificate, tmp_path):
    """The handshake that we refuse ends in an alert (RFC 8446 section 6.2), not in silence."""
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=other",
            "-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem"))
    peer = Provider(certificate, answers)
    subprocess.run([str(BUILD / "push_tool"), "--port", str(peer.port), "--ca", str(tmp_path / "cert.pem"), "--pushes", "1",
                    "--deadline", "500", "--seconds", "5"], capture_output=True, text=True, timeout=60 * TIMES)
    peer.thread.join(WAIT_S * 4)
    assert isinstance(peer.failure, ssl.SSLError) and "alert" in str(peer.failure).lower(), repr(peer.failure)
