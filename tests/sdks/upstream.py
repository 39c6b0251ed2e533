"""A stub of the content management API that records each request and returns plausible JSON."""

import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Arrived:
    """A request as the API received it."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]

    def values(self, name: str) -> list[str]:
        """Returns the values of a header. The name may be spelled with `-` or `_`."""
        return [value for sent, value in self.headers if sent.lower().replace("_", "-") == name]


class Upstream:
    """A server on a free port."""

    def __init__(self) -> None:
        self.arrived: list[Arrived] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                self.read_body()
                stub.arrived.append(Arrived(self.command, self.path, tuple(self.headers.items())))
                body = json.dumps(stub.body(self.command, self.path)).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def read_body(self) -> None:
                if self.headers.get("transfer-encoding") != "chunked":
                    self.rfile.read(int(self.headers.get("content-length") or 0))
                    return
                while size := int(self.rfile.readline(), 16):
                    self.rfile.read(size + 2)
                self.rfile.readline()

            def log_message(self, *_: object) -> None:
                pass

        for method in ("GET", "POST", "PUT", "DELETE"):
            setattr(Handler, f"do_{method}", Handler.answer)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def body(self, method: str, path: str) -> object:
        """Returns a body that clients accept as a response of the API."""
        return {"notice": f"{method} {path}", "entry": {"uid": "blt1"}}

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
