// Hands RTP packets of calls to sidetape, and never makes the media wait.
//
//     const sender = new Sender('unix-stream:/run/sidetape/tap-stream.sock');
//     sender.meta('call-1', { conversation_id: 'c-42' });
//     sender.rtp('call-1', CALLER, packet);           // one whole RTP packet, as a Buffer
//     sender.rtp('call-1', AI, packet);
//     sender.end('call-1');                           // each call needs it
//     await sender.close();                           // when the gateway itself stops
//
// Node 18 or newer, no packages. Every method but settle and close copies and returns. README.md says what is promised.
'use strict';

const { createHmac, randomBytes } = require('node:crypto');
const dgram = require('node:dgram');
const net = require('node:net');

const CALLER = 0;
const AI = 1;
const WHOLE = 255;

const RTP = 1, END = 2, META = 3, PAUSE = 6, RESUME = 7, MARK = 8, CLEAR = 9, RTCP = 10, PING = 11, PONG = 12;
const HEADER_BYTES = 16;
const TRAILER_BYTES = 28;
const FRAME_MAX_BYTES = 65507 - TRAILER_BYTES; // what a UDP datagram holds
const PING_ID = 'tap-client';

const GATHER_MS = 10; // frames of so long go out in one piece
const WAIT_MIN_MS = 50; // before a link is opened again
const WAIT_MAX_MS = 1000; // a restarted daemon waits 15 s
const SILENCE_MS = 2000; // a PING over UDP may be unanswered for so long
const KEEP_MS = 500; // frames are kept so long after they were read: the spool should have them within 100 ms
const BEAT_MS = 100; // over UDP a PING is sent so often while frames are kept, even in a pause: nothing else tells of a restart
const RESERVE_BYTES = 1 << 20; // beyond the limit, for what is no audio: it may be a PAUSE
const BATCH_BYTES = 64 * 1024;

const STREAM = { batchFrames: Infinity, frames: Infinity, bytes: 256 * 1024, beatMs: Infinity };
const DATAGRAMS = { batchFrames: 16, frames: 48, bytes: Infinity, beatMs: BEAT_MS };

/** Queues frames, sends them to the daemon, and again what a daemon that was killed may not have. */
class Sender {
  #backlog;
  #key;
  #target;
  #handedOver = new Map(); // call → packets of the caller and of the AI
  #signer = randomBytes(4);
  #signed = 0n;
  #link = null;
  #isUp = false;
  #isClosed = false;
  #heardAt = 0;
  #wait = WAIT_MIN_MS;
  #gathering = null;
  #timer = null;

  /**
   * @param {string} endpoint 'unix-stream:/path' or 'udp:127.0.0.1:5055'
   * @param {{key?: string, queueBytes?: number}} [options] key: the daemon's AUDIO_TAP_KEY, with which frames over UDP
   *   are signed. queueBytes: the most that frames may take which the daemon has not surely got.
   */
  constructor(endpoint, { key, queueBytes = 64 * 1024 * 1024 } = {}) {
    const [, kind, address] = /^(unix-stream|udp):(.+)$/.exec(endpoint) ?? [];
    if (!kind) throw new TypeError(`neither unix-stream:/path nor udp:host:port: ${endpoint}`);
    this.#target = kind === 'udp' ? udpTarget(address) : { path: address };
    this.#key = key;
    this.#backlog = new Backlog(queueBytes, this.#target.path ? STREAM : DATAGRAMS);
    this.#open();
  }

  /** Hands over an RTP packet that was received (CALLER) or sent (AI) now, or atUs microseconds since 1970. */
  rtp(call, channel, packet, atUs) {
    let counts = this.#handedOver.get(call);
    if (!counts) this.#handedOver.set(call, (counts = [0, 0]));
    counts[channel] += 1;
    this.#push(RTP, call, channel, packet, atUs);
  }

  /** Hands over a compound RTCP packet. */
  rtcp(call, channel, packet) {
    this.#push(RTCP, call, channel, packet);
  }

  /** Says what a call is: conversation_id, payload_types and the like. */
  meta(call, meta, channel = WHOLE) {
    this.#push(META, call, channel, Buffer.from(JSON.stringify(meta)));
  }

  /** Marks a moment by a name. */
  mark(call, name, fields = {}, channel = WHOLE) {
    this.#push(MARK, call, channel, Buffer.from(JSON.stringify({ ...fields, name })));
  }

  /** Keeps what comes after out of the recording, until resume. mode: 'silence' or 'cut'. */
  pause(call, channel = WHOLE, mode = 'silence') {
    this.#push(PAUSE, call, channel, Buffer.from(JSON.stringify({ mode })));
  }

