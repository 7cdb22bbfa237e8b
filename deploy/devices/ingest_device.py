"""A device's side of the ingest/1 protocol (ingest/PROTOCOL.md) for MicroPython, in one file."""

# The rest of this text is no docstring: while the file is compiled that would take heap.
#
# It takes frames into a bounded queue in a file, which survives a restart and a loss of power, and
# hands them to a listener: each is stored once and in order, however often the connection breaks.
#
#     import ingest_device
#
#     queue = ingest_device.Queue("/queue", 50_000)
#     device = ingest_device.Device("logs.example.com", 7650, "sensor-1", "s3cr3t", queue)
#     while True:
#         queue.push(b"temp=20.5")
#         device.run(10_000)  # exchange frames and acknowledgements for ten seconds
#
# As a program, for MicroPython on Linux: INGEST_TOKEN=... micropython ingest_device.py, which tells
# its arguments. RAM: micropython.mem_info() on the device; INGEST_MEMORY=1 here prints it at the
# end.

import binascii
import errno
import hashlib
import os
import random
import select
import socket
import sys
import time

import micropython

_CHUNK = 512  # bytes that are read or sent at once
_LONGEST_LINE = 1024  # of the listener; the longest that counts is a challenge, under 300
_PATIENCE = 40_000  # ms for a handshake: an OK may be late when thousands connect at once
_KEEP_ALIVE = 600_000  # ms; a listener cuts who says nothing for an hour
_LONGEST_PAUSE = 300_000  # ms between two attempts
_STRAGGLER = 60_000  # ms in which the login of a connection that broke may still arrive
_MAX_ITERATIONS = 1_000_000  # so that nobody on the network can keep the device busy

# What to do about the listener's errors. With any other: try again later.
_STOP = (
    "auth-required", "auth-failed", "mechanism-unsupported", "plaintext-refused", "replaced",
    "revoked",
)  # fmt: skip
_SET_ASIDE = ("bad-frame", "frame-too-long")  # in the handshake they stop, too
_AT_ONCE = ("idle-timeout",)


class StoppedError(Exception):
    """Trying again can't help before somebody has looked; the argument is the listener's code."""


class _BrokenError(Exception):
    """This connection is over; the argument says why, and another one may do better."""


