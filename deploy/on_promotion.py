"""Runs a command whenever MLflow tells that a version became champion: docs/promotion.md.

    WEBHOOK_SECRET=… python deploy/on_promotion.py 8080 systemctl restart decodiff

Listens on 127.0.0.1, for a reverse proxy with TLS. The command finds name and version in
MODEL_NAME and MODEL_VERSION. Needs nothing but Python.
"""

import base64
import hmac
import json
import os
import subprocess
import sys
import time
from email.message import Message
from http.server import BaseHTTPRequestHandler, HTTPServer

SECRET = os.environ["WEBHOOK_SECRET"].encode()
ALIAS = os.environ.get("ALIAS", "champion")
MAX_AGE_S, MAX_BYTES = 300, 100_000


def is_signed(headers: Message, body: bytes) -> bool:
    """Whether MLflow signed this with the secret within the last minutes."""
    number, when = headers.get("X-MLflow-Delivery-Id", ""), headers.get("X-MLflow-Timestamp", "")
    digest = hmac.digest(SECRET, f"{number}.{when}.".encode() + body, "sha256")
    expected = "v1," + base64.b64encode(digest).decode()
    fresh = when.isdecimal() and abs(time.time() - int(when)) <= MAX_AGE_S
    return fresh and hmac.compare_digest(
        headers.get("X-MLflow-Signature", "").encode(), expected.encode()
    )


class Receiver(BaseHTTPRequestHandler):
    """Answers MLflow."""

    timeout = 10

    def do_POST(self) -> None:
        """Run the command if the body is a signed event of the alias."""
        body = self.rfile.read(min(int(self.headers.get("Content-Length", 0)), MAX_BYTES))
        accepted = is_signed(self.headers, body)
        self.send_response(204 if accepted else 401)
        self.end_headers()
        event = json.loads(body) if accepted else {}
        if (event.get("entity"), event.get("action")) != ("model_version_alias", "created"):
            return
        data = event["data"]
        if data["alias"] == ALIAS:
            told = {"MODEL_NAME": data["name"], "MODEL_VERSION": data["version"]}
            subprocess.run(sys.argv[2:], env=os.environ | told, check=False)  # noqa: S603


if __name__ == "__main__":
    HTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
