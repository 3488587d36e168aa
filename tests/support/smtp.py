"""A mail server on loopback: takes one message a connection, or misbehaves as it is told."""

import socketserver
import threading
from contextlib import contextmanager
from email import message_from_bytes, policy


class MailServer(socketserver.ThreadingTCPServer):
    """What was taken, and what goes wrong next: the answer to a command ("RCPT", "DATA", "."), or "hang up"."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Talk)
        self.taken = []
        self.wrong = {}


class _Talk(socketserver.StreamRequestHandler):
    def handle(self):
        self._say("220 mail.test")
        for line in iter(self.rfile.readline, b""):
            command = line.decode().strip()
            word = command[:4].upper()
            if self._goes_wrong(word):
                return
            if word == "DATA":
                self._say("354 go on")
                body = b"".join(iter(self.rfile.readline, b".\r\n"))
                if self._goes_wrong("."):
                    return
                self.server.taken.append(message_from_bytes(body, policy=policy.default))
            self._say("250 fine")

    def _goes_wrong(self, word):
        answer = self.server.wrong.get(word)
        if answer == "hang up":
            return True
        if answer:
            self._say(answer)
        return bool(answer)

    def _say(self, line):
        self.wfile.write(f"{line}\r\n".encode())


@contextmanager
def mail_server():
    """Serves until the block ends."""
    with MailServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