class Queue:
    """Frames in a file until the listener has them, and the number of the oldest.

    `<path>.<generation>` has a frame in each line. `path` is the mark: which generation counts,
    where in it the oldest frame begins, how many frames were ever taken before that one, and the
    listener's number for it (0: not known yet). A mark is replaced by renaming a new one, so it is
    always whole. It need not follow every acknowledgement, since the listener tells at login where
    it stands: it is written when `first` can't be derived from that any more, and when the file
    has grown to twice the limit and what is left of it moves into a new one.

    Attributes:
        first: the listener's number of the oldest frame; 0 if it is not known.
        count: how many frames there are.
        taken: how many were ever pushed, those before a restart included.
    """

    def __init__(self, path, limit):
        """Open the queue, or make it.

        Args:
            path: its file; three more names begin with it.
            limit: bytes of all frames together, an LF for each counted. The files may take three
                times as much.
        """
        self._path, self._limit = path, limit
        self._generation = self._head = self.taken = self.first = self.count = 0
        self._torn = False
        try:
            with open(path) as mark:
                words = mark.read().split()
            self._generation, self._head, self.taken, self.first = (int(word) for word in words)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
        for generation in (self._generation - 1, self._generation + 1):
            _remove(self._name(generation))
        open(self._name(self._generation), "ab").close()
        self._file = open(self._name(self._generation), "r+b")
        self._end, self.count = self._skip(self._head, 1 << 30)
        self.taken += self.count  # what is behind the last LF was being written, and does not count

    def push(self, frame):
        """Take a frame; when this returns, it is on the medium. Return whether there was room.

        Raises:
            ValueError: it is no frame: empty, with an LF within or a CR at its end.
            OSError: the medium failed. The frame is not taken, unless the power fails just then.
        """
        if not frame or b"\n" in frame or frame[-1:] == b"\r" or len(frame) >= self._limit:
            raise ValueError("no frame")
        if self._end - self._head + len(frame) + 1 > self._limit:
            return False
        if self._torn or self._end + len(frame) + 1 > 2 * self._limit:
            self._compact()
        self._torn = True
        self._file.seek(self._end)
        self._file.write(frame + b"\n")
        self._file.flush()
        self._torn = False
        self._end += len(frame) + 1
        self.count += 1
        self.taken += 1
        return True

    def drop(self, frames):
        """Forget the oldest frames, which the listener has. Return how many bytes they were."""
        begin = self._head
        self._head, dropped = self._skip(begin, frames)
        self.count -= dropped
        self.first += dropped
        return self._head - begin

    def set_aside(self):
        """Forget the oldest frame, which the listener refuses for ever, and gave no number."""
        head, dropped = self._skip(self._head, 1)
        self._mark(self._generation, head, self.count - dropped, self.first)

    def start_from(self, number):
        """Give the oldest frame another number."""
        self._mark(self._generation, self._head, self.count, number)

    def read(self, offset):
        """Return some bytes of the frames' lines, from so many bytes behind the oldest's begin."""
        at = self._head + offset
        self._file.seek(at)
        return self._file.read(min(_CHUNK, self._end - at))

    def _mark(self, generation, head, count, first):
        """Make these the values that count, now and after a restart."""
        with open(self._path + ".new", "w") as mark:
            mark.write(f"{generation} {head} {self.taken - count} {first}")
            mark.flush()
        os.rename(self._path + ".new", self._path)
        self._generation, self._head, self.count, self.first = generation, head, count, first

    def _compact(self):
        """Begin a new file with the frames that are left."""
        fresh = open(self._name(self._generation + 1), "w+b")
        offset = 0
        while chunk := self.read(offset):
            fresh.write(chunk)
            offset += len(chunk)
        fresh.flush()
        self._mark(self._generation + 1, 0, self.count, self.first)
        self._file.close()
        self._file, self._end, self._torn = fresh, offset, False
        _remove(self._name(self._generation - 1))

    def _skip(self, at, lines):
        """Go over whole lines; return where the next one begins, and how many there were."""
        self._file.seek(at)
        skipped = 0
        begin = at
        while skipped < lines and (chunk := self._file.read(_CHUNK)):
            place = chunk.find(b"\n")
            while place >= 0 and skipped < lines:
                begin = at + place + 1
                skipped += 1
                place = chunk.find(b"\n", place + 1)
            at += len(chunk)
        return begin, skipped

    def _name(self, generation):
        return f"{self._path}.{generation}"


