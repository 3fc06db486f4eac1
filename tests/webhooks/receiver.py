"""A receiver of webhooks made of what others use: standardwebhooks verifies a request, cloudevents reads it.

    python receiver.py SECRET

Prints its port, then a line of JSON for each request.
"""
import base64, http.server, json, sys

from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from standardwebhooks.webhooks import Webhook

BATCH = "application/cloudevents-batch+json"
STRUCTURED = "application/cloudevents+json; charset=utf-8"


def event_of(headers, body):
    event = from_http_event(HTTPMessage(headers=headers, body=body))
    data = event.get_data()
    if isinstance(data, bytes):
        data = {"base64": base64.b64encode(data).decode()}
    attributes = {name: str(value) for name, value in event.get_attributes().items()}
    return {**attributes, "data": data}


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers["content-length"]))
        seen = {"id": headers.get("webhook-id"), "type": headers.get("content-type")}
        try:
            Webhook(sys.argv[1]).verify(body, headers, json_parse=False)
            if headers.get("content-type", "").startswith(BATCH):
                one = lambda event: event_of({"content-type": STRUCTURED}, json.dumps(event).encode())
                seen["events"] = [one(event) for event in json.loads(body)]
            else:
                seen["events"] = [event_of(headers, body)]
        except Exception as error:
            seen["error"] = repr(error)
        self.send_response(400 if "error" in seen else 204)
        self.end_headers()
        print(json.dumps(seen), flush=True)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
print(server.server_address[1], flush=True)
server.serve_forever()
