"""Runs a command in a network namespace of its own, whose only way out can be cut.

    unshare -rn python3 cut_off.py SOCKET PORT COMMAND...

Inside, 127.0.0.1:PORT leads to SOCKET, a Unix socket outside. `down` on stdin takes the loopback interface away, so that
packets vanish as behind a pulled cable, `up` brings it back, `term` asks the command to end; the end of stdin kills it.
"""
import fcntl, signal, socket, struct, subprocess, sys, threading

SIOCSIFFLAGS, IFF_UP = 0x8914, 1


def loopback(up):
    with socket.socket() as any_socket:
        request = struct.pack("16sh22x", b"lo", IFF_UP if up else 0)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, request)


def pump(source, sink):
    try:
        while chunk := source.recv(65536):
            sink.sendall(chunk)
    except OSError:
        pass
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def serve(listener, way_out):
    while True:
        inside, _ = listener.accept()
        outside = socket.socket(socket.AF_UNIX)
        outside.connect(way_out)
        for pair in ((inside, outside), (outside, inside)):
            threading.Thread(target=pump, args=pair, daemon=True).start()


way_out, port, command = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
loopback(True)
listener = socket.create_server(("127.0.0.1", port))
threading.Thread(target=serve, args=(listener, way_out), daemon=True).start()
child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
for line in sys.stdin:
    if line == "term\n":
        child.send_signal(signal.SIGTERM)
        sys.exit(child.wait())
    loopback(line == "up\n")
child.kill()