class Device:
    """One device, and its connection while there is one.

    Attributes:
        running: whether the listener has let it in.
        error: why the last connection ended: the listener's code, or a word of ours.
        refused: how many frames the listener refused for ever; they were dropped.
        out_of_step: how often the listener's numbers had nothing to do with the queue.
    """

    def __init__(
        self, host, port, name, token, queue, mechanism="SCRAM-SHA-256", tls=None, pause=1000
    ):
        """Describe it; it connects when it is run.

        Args:
            token: for SCRAM in ASCII, or already in the normal form of RFC 4013.
            mechanism: PLAIN shows the token to whoever reads the network, unless `tls` is given.
            tls: an `ssl.SSLContext` that checks certificates.
            pause: milliseconds of the first pause before a retry.
        """
        if mechanism not in ("SCRAM-SHA-256", "PLAIN"):
            raise ValueError(mechanism)
        self._address, self._tls, self._mechanism = (host, port), tls, mechanism
        self._name, self._token, self.queue = name.encode(), token.encode(), queue
        self.running, self.error, self.refused, self.out_of_step = False, "", 0, 0
        self._socket = self._take = None
        self._first_pause = self._pause = pause
        self._wait, self._since = 0, time.ticks_ms()
        self._broken = None  # when the last connection ended, if the listener did not say why
        self._in_doubt = queue.count  # frames that the listener may have
        self._salted_for = self._salted = None

    def run(self, milliseconds):
        """Exchange frames and acknowledgements for so long."""
        begin = time.ticks_ms()
        while (gone := time.ticks_diff(time.ticks_ms(), begin)) < milliseconds:
            self.step(milliseconds - gone)

    def step(self, milliseconds):
        """Do what can be done at once, after waiting for it for at most so long.

        Raises:
            StoppedError: the listener has said something that only a person can mend.
        """
        try:
            self._step(milliseconds)
        except (OSError, ValueError, _BrokenError) as error:
            self._broken = time.ticks_ms()
            self._retry(str(error), self._next_pause())

    def _step(self, milliseconds):
        if self._socket is None:
            rest = self._wait - time.ticks_diff(time.ticks_ms(), self._since)
            if rest > 0:
                time.sleep_ms(min(rest, milliseconds))
                return
            self._dial()
        self._poll.modify(self._socket, self._interest())
        self._poll.poll(min(milliseconds, 1000))
        self._hear()
        if self._socket is not None:
            self._speak()
            self._watch_the_clock()

    def _dial(self):
        address = socket.getaddrinfo(*self._address, 0, socket.SOCK_STREAM)[0][-1]
        self._socket = plain = socket.socket()
        plain.connect(address)
        if hasattr(socket, "SO_LINGER"):
            # If this program dies, the system must not end the connection in good order: the half
            # of a line would then count as a frame. (A board that loses its power says nothing.)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        if self._tls is not None:
            self._socket = self._tls.wrap_socket(plain, server_hostname=self._address[0])
        self._receive = self._socket.read if self._tls is not None else plain.recv
        plain.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._line = b""
        self._sent = self._cursor = 0  # frames and bytes of the queue handed to this connection
        self._since = time.ticks_ms()
        self._begin_login()

    def _begin_login(self):
        if self._mechanism == "PLAIN":  # RFC 4616
            self._say(b"AUTH PLAIN ", b"\0" + self._name + b"\0" + self._token)
            self._take = self._take_ok
            return
        self._nonce = _base64(os.urandom(15))
        self._bare = b"n=" + self._name + b",r=" + self._nonce
        self._say(b"AUTH SCRAM-SHA-256 ", b"n,," + self._bare)
        self._take = self._take_challenge

    def _say(self, prefix, message):
        self._out = prefix + _base64(message) + b"\n"

    def _interest(self):
        waiting = self._out or (self.running and self._sent < self.queue.count)
        return select.POLLIN | (select.POLLOUT if waiting else 0)

    def _hear(self):
        """Take all lines that have arrived."""
        while self._socket is not None and (data := self._read()) is not None:
            if not data:
                raise _BrokenError("closed")
            *lines, self._line = (self._line + data).split(b"\n")
            if len(self._line) > _LONGEST_LINE:
                raise _BrokenError("bad reply")
            for line in lines:
                word, _, rest = line.partition(b" ")
                if word == b"ERR":
                    self._take_error(rest.partition(b" ")[0].decode())
                    return
                self._take(word, rest)

    def _read(self):
        try:
            return self._receive(256)
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise
            return None

    def _take_challenge(self, word, rest):
        """Answer server-first-message of RFC 5802, and note how the listener has to sign."""
        if word != b"+":
            raise _BrokenError("bad reply")
        challenge = binascii.a2b_base64(rest)
        nonce, salt, iterations = challenge.split(b",")[:3]
        if nonce[:2] != b"r=" or salt[:2] != b"s=" or iterations[:2] != b"i=":
            raise _BrokenError("bad challenge")
        if not nonce[2:].startswith(self._nonce) or len(nonce) <= 2 + len(self._nonce):
            raise _BrokenError("bad challenge")
        salted = self._salt(binascii.a2b_base64(salt[2:]), int(iterations[2:]))
        final = b"c=biws," + nonce
        signed = self._bare + b"," + challenge + b"," + final
        key = _hmac(salted, b"Client Key")
        signature = _hmac(hashlib.sha256(key).digest(), signed)
        proof = bytes(a ^ b for a, b in zip(key, signature))
        self._expected = b"v=" + _base64(_hmac(_hmac(salted, b"Server Key"), signed))
        self._say(b"", final + b",p=" + _base64(proof))
        self._take = self._take_ok

    def _salt(self, salt, iterations):
        # It costs seconds on a small processor, so the result is kept for the next connection.
        if not 4096 <= iterations <= _MAX_ITERATIONS:
            raise _BrokenError("bad challenge")
        if self._salted_for != (salt, iterations):
            self._salted = _pbkdf2(self._token, salt, iterations)
            self._salted_for = (salt, iterations)
        return self._salted

    def _take_ok(self, word, rest):
        if word != b"OK":
            raise _BrokenError("bad reply")
        pairs = dict(pair.split(b"=", 1) for pair in rest.split())
        if self._mechanism != "PLAIN":
            data = binascii.a2b_base64(pairs.get(b"data", b""))
            if not _same(data, self._expected):
                raise _BrokenError("impostor")  # it does not know the token: nothing is sent
        following = int(pairs.get(b"next", b""))
        if following < 1:
            raise _BrokenError("bad reply")
        self._resume(following)
        self._pause = self._first_pause
        self._take = self._take_ack
        self.running = True

    def _resume(self, following):
        """Drop what the listener has already: `next` says how much of what is in doubt that is."""
        queue = self.queue
        if queue.first and 0 <= following - queue.first <= self._in_doubt:
            self._in_doubt -= following - queue.first
            queue.drop(following - queue.first)
            return
        # The numbers say nothing about the queue: it is the first time, or another program has used
        # this name, or the listener has another log. The queue is sent as it is, so that nothing
        # can be lost; what was in doubt may then be there twice.
        self.out_of_step += queue.first != 0
        self._in_doubt = 0
        queue.start_from(following)  # on the medium before anything is sent under these numbers

    def _take_ack(self, word, rest):
        stored = int(rest) - self.queue.first + 1
        if word != b"ACK" or stored > self._sent:
            raise _BrokenError("bad reply")
        if stored > 0:
            self._cursor -= self.queue.drop(stored)
            self._sent -= stored
            self._in_doubt -= stored

    def _take_error(self, code):
        # What replaced this connection may be an older one of ours, whose login came late.
        since, self._broken = self._broken, None
        if code == "replaced" and since and time.ticks_diff(time.ticks_ms(), since) < _STRAGGLER:
            self._retry(code, self._next_pause())
        elif code in _STOP or (code in _SET_ASIDE and not self.running):
            self._retry(code, 0)
            raise StoppedError(code)
        elif code in _SET_ASIDE and self._cursor > 0:
            # The frame behind the last acknowledged one is refused for ever: it is dropped.
            self.queue.set_aside()
            self.refused += 1
            self._in_doubt -= min(1, self._in_doubt)
            self._retry(code, 0)
        elif code in _AT_ONCE and self.running:
            self._retry(code, 0)
        else:
            self._retry(code, self._next_pause())

    def _speak(self):
        """Send as much as the connection takes."""
        while self._out or self._fill():
            taken = self._socket.write(self._out)  # TLS wants the same bytes again after None
            if taken is None:
                return
            self._out = self._out[taken:]
            self._since = time.ticks_ms()

    def _fill(self):
        """Take the next bytes of the queue, if any."""
        if self.running:
            self._out = self.queue.read(self._cursor)
            self._cursor += len(self._out)
            self._sent += self._out.count(b"\n")
            self._in_doubt = max(self._in_doubt, self._sent)
        return self._out

    def _watch_the_clock(self):
        """An acknowledgement that is late is no error, and waited for; a late OK is one."""
        gone = time.ticks_diff(time.ticks_ms(), self._since)
        if not self.running and gone > _PATIENCE:
            raise _BrokenError("no answer")
        if self.running and gone > _KEEP_ALIVE:
            self._out = self._out or b"\n"  # an empty line is a keep-alive
            self._since = time.ticks_ms()

    def _retry(self, reason, wait):
        """End the connection; begin the next one after so many milliseconds."""
        if self._socket is not None:
            self._socket.close()
        self._socket, self.running, self.error = None, False, reason
        self._wait, self._since = wait, time.ticks_ms()

    def _next_pause(self):
        # It grows, and is random, so that a fleet does not return all at once.
        longest = self._pause
        self._pause = min(2 * longest, _LONGEST_PAUSE)
        return random.randint(longest // 2, longest)


def _remove(path):
    try:
        os.remove(path)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise


def _base64(data):
    return binascii.b2a_base64(data)[:-1]


def _same(a, b):
    """Compare in a time that does not tell where they differ."""
    different = len(a) ^ len(b)
    for x, y in zip(a, b):
        different |= x ^ y
    return different == 0


def _padded(key, byte):
    if len(key) > 64:
        key = hashlib.sha256(key).digest()
    return bytes(each ^ byte for each in key + bytes(64 - len(key)))


def _hmac(key, message):
    """HMAC-SHA-256 (RFC 2104)."""
    inner = hashlib.sha256(_padded(key, 0x36))
    inner.update(message)
    outer = hashlib.sha256(_padded(key, 0x5C))
    outer.update(inner.digest())
    return outer.digest()


def _pbkdf2(password, salt, iterations):
    """The first 32 bytes of PBKDF2 (RFC 8018) with HMAC-SHA-256, all that SCRAM needs."""
    inner_key, outer_key = _padded(password, 0x36), _padded(password, 0x5C)
    u = _hmac(password, salt + b"\0\0\0\1")
    total = int.from_bytes(u, "big")
    for _ in range(iterations - 1):
        inner = hashlib.sha256(inner_key)
        inner.update(u)
        outer = hashlib.sha256(outer_key)
        outer.update(inner.digest())
        u = outer.digest()
        total ^= int.from_bytes(u, "big")
    return total.to_bytes(32, "big")


def _read_arguments(arguments):
    host, port, name, path, *options = arguments
    tls = None
    if "--tls" in options:
        import ssl  # noqa: PLC0415 - it takes memory

        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.verify_mode = ssl.CERT_REQUIRED
        with open(options[options.index("--tls") + 1]) as certificate:
            base64 = certificate.read().split("-----")[2]  # what PEM has between its marks
        tls.load_verify_locations(cadata=binascii.a2b_base64(base64))
    queue = Queue(path, int(os.getenv("INGEST_QUEUE_BYTES") or 65536))
    pause = int(os.getenv("INGEST_PAUSE_MS") or 1000)
    mechanism = "PLAIN" if "--plain" in options else "SCRAM-SHA-256"
    token = os.getenv("INGEST_TOKEN")
    return Device(host, int(port), name, token, queue, mechanism, tls, pause)


def main(arguments):
    """Push the lines of standard input, for MicroPython on Linux."""
    if len(arguments) < 4 or os.getenv("INGEST_TOKEN") is None:
        print(
            "INGEST_TOKEN=... micropython ingest_device.py HOST PORT NAME QUEUE-FILE"
            " [--plain] [--tls CA-FILE] < lines"
        )
        return 2
    device = _read_arguments(arguments)
    print("taken", device.queue.taken)  # where the input should go on
    try:
        _push_lines(device, device.queue)
    except StoppedError as stopped:
        print("stopped:", stopped)
        return 1
    finally:
        if device.refused:
            print(device.refused, "frames were refused")
        if device.out_of_step:
            print("another program uses this name: frames may be there twice")
        if os.getenv("INGEST_MEMORY"):
            micropython.mem_info()
    return 0


def _push_lines(device, queue):
    lines = select.poll()
    lines.register(sys.stdin, select.POLLIN)
    waiting, is_over = b"", False  # a line for which there was no room; the end of the input
    while waiting or queue.count or not is_over:
        if not waiting and not is_over and lines.poll(0):
            line = sys.stdin.buffer.readline()
            waiting, is_over = line.replace(b"\r\n", b"\n").rstrip(b"\n"), not line
        try:
            if waiting and queue.push(waiting):
                waiting = b""
        except ValueError:
            print("a line is no frame, and left out")
            waiting = b""
        device.step(20)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
