"""Hands RTP packets of calls to sidetape, and never makes the media wait.

    sender = Sender("unix-stream:/run/sidetape/tap-stream.sock")  # on the event loop that the media is on
    sender.meta("call-1", {"conversation_id": "c-42"})
    sender.rtp("call-1", CALLER, packet)                          # one whole RTP packet, as bytes
    sender.rtp("call-1", AI, packet)
    sender.end("call-1")                                          # each call needs it
    await sender.close()                                          # when the gateway itself stops

Python 3.9 or newer, standard library only. Every method but `settle` and `close` copies and returns; call them on the
loop (from other threads: `loop.call_soon_threadsafe(sender.rtp, call, CALLER, packet)`). README.md says what is promised.
"""

import asyncio
import collections
import hashlib
import hmac
import json
import secrets
import struct
import time

CALLER, AI, WHOLE = 0, 1, 255

_RTP, _END, _META, _PAUSE, _RESUME, _MARK, _CLEAR, _RTCP, _PING, _PONG = 1, 2, 3, 6, 7, 8, 9, 10, 11, 12
_HEADER = struct.Struct(">2sBBBBHQ")
_PING_ID = b"tap-client"
_TRAILER_BYTES = 28
_FRAME_MAX = 65507 - _TRAILER_BYTES  # what a UDP datagram holds

_GATHER = 0.01  # frames of so many seconds go out in one piece
_WAIT_MIN, _WAIT_MAX = 0.05, 1.0  # before a link is opened again; a restarted daemon waits 15 s
_SILENCE = 2.0  # a PING over UDP may be unanswered for so long
_KEEP = 0.5  # frames are kept so long after they were read: the spool should have them within 0.1 s
_BEAT = 0.1  # over UDP a PING is sent so often while frames are kept, even in a pause: nothing else tells of a restart
_RESERVE = 1 << 20  # beyond the limit, for what is no audio: it may be a PAUSE

# Frames in a batch; frames and bytes on their way unconfirmed; seconds between PINGs in a pause.
_STREAM = (1 << 62, 1 << 62, 256 << 10, None)
_DATAGRAMS = (16, 48, 1 << 62, _BEAT)  # more is lost where a receive buffer is small


