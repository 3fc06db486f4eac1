"""Clients of the HTTP face made of what others use: cloudevents, httpx, httpx-sse, websockets and standardwebhooks.

    python client.py URL emit
    python client.py URL sse QUERY COUNT
    python client.py URL ws QUERY COUNT
    python client.py URL standard SECRET

The last line is JSON of what was seen. Before it, sse and ws print a line each time that they are connected and for
each event.
"""
import base64, json, math, sys, time
from datetime import datetime, timedelta, timezone

import httpx
from cloudevents.core.bindings.http import HTTPMessage, from_http_event, to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

BATCH = "application/cloudevents-batch+json"
STRUCTURED = "application/cloudevents+json; charset=utf-8"


def show(seen):
    print(json.dumps(seen), flush=True)


def post(url, headers, body):
    """Posts a body; returns the status and what the answer's JSON says."""
    response = httpx.post(url, headers=headers, content=body)
    wanted = "application/json" if response.is_success else "application/problem+json"
    found = response.headers.get("content-type")
    assert found == wanted, f"{response.status_code} comes with {found}: {response.text}"
    return {"status": response.status_code, **response.json()}


def accepted(answer):
    assert answer["status"] == 202, answer
    return answer


def plain(event):
    """An event as JSON, with binary data in base64."""
    data = event.get_data()
    if isinstance(data, bytes):
        data = {"base64": base64.b64encode(data).decode()}
    return {**{name: str(value) for name, value in event.get_attributes().items()}, "data": data}


def emit(url):
    """Sends events in each mode, each twice, and reads them back."""
    common = {"source": "/client.py", "time": datetime(2026, 11, 23, 2, 15, tzinfo=timezone.utc)}
    odd = {"type": "py.odd", "subject": 'Straße "1" 100%41', "comexampleflag": "€😀", "comexamplenumber": 7}

    def events(mode):
        json_type = {"datacontenttype": "application/json"}
        text, binary = {"datacontenttype": "text/plain"}, {"datacontenttype": "image/gif"}
        return [
            CloudEvent({"id": f"{mode} 1", **odd, **common, **json_type}, {"n": 1.5, "text": "ü"}),
            CloudEvent({"id": f"{mode} 2", "type": "py.text", **common, **text}, "hello"),
            CloudEvent({"id": f"{mode} 3", "type": "py.binary", **common, **binary}, b"\x00\xff\n"),
        ]

    seen = {}
    for mode, encode in [("structured", to_structured_event), ("binary", to_binary_event)]:
        messages = [encode(event) for event in events(mode)]
        seen[mode] = [accepted(post(url + "/events", one.headers, one.body)) for one in messages for _ in range(2)]
    # The library makes no batches: one is put together of events in structured mode.
    batch = b"[" + b",".join(to_structured_event(event).body for event in events("batch")) + b"]"
    seen["batch"] = [accepted(post(url + "/events", {"content-type": BATCH}, batch)) for _ in range(2)]
    read = httpx.get(url + "/events", params={"type": "py.*"}).raise_for_status()
    one = lambda event: from_http_event(HTTPMessage({"content-type": STRUCTURED}, json.dumps(event).encode()))
    seen["read"] = [plain(one(event)) for event in read.json()]
    return seen


def sse(url, query, count):
    """Reads so many different events; comes back in the middle, and whenever the server has gone away."""
    from httpx_sse import connect_sse

    count = int(count)
    ids, cursors, opened, repeated, pause, last = [], [], 0, 0, 0, ""
    middle = math.ceil(count / 2)
    with httpx.Client(timeout=60) as client:
        while len(ids) < count:
            headers = {"Last-Event-ID": last} if last else {}
            try:
                with connect_sse(client, "GET", f"{url}/events?{query}", headers=headers) as source:
                    source.response.raise_for_status()
                    opened += 1
                    show({"open": opened})
                    for event in source.iter_sse():
                        # The library also gives what has no data: the pause, and a cursor alone.
                        last, pause = event.id or last, event.retry or pause
                        if event.event != "message" or not event.data:
                            continue
                        id = json.loads(event.data)["id"]
                        show({"id": id})
                        # Behind a restart, those come again that were not settled.
                        if id in ids:
                            repeated += 1
                            continue
                        ids.append(id)
                        cursors.append(event.id)
                        if len(ids) in (middle, count):
                            break
            except httpx.TransportError:
                # For as long as the server has asked for.
                time.sleep(pause / 1000)
    return {"ids": ids, "cursors": cursors, "opened": opened, "repeated": repeated}


def ws(url, query, count):
    """Reads half of the events on one connection, and the rest on another that goes on behind them."""
    from websockets.sync.client import connect

    ids, cursors = [], []
    for until in [math.ceil(int(count) / 2), int(count)]:
        after = f"&after={cursors[-1]}" if cursors else ""
        address = f"{url.replace('http', 'ws', 1)}/events?{query}{after}"
        with connect(address, subprotocols=["cloudevents.json"]) as socket:
            show({"open": socket.subprotocol})
            while len(ids) < until:
                event = json.loads(socket.recv(timeout=60, decode=True))
                ids.append(event["id"])
                show({"id": event["id"]})
            cursors.append(event["evbuscursor"])
    assert len(set(ids)) == len(ids), f"an event came twice: {ids}"
    return {"ids": ids, "cursors": cursors}


def standard(url, secret):
    """Sends a signed webhook twice, then one of another secret, and one that was signed an hour ago."""
    from standardwebhooks.webhooks import Webhook

    body = json.dumps({"type": "invoice.paid", "text": "ü"}, ensure_ascii=False)

    def send(secret, id, at):
        headers = {
            "content-type": "application/json",
            "webhook-id": id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": Webhook(secret).sign(id, at, body),
        }
        return post(url + "/hooks/standard", headers, body.encode())

    now = datetime.now(timezone.utc)
    other = "whsec_" + base64.b64encode(bytes(32)).decode()
    taken = [accepted(send(secret, "msg_py_1", now)) for _ in range(2)]
    wrong = send(other, "msg_py_2", now)["status"]
    old = send(secret, "msg_py_3", now - timedelta(hours=1))["status"]
    assert wrong == old == 401, f"another secret: {wrong}, an old time: {old}"
    return {"accepted": taken, "wrong": wrong, "old": old}


address, scenario, *rest = sys.argv[1:]
try:
    show({"emit": emit, "sse": sse, "ws": ws, "standard": standard}[scenario](address, *rest))
except Exception as error:
    sys.exit(f"{scenario}: {error!r}")