  /** Ends a pause. */
  resume(call, channel = WHOLE) {
    this.#push(RESUME, call, channel);
  }

  /** Says that the AI was interrupted: what is queued of it will not be heard. */
  clear(call) {
    this.#push(CLEAR, call, AI);
  }

  /** Ends both channels, and says how many packets were handed over, so that the manifest tells what was lost. */
  end(call) {
    const counts = this.#handedOver.get(call) ?? [0, 0];
    this.#handedOver.delete(call);
    counts.forEach((count, channel) => this.#push(END, call, channel, u64(count)));
  }

  /** What has become of the frames. */
  counters() {
    return { ...this.#backlog.counters, isConnected: this.#isUp, heldBytes: this.#backlog.heldBytes };
  }

  /** Waits until the daemon has read all that was handed over; false if it has not in time. */
  async settle(timeoutMs) {
    const deadline = performance.now() + timeoutMs;
    while (!this.#backlog.isSettled()) {
      if (performance.now() >= deadline) return false;
      await new Promise((resolve) => setTimeout(resolve, GATHER_MS));
    }
    return true;
  }

  /** Settles, and stops sending. Returns what settle says. */
  async close(timeoutMs = 5000) {
    const isSettled = await this.settle(timeoutMs);
    this.#isClosed = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#gathering);
    this.#isUp = false;
    this.#link?.close();
    return isSettled;
  }

  #push(kind, call, channel, body = Buffer.alloc(0), atUs = nowUs()) {
    const idBytes = Buffer.byteLength(call);
    const length = HEADER_BYTES + idBytes + body.length;
    if (idBytes < 1 || idBytes > 128 || length > FRAME_MAX_BYTES) {
      this.#backlog.counters.refused += 1;
      return;
    }
    const frame = Buffer.allocUnsafe(length);
    writeHeader(frame, kind, channel, idBytes, BigInt(atUs));
    frame.write(call, HEADER_BYTES);
    frame.set(body, HEADER_BYTES + idBytes);
    this.#backlog.push(frame);
    if (this.#isUp && !this.#gathering) {
      this.#gathering = setTimeout(() => {
        this.#gathering = null;
        this.#send();
      }, GATHER_MS);
    }
  }

  /** Sends what may go out now. Nothing here waits: node keeps what the socket does not take. */
  #send() {
    let batch;
    while (this.#isUp && (batch = this.#backlog.nextBatch(performance.now()))) {
      this.#link.write([...batch.frames, ping(batch.number)]);
    }
  }

  #sign(frame) {
    const now = BigInt(nowUs());
    this.#signed = now > this.#signed ? now : this.#signed + 1n;
    const signed = Buffer.concat([frame, this.#signer, u64(this.#signed)]);
    signed[7] |= 1;
    return Buffer.concat([signed, createHmac('sha256', this.#key).update(signed).digest().subarray(0, 16)]);
  }

  #open() {
    const broken = () => this.#breakOff(link);
    const answered = (number) => this.#answered(link, number);
    const link = this.#target.path
      ? openStream(this.#target, () => this.#look(), answered, broken)
      : openUdp(this.#target, () => this.#look(), answered, broken, (f) => (this.#key ? this.#sign(f) : f));
    this.#link = link;
  }

  #answered(link, number) {
    if (link !== this.#link || this.#isClosed) return;
    this.#heardAt = performance.now();
    this.#wait = WAIT_MIN_MS;
    this.#backlog.confirm(number, this.#heardAt, !this.#target.path);
    if (!this.#isUp) {
      this.#isUp = true;
      this.#backlog.counters.connects += 1;
      this.#look();
    }
    this.#send();
  }

  /** Asks by a PING whether the daemon is there; over UDP, where nothing breaks, again and again. */
  #look() {
    clearTimeout(this.#timer);
    if (this.#isUp && this.#target.path) return;
    if (this.#isUp) {
      const since = Math.max(this.#backlog.unansweredSince() ?? Infinity, this.#heardAt);
      if (since > performance.now() - SILENCE_MS) {
        this.#send();
        this.#timer = setTimeout(() => this.#look(), BEAT_MS);
        return;
      }
      this.#isUp = false;
    }
    this.#link.write([ping(this.#backlog.nextNumber())]);
    if (this.#target.path) return; // the answer comes, or the link breaks
    this.#timer = setTimeout(() => this.#look(), this.#wait);
    this.#wait = Math.min(2 * this.#wait, WAIT_MAX_MS);
  }

  #breakOff(link) {
    if (link !== this.#link || this.#isClosed) return;
    this.#isUp = false;
    this.#link = null;
    link.close();
    this.#backlog.giveBack(Infinity);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#open(), this.#wait);
    this.#wait = Math.min(2 * this.#wait, WAIT_MAX_MS);
  }
}

/** What was handed over and the daemon does not surely have: a queue, and a window of what was sent of it.
 *
 * Frames stay in the window until the PING behind them is answered, and KEEP_MS longer. Where the link breaks they go
 * back to the head of the queue. The daemon recognises RTP packets that it has.
 */
class Backlog {
  heldBytes = 0;
  counters = { accepted: 0, confirmed: 0, dropped: 0, refused: 0, repeated: 0, connects: 0 };
  #limit;
  #pace;
  #queue = []; // { frame, isRead }, from #head on; isRead: the daemon has read it once
  #head = 0;
  #window = []; // { number, at, confirmedAt, entries, bytes }, by number
  #frames = 0; // unconfirmed in the window
  #bytes = 0;
  #number = 0;

  constructor(limit, pace) {
    this.#limit = limit;
    this.#pace = pace;
  }

  push(frame) {
    const isAudio = frame[3] === RTP || frame[3] === RTCP;
    const limit = this.#limit + (isAudio ? 0 : RESERVE_BYTES);
    // What the daemon has read is kept only as long as there is room.
    while (this.heldBytes + frame.length > limit && this.#window.length && this.#window[0].confirmedAt !== null) {
      this.heldBytes -= this.#window.shift().bytes;
    }
    if (this.heldBytes + frame.length > limit) {
      this.counters.dropped += 1;
      return;
    }
    this.counters.accepted += 1;
    this.heldBytes += frame.length;
    this.#queue.push({ frame, isRead: false });
  }

  nextNumber() {
    return ++this.#number;
  }

  /** Moves to the window what may go out now: the number of its PING, and the frames. None if only a PING is due. */
  nextBatch(now) {
    const isEmpty = this.#head === this.#queue.length && !this.#isBeatDue(now);
    if (isEmpty || this.#frames >= this.#pace.frames || this.#bytes >= this.#pace.bytes) return null;
    const sent = { number: this.nextNumber(), at: now, confirmedAt: null, entries: [], bytes: 0 };
    while (this.#head < this.#queue.length && sent.entries.length < this.#pace.batchFrames && sent.bytes < BATCH_BYTES) {
      const entry = this.#queue[this.#head++];
      sent.entries.push(entry);
      sent.bytes += entry.frame.length;
    }
    // What has left the queue is forgotten now and then, not each time: that would move all that is left.
    if (this.#head > 1024 && this.#head * 2 > this.#queue.length) {
      this.#queue = this.#queue.slice(this.#head);
      this.#head = 0;
    } else {
      this.#queue.fill(undefined, this.#head - sent.entries.length, this.#head);
    }
    this.#frames += sent.entries.length;
    this.#bytes += sent.bytes;
    this.#window.push(sent);
    return { number: sent.number, frames: sent.entries.map((entry) => entry.frame) };
  }

  #isBeatDue(now) {
    const isLate = this.#window.length && now - this.#window[this.#window.length - 1].at >= this.#pace.beatMs;
    return isLate && this.#window.some((sent) => sent.entries.length);
  }

  /** Notes an answer. Datagrams before a PING that has none are taken for lost, as by a daemon restarted meanwhile. */
  confirm(number, now, isLossy) {
    let isOneLost = false;
    let askedAt = -Infinity;
    for (const sent of this.#window) {
      if (sent.number > number) break;
      if (sent.confirmedAt !== null) continue;
      if (isLossy && sent.number < number) {
        isOneLost = true;
        continue;
      }
      sent.confirmedAt = now;
      askedAt = sent.at;
      this.#frames -= sent.entries.length;
      this.#bytes -= sent.bytes;
      for (const entry of sent.entries) {
        if (!entry.isRead) this.counters.confirmed += 1;
        entry.isRead = true;
      }
    }
    if (isOneLost) this.giveBack(number);
    // A daemon that answers what was asked so much later was still there to write. When the answer is looked at says
    // nothing: it may have been under way while the daemon was killed.
    const isSafe = ({ confirmedAt, entries }) =>
      confirmedAt !== null && (confirmedAt <= askedAt - KEEP_MS || !entries.length);
    while (this.#window.length && isSafe(this.#window[0])) this.heldBytes -= this.#window.shift().bytes;
  }

  /** Puts what was sent before PING `number` back to the head of the queue.
   *
   * Of what the daemon has read, not all: a MARK would be there twice, and audio of a call whose END it has read could
   * open that call once more.
   */
  giveBack(number) {
    const over = this.#callsThatAreOver();
    const again = [];
    while (this.#window.length && this.#window[0].number < number) {
      const sent = this.#window.shift();
      if (sent.confirmedAt === null) {
        this.#frames -= sent.entries.length;
        this.#bytes -= sent.bytes;
      }
      for (const entry of sent.entries) {
        const kind = entry.frame[3];
        const isHarmful = kind === MARK || (kind !== END && over.has(callOf(entry.frame)));
        if (entry.isRead && isHarmful) this.heldBytes -= entry.frame.length;
        else again.push(entry);
      }
    }
    if (!again.length) return; // while the daemon is gone, the queue may be long
    this.counters.repeated += again.length;
    this.#queue = again.concat(this.#queue.slice(this.#head));
    this.#head = 0;
  }

  unansweredSince() {
    return this.#window.find((sent) => sent.confirmedAt === null)?.at;
  }

  isSettled() {
    return this.#head === this.#queue.length && this.#frames === 0;
  }

  #callsThatAreOver() {
    const ended = new Map();
    for (const { frame, isRead } of this.#window.flatMap((sent) => sent.entries)) {
      if (isRead && frame[3] === END) ended.set(callOf(frame), (ended.get(callOf(frame)) ?? 0) | (1 << frame[4]));
    }
    return new Set([...ended].filter(([, channels]) => channels === 3).map(([call]) => call));
  }
}

function openStream(target, opened, answered, broken) {
  const socket = net.connect(target);
  let unread = Buffer.alloc(0);
  socket.on('connect', opened);
  socket.on('error', () => {}); // 'close' follows
  socket.on('close', broken);
  socket.on('data', (data) => {
    unread = Buffer.concat([unread, data]);
    while (unread.length >= 2 && unread.length >= 2 + unread.readUInt16BE()) {
      const end = 2 + unread.readUInt16BE();
      readAnswer(unread.subarray(2, end), answered);
      unread = unread.subarray(end);
    }
  });
  const behindLength = (frame) => [Buffer.from([frame.length >> 8, frame.length & 255]), frame];
  return {
    write: (frames) => socket.write(Buffer.concat(frames.flatMap(behindLength))),
    close: () => socket.destroy(),
  };
}

function openUdp(target, opened, answered, broken, sign) {
  const socket = dgram.createSocket(target.family);
  let isClosed = false;
  const close = () => {
    if (!isClosed) socket.close();
    isClosed = true;
  };
  socket.on('connect', opened);
  socket.on('error', broken);
  socket.on('message', (data) => readAnswer(data, answered));
  socket.connect(target.port, target.host);
  const write = (frames) => {
    for (const frame of frames) {
      if (isClosed) return;
      socket.send(sign(frame), (error) => error && broken());
    }
  };
  return { write, close };
}

function readAnswer(data, answered) {
  const start = HEADER_BYTES + PING_ID.length;
  if (data.length === start + 8 && data[3] === PONG) answered(Number(data.readBigUInt64BE(start)));
}

function udpTarget(address) {
  const at = address.lastIndexOf(':');
  const host = address.slice(0, at).replace(/^\[|\]$/g, '');
  return { family: host.includes(':') ? 'udp6' : 'udp4', host, port: Number(address.slice(at + 1)) };
}

function writeHeader(frame, kind, channel, idBytes, atUs) {
  frame.write('ST', 0, 'latin1');
  frame.set([1, kind, channel, idBytes, 0, 0], 2);
  frame.writeBigUInt64BE(atUs, 8);
}

function ping(number) {
  const frame = Buffer.alloc(HEADER_BYTES + PING_ID.length + 8);
  writeHeader(frame, PING, WHOLE, PING_ID.length, 0n);
  frame.write(PING_ID, HEADER_BYTES);
  frame.writeBigUInt64BE(BigInt(number), HEADER_BYTES + PING_ID.length);
  return frame;
}

function callOf(frame) {
  return frame.toString('utf8', HEADER_BYTES, HEADER_BYTES + frame[5]);
}

function u64(number) {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(number));
  return bytes;
}

/** Microseconds since 1970, by the wall clock's milliseconds. */
function nowUs() {
  return Date.now() * 1000;
}

module.exports = { Sender, CALLER, AI, WHOLE };