class Sender:
    """Queues frames, sends them to the daemon at `endpoint`, and again what a daemon that was killed may not have.

    endpoint: "unix-stream:/path" or "udp:127.0.0.1:5055".
    key: the daemon's AUDIO_TAP_KEY, with which frames over UDP are signed.
    queue_bytes: the most that frames may take which the daemon has not surely got.
    """

    def __init__(self, endpoint, *, key=None, queue_bytes=64 << 20):
        kind, _, self._address = endpoint.partition(":")
        if kind not in ("unix-stream", "udp") or not self._address:
            raise ValueError(f"neither unix-stream:/path nor udp:host:port: {endpoint!r}")
        self._is_udp = kind == "udp"
        self._key = key.encode() if isinstance(key, str) else key
        self._signer, self._signed = secrets.randbits(32), 0
        self._backlog = _Backlog(queue_bytes, *(_DATAGRAMS if self._is_udp else _STREAM))
        self._handed_over = {}  # call: [packets of the caller, of the AI]
        self._link, self._is_up, self._is_gathering, self._heard_at = None, False, False, 0.0
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run())

    def rtp(self, call, channel, packet, at_us=None):
        """Hands over an RTP packet that was received (CALLER) or sent (AI) now, or `at_us` microseconds since 1970."""
        self._handed_over.setdefault(call, [0, 0])[channel] += 1
        self._push(_RTP, call, channel, packet, at_us)

    def rtcp(self, call, channel, packet):
        """Hands over a compound RTCP packet."""
        self._push(_RTCP, call, channel, packet)

    def meta(self, call, meta, channel=WHOLE):
        """Says what a call is: `conversation_id`, `payload_types` and the like."""
        self._push(_META, call, channel, json.dumps(meta).encode())

    def mark(self, call, name, channel=WHOLE, **fields):
        """Marks a moment by a name."""
        self._push(_MARK, call, channel, json.dumps({**fields, "name": name}).encode())

    def pause(self, call, channel=WHOLE, mode="silence"):
        """Keeps what comes after out of the recording, until `resume`. mode: "silence" or "cut"."""
        self._push(_PAUSE, call, channel, json.dumps({"mode": mode}).encode())

    def resume(self, call, channel=WHOLE):
        """Ends a pause."""
        self._push(_RESUME, call, channel)

    def clear(self, call):
        """Says that the AI was interrupted: what is queued of it will not be heard."""
        self._push(_CLEAR, call, AI)

    def end(self, call):
        """Ends both channels, and says how many packets were handed over, so that the manifest tells what was lost."""
        for channel, count in enumerate(self._handed_over.pop(call, (0, 0))):
            self._push(_END, call, channel, struct.pack(">Q", count))

    def counters(self):
        """What has become of the frames: accepted, confirmed, dropped, refused, repeated, connects, is_connected, held_bytes."""
        return dict(self._backlog.counters, is_connected=self._is_up, held_bytes=self._backlog.held_bytes)

    async def settle(self, timeout):
        """Waits until the daemon has read all that was handed over. False if it has not within `timeout` seconds."""
        deadline = self._loop.time() + timeout
        while not self._backlog.is_settled():
            if self._loop.time() >= deadline:
                return False
            await asyncio.sleep(_GATHER)
        return True

    async def close(self, timeout=5.0):
        """Settles, and stops sending. Returns what `settle` says."""
        is_settled = await self.settle(timeout)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        return is_settled

    def _push(self, kind, call, channel, body=b"", at_us=None):
        name = call.encode()
        at_us = time.time_ns() // 1000 if at_us is None else at_us
        if not 1 <= len(name) <= 128 or _HEADER.size + len(name) + len(body) > _FRAME_MAX:
            self._backlog.counters["refused"] += 1
            return
        self._backlog.push(_HEADER.pack(b"ST", 1, kind, channel, len(name), 0, at_us) + name + body)
        if self._is_up and not self._is_gathering:
            self._is_gathering = True
            self._loop.call_later(_GATHER, self._gathered)

    def _gathered(self):
        self._is_gathering = False
        self._send()

    def _send(self):
        """Sends what may go out now. Nothing here waits: the transport keeps what the socket does not take."""
        while self._is_up and not self._link.is_broken and (batch := self._backlog.next_batch(time.monotonic())):
            number, frames = batch
            self._write([*frames, _ping(number)])

    def _write(self, frames):
        if not self._is_udp:
            self._link.transport.write(b"".join(b"".join((struct.pack(">H", len(f)), f)) for f in frames))
            return
        for frame in frames:
            self._link.transport.sendto(self._sign(frame) if self._key else frame)

    def _sign(self, frame):
        self._signed = max(self._signed + 1, time.time_ns() // 1000)
        frame = frame[:7] + b"\x01" + frame[8:] + struct.pack(">IQ", self._signer, self._signed)
        return frame + hmac.new(self._key, frame, hashlib.sha256).digest()[:16]

    def _answered(self, number):
        self._heard_at = time.monotonic()
        self._backlog.confirm(number, self._heard_at, self._is_udp)
        if not self._is_up:
            self._is_up = True
            self._backlog.counters["connects"] += 1
            self._changed.set()
        self._send()

    async def _run(self):
        """Opens a link, looks after it until it breaks, and begins anew."""
        wait = _WAIT_MIN
        try:
            while True:
                try:
                    self._link = await self._open()
                    if await self._look_after(wait):
                        wait = _WAIT_MIN
                except OSError:
                    pass  # nobody is there
                self._break_off()
                await asyncio.sleep(wait)
                wait = min(2 * wait, _WAIT_MAX)
        finally:
            self._close_link()

    async def _open(self):
        def link():
            return _Link(self._answered, self._changed.set)

        if not self._is_udp:
            return (await self._loop.create_unix_connection(link, self._address))[1]
        host, _, port = self._address.rpartition(":")
        return (await self._loop.create_datagram_endpoint(link, remote_addr=(host.strip("[]"), int(port))))[1]

    async def _look_after(self, wait):
        """Asks by PINGs whether the daemon is there, until the link breaks. Returns whether it ever was."""
        was_up, is_asked = False, False
        while not self._link.is_broken:
            self._changed.clear()
            if self._is_up:
                was_up, is_asked, wait = True, False, _WAIT_MIN
                since = self._backlog.unanswered_since() if self._is_udp else None
                if since is not None and time.monotonic() - max(since, self._heard_at) > _SILENCE:
                    self._is_up = False
                    continue
                self._send()
                await self._change(_BEAT if self._is_udp else _SILENCE)
            else:
                # Over a stream once is enough: the answer comes, or the link breaks.
                if self._is_udp or not is_asked:
                    self._write([_ping(self._backlog.next_number())])
                    is_asked = True
                await self._change(wait)
                wait = min(2 * wait, _WAIT_MAX)
        return was_up

    async def _change(self, timeout):
        """Waits until a daemon is found or lost, or for `timeout` seconds."""
        # Not by `wait_for`: before Python 3.12 it loses a cancellation that comes together with the change.
        change = self._loop.create_task(self._changed.wait())
        try:
            await asyncio.wait([change], timeout=timeout)
        finally:
            change.cancel()

    def _break_off(self):
        self._close_link()
        self._backlog.give_back(1 << 64)

    def _close_link(self):
        self._is_up = False
        if self._link:
            self._link.is_broken = True
            self._link.transport.abort()
        self._link = None


class _Link(asyncio.Protocol, asyncio.DatagramProtocol):
    """A socket to the daemon. Tells the numbers of answered PINGs, and that it broke."""

    def __init__(self, answered, changed):
        self.transport, self.is_broken = None, False
        self._answered, self._changed, self._unread = answered, changed, b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self._unread += data
        while len(self._unread) >= 2:
            end = 2 + int.from_bytes(self._unread[:2], "big")
            if len(self._unread) < end:
                break
            answer, self._unread = self._unread[2:end], self._unread[end:]
            self.datagram_received(answer, None)

    def datagram_received(self, data, addr):
        number = data[_HEADER.size + len(_PING_ID) :]
        if len(number) == 8 and data[3] == _PONG and not self.is_broken:
            self._answered(int.from_bytes(number, "big"))

    def error_received(self, exc):
        self.connection_lost(exc)

    def connection_lost(self, exc):
        self.is_broken = True
        self._changed()


class _Backlog:
    """What was handed over and the daemon does not surely have: a queue, and a window of what was sent of it.

    Frames stay in the window until the PING behind them is answered, and _KEEP longer. Where the link breaks they go
    back to the head of the queue. The daemon recognises RTP packets that it has.
    """

    def __init__(self, limit, batch_frames, unconfirmed_frames, unconfirmed_bytes, beat):
        self._limit, self._batch_frames, self._beat = limit, batch_frames, beat
        self._most_frames, self._most_bytes = unconfirmed_frames, unconfirmed_bytes
        self._queue = collections.deque()  # (frame, whether the daemon has read it once)
        self._window = collections.deque()  # _Sent, by number
        self._frames = self._bytes = 0  # unconfirmed in the window
        self._number = 0
        self.held_bytes = 0
        self.counters = dict.fromkeys(("accepted", "confirmed", "dropped", "refused", "repeated", "connects"), 0)

    def push(self, frame):
        limit = self._limit + (0 if frame[3] in (_RTP, _RTCP) else _RESERVE)
        # What the daemon has read is kept only as long as there is room.
        while self.held_bytes + len(frame) > limit and self._window and self._window[0].confirmed_at is not None:
            self.held_bytes -= self._window.popleft().bytes
        if self.held_bytes + len(frame) > limit:
            self.counters["dropped"] += 1
            return
        self.counters["accepted"] += 1
        self.held_bytes += len(frame)
        self._queue.append((frame, False))

    def next_number(self):
        self._number += 1
        return self._number

    def next_batch(self, now):
        """Moves to the window what may go out now: the number of its PING, and the frames. None if only a PING is due."""
        if not (self._queue or self._is_beat_due(now)) or self._frames >= self._most_frames or self._bytes >= self._most_bytes:
            return None
        sent = _Sent(self.next_number(), now)
        while self._queue and len(sent.frames) < self._batch_frames and sent.bytes < 64 << 10:
            sent.frames.append(self._queue.popleft())
            sent.bytes += len(sent.frames[-1][0])
        self._frames += len(sent.frames)
        self._bytes += sent.bytes
        self._window.append(sent)
        return sent.number, [frame for frame, _ in sent.frames]

    def _is_beat_due(self, now):
        is_late = self._beat and self._window and now - self._window[-1].at >= self._beat
        return is_late and any(sent.frames for sent in self._window)

    def confirm(self, number, now, is_lossy):
        """Notes an answer. Datagrams before a PING that has none are taken for lost, as by a daemon restarted meanwhile."""
        is_one_lost, asked_at = False, 0.0
        for sent in self._window:
            if sent.number > number:
                break
            if sent.confirmed_at is not None:
                continue
            if is_lossy and sent.number < number:
                is_one_lost = True
                continue
            sent.confirmed_at, asked_at = now, sent.at
            self._frames -= len(sent.frames)
            self._bytes -= sent.bytes
            self.counters["confirmed"] += sum(not is_read for _, is_read in sent.frames)
            sent.frames = [(frame, True) for frame, _ in sent.frames]
        if is_one_lost:
            self.give_back(number)
        # A daemon that answers what was asked so much later was still there to write. When the answer is looked at says
        # nothing: it may have been under way while the daemon was killed.
        while self._window and self._window[0].is_confirmed_before(asked_at - _KEEP):
            self.held_bytes -= self._window.popleft().bytes

    def give_back(self, number):
        """Puts what was sent before PING `number` back to the head of the queue.

        Of what the daemon has read, not all: a MARK would be there twice, and audio of a call whose END it has read
        could open that call once more.
        """
        over, again = self._calls_that_are_over(), []
        while self._window and self._window[0].number < number:
            sent = self._window.popleft()
            if sent.confirmed_at is None:
                self._frames -= len(sent.frames)
                self._bytes -= sent.bytes
            for frame, is_read in sent.frames:
                is_harmful = frame[3] == _MARK or (frame[3] != _END and _call(frame) in over)
                if is_read and is_harmful:
                    self.held_bytes -= len(frame)
                else:
                    again.append((frame, is_read))
        self.counters["repeated"] += len(again)
        self._queue.extendleft(reversed(again))

    def unanswered_since(self):
        return next((sent.at for sent in self._window if sent.confirmed_at is None), None)

    def is_settled(self):
        return not self._queue and not self._frames

    def _calls_that_are_over(self):
        frames = (frame for sent in self._window for frame, is_read in sent.frames if is_read and frame[3] == _END)
        ended = {(_call(frame), frame[4]) for frame in frames}
        return {call for call, _ in ended if {(call, CALLER), (call, AI)} <= ended}


class _Sent:
    """Frames that went out with a PING behind them."""

    def __init__(self, number, now):
        self.number, self.at, self.confirmed_at = number, now, None
        self.frames, self.bytes = [], 0

    def is_confirmed_before(self, moment):
        return self.confirmed_at is not None and (self.confirmed_at <= moment or not self.frames)


def _ping(number):
    return _HEADER.pack(b"ST", 1, _PING, WHOLE, len(_PING_ID), 0, 0) + _PING_ID + struct.pack(">Q", number)


def _call(frame):
    return frame[_HEADER.size : _HEADER.size + frame[5]]
