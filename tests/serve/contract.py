"""Asks a running server for what its OpenAPI document says, with schemathesis 4.

    python contract.py URL DOCUMENT [OPTION]...

The server takes the hook 'shop' in without a signature, and has the group 'shop'. Ends with 0 if each answer is one of the document's. Options
are those of 'schemathesis run'.
"""
import json, os, re, subprocess, sys, tempfile

import schemathesis

CHECKS = ["not_a_server_error", "status_code_conformance", "content_type_conformance",
          "response_headers_conformance", "response_schema_conformance"]
LINES = ["application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"]


@schemathesis.serializer(*LINES)
def lines(context, value):
    if isinstance(value, bytes):
        return value
    return (value if isinstance(value, str) else json.dumps(value)).encode("utf-8", "surrogatepass")


@schemathesis.hook
def before_call(context, case, kwargs):
    """Nothing waits, and a stream has no end. Of the hooks one is there."""
    wait = (case.query or {}).get("wait")
    if isinstance(wait, str) and re.fullmatch(r"([0-9.]+[a-z]+)+", wait):
        case.query["wait"] = "1ms"
    for name in [name for name in case.headers or {} if name.lower() in ("accept", "upgrade")]:
        del case.headers[name]
    if case.operation.path.endswith(":receive"):
        wait = (case.query or {}).get("maxWaitTime", 60)
        if str(wait).isdigit() and len(str(wait)) < 4 and int(wait) <= 120:
            case.query = {**(case.query or {}), "maxWaitTime": 0}
    name = (case.path_parameters or {}).get("name")
    if isinstance(name, str) and len(name) % 2:
        case.path_parameters["name"] = "shop"


def main(url, document, *options):
    command = [sys.executable, "-m", "schemathesis.cli", "run", os.path.abspath(document), "--url", url,
               "--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing", "--max-examples", "25",
               "--seed", "1", "--generation-database", "none", "--no-shrink", "--workers", "1",
               "--request-timeout", "10", "--max-redirects", "0", "--suppress-health-check", "all",
               "--warnings", "off", "--no-color", *options]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "contract", "NO_PROXY": "*", "PYTHONDONTWRITEBYTECODE": "1",
                   "PYTHONPATH": os.path.dirname(os.path.abspath(__file__))}
    # It leaves files where it runs.
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run(command, cwd=folder, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
