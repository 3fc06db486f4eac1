#!/usr/bin/env python3
"""Other queues in the same PostgreSQL server: pgmq and graphile-worker at a bulk emit and a drain.

    benches/queues.py URL FOLDER FILE

FILE has the data of an event on each line. Each becomes the CloudEvent that evbus would make of it, and they are added
1,000 at a call: by pgmq's `send_batch`, by graphile-worker's `add_jobs`. Then pgmq's are read and archived, 1,000 at a
time. psql runs the calls, each in a transaction of its own; the statements are written before the clock starts. pgmq's
SQL comes with its crate, graphile-worker from npm; both are fetched into FOLDER, if they are not there. Prints
`NAME emit/s= drain/s=`.
"""
import glob, json, os, pathlib, subprocess, sys, time

EACH = 1000


def psql(*arguments):
    ran = subprocess.run(["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url, *arguments],
                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if ran.returncode:
        sys.exit(ran.stderr)


def timed(script):
    begun = time.monotonic()
    psql("-f", script)
    return len(events) / (time.monotonic() - begun)


def calls(name, call):
    """A file with one call for each 1,000 events."""
    path = os.path.join(folder, name)
    with open(path, "w") as out:
        for at in range(0, len(events), EACH):
            out.write(call(events[at:at + EACH]) + ";\n")
    return path


def literal(values):
    return "'" + json.dumps(values).replace("'", "''") + "'"


def pgmq():
    crate = os.path.join(folder, "crate")
    if not os.path.exists(crate):
        os.makedirs(os.path.join(crate, "src"))
        pathlib.Path(crate, "src", "lib.rs").touch()
        manifest = '[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n[dependencies]\npgmq = "=0.33.7"\n'
        pathlib.Path(crate, "Cargo.toml").write_text(manifest)
        subprocess.run(["cargo", "fetch", "--quiet"], cwd=crate, check=True)
    home = os.environ.get("CARGO_HOME", os.path.expanduser("~/.cargo"))
    sql, = glob.glob(os.path.join(home, "registry/src/*/pgmq-0.33.7/src/install/embedded/sql/pgmq.sql"))
    psql("-c", "DROP SCHEMA IF EXISTS pgmq CASCADE; CREATE SCHEMA pgmq", "-f", sql, "-c", "SELECT pgmq.create('q')")
    send = calls("pgmq-send.sql", lambda some: "SELECT count(*) FROM pgmq.send_batch('q', ARRAY(SELECT "
                 f"jsonb_array_elements({literal(some)}::jsonb)))")
    take = calls("pgmq-take.sql", lambda some: "SELECT count(*) FROM pgmq.archive('q', ARRAY(SELECT msg_id FROM "
                 f"pgmq.read('q', 60, {len(some)})))")
    return timed(send), timed(take)


def graphile():
    if not os.path.exists(os.path.join(folder, "node_modules", "graphile-worker")):
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", folder,
                        "graphile-worker@0.16.6"], check=True, stdout=subprocess.DEVNULL)
    psql("-c", "DROP SCHEMA IF EXISTS graphile_worker CASCADE")
    program = os.path.join(folder, "node_modules", ".bin", "graphile-worker")
    subprocess.run([program, "-c", url, "--schema-only"], check=True, stdout=subprocess.DEVNULL)
    add = calls("graphile-add.sql", lambda some: "SELECT count(*) FROM graphile_worker.add_jobs(ARRAY(SELECT "
                "('order.created', e, NULL, NULL, NULL, NULL, NULL, NULL)::graphile_worker.job_spec FROM "
                f"json_array_elements({literal(some)}::json) e))")
    return timed(add), 0


url, folder, file = sys.argv[1:4]
with open(file) as text:
    events = [{"specversion": "1.0", "id": "20261123T021530-7kq3f9x2m%05x" % n, "source": "//db1",
               "type": "order.created", "time": "2026-11-23T02:15:30.123456Z", "datacontenttype": "application/json",
               "data": json.loads(line)} for n, line in enumerate(text.read().splitlines())]
for name, of in ("pgmq", pgmq), ("graphile-worker", graphile):
    emit, drain = of()
    print(f"{name} emit/s={emit:.0f} drain/s={drain:.0f}")
