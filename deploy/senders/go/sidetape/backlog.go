package sidetape

import "time"

// reserve is what frames other than audio may take beyond the limit: one of them may be a PAUSE.
const reserve = 1 << 20

// pace bounds what may go out in one piece, and be on its way unconfirmed.
type pace struct {
	batchFrames, batchBytes, frames, bytes int
	// While frames are kept, a PING is sent so often even in a pause; 0: never. Nothing else tells of a restart over UDP.
	beat time.Duration
}

const unbounded = 1 << 30

var (
	stream    = pace{unbounded, 64 << 10, unbounded, 256 << 10, 0}
	datagrams = pace{16, unbounded, 48, unbounded, beat} // beyond what the smallest receive buffer holds they would be lost
)

// backlog is what was handed over and the daemon does not surely have: a queue, and a window of what was sent of it.
//
// Frames stay in the window until the PING behind them is answered, and keep longer. Where the link breaks they go back
// to the head of the queue. The daemon recognises RTP packets that it has.
type backlog struct {
	limit    int
	pace     pace
	queue    []waiting
	window   []*sent // by number
	frames   int     // unconfirmed in the window
	bytes    int
	held     int // bytes of all frames
	number   uint64
	counters Counters
}

type waiting struct {
	frame  []byte
	isRead bool // the daemon has read it once
}

type sent struct {
	number      uint64
	at          time.Time
	isConfirmed bool
	confirmed   time.Time
	frames      []waiting
	bytes       int
}

// push takes a frame into the queue if there is room; nil is one that the protocol cannot carry.
func (b *backlog) push(frame []byte) {
	if frame == nil {
		b.counters.Refused++
		return
	}
	limit := b.limit
	if kind := frame[3]; kind != kindRTP && kind != kindRTCP {
		limit += reserve
	}
	// What the daemon has read is kept only as long as there is room.
	for b.held+len(frame) > limit && len(b.window) > 0 && b.window[0].isConfirmed {
		b.forget()
	}
	if b.held+len(frame) > limit {
		b.counters.Dropped++
		return
	}
	b.counters.Accepted++
	b.held += len(frame)
	b.queue = append(b.queue, waiting{frame: frame})
}

func (b *backlog) nextNumber() uint64 {
	b.number++
	return b.number
}

// nextBatch moves to the window what may go out now: the number of its PING, and the frames. None if only a PING is due,
// and 0 if nothing is.
func (b *backlog) nextBatch(now time.Time) (uint64, [][]byte) {
	if (len(b.queue) == 0 && !b.isBeatDue(now)) || b.frames >= b.pace.frames || b.bytes >= b.pace.bytes {
		return 0, nil
	}
	batch := &sent{number: b.nextNumber(), at: now}
	var frames [][]byte
	for len(frames) < len(b.queue) && len(frames) < b.pace.batchFrames && batch.bytes < b.pace.batchBytes {
		frame := b.queue[len(frames)].frame
		batch.bytes += len(frame)
		frames = append(frames, frame)
	}
	batch.frames = append(batch.frames, b.queue[:len(frames)]...)
	for i := range frames {
		b.queue[i] = waiting{} // or the array below would keep what has long been sent
	}
	if b.queue = b.queue[len(frames):]; len(b.queue) == 0 {
		b.queue = nil
	}
	b.frames += len(frames)
	b.bytes += batch.bytes
	b.window = append(b.window, batch)
	return batch.number, frames
}

func (b *backlog) isBeatDue(now time.Time) bool {
	if b.pace.beat == 0 || len(b.window) == 0 || now.Sub(b.window[len(b.window)-1].at) < b.pace.beat {
		return false
	}
	for _, batch := range b.window {
		if len(batch.frames) > 0 {
			return true
		}
	}
	return false
}

// confirm notes an answer. Datagrams before a PING that has none are taken for lost, as by a daemon restarted meanwhile.
func (b *backlog) confirm(number uint64, now time.Time, isLossy bool) {
	isOneLost, asked := false, time.Time{}
	for _, batch := range b.window {
		if batch.number > number {
			break
		}
		if batch.isConfirmed {
			continue
		}
		if isLossy && batch.number < number {
			isOneLost = true
			continue
		}
		batch.isConfirmed, batch.confirmed, asked = true, now, batch.at
		b.frames -= len(batch.frames)
		b.bytes -= batch.bytes
		for i := range batch.frames {
			if !batch.frames[i].isRead {
				b.counters.Confirmed++
			}
			batch.frames[i].isRead = true
		}
	}
	if isOneLost {
		b.giveBack(number)
	}
	// A daemon that answers what was asked so much later was still there to write. When the answer is looked at says
	// nothing: it may have been under way while the daemon was killed.
	for len(b.window) > 0 && b.window[0].isConfirmed {
		if len(b.window[0].frames) > 0 && asked.Sub(b.window[0].confirmed) < keep {
			break
		}
		b.forget()
	}
}

func (b *backlog) forget() {
	b.held -= b.window[0].bytes
	b.window[0] = nil
	b.window = b.window[1:]
}

// giveBack puts what was sent before PING number back to the head of the queue.
//
// Of what the daemon has read, not all: a MARK would be there twice, and audio of a call whose END it has read could
// open that call once more.
func (b *backlog) giveBack(number uint64) {
	over := b.callsThatAreOver()
	var again []waiting
	for len(b.window) > 0 && b.window[0].number < number {
		batch := b.window[0]
		b.window = b.window[1:]
		if !batch.isConfirmed {
			b.frames -= len(batch.frames)
			b.bytes -= batch.bytes
		}
		for _, entry := range batch.frames {
			kind := entry.frame[3]
			isHarmful := kind == kindMark || (kind != kindEnd && over[string(callOf(entry.frame))])
			if entry.isRead && isHarmful {
				b.held -= len(entry.frame)
			} else {
				again = append(again, entry)
			}
		}
	}
	if len(again) > 0 { // while the daemon is gone, the queue may be long and the window is empty
		b.counters.Repeated += uint64(len(again))
		b.queue = append(again, b.queue...)
	}
}

func (b *backlog) callsThatAreOver() map[string]bool {
	type ended struct {
		call    string
		channel Channel
	}
	seen, over := map[ended]bool{}, map[string]bool{}
	for _, batch := range b.window {
		for _, entry := range batch.frames {
			if !entry.isRead || entry.frame[3] != kindEnd {
				continue
			}
			call := string(callOf(entry.frame))
			seen[ended{call, Channel(entry.frame[4])}] = true
			over[call] = seen[ended{call, Caller}] && seen[ended{call, AI}]
		}
	}
	return over
}

func (b *backlog) unansweredSince() time.Time {
	for _, batch := range b.window {
		if !batch.isConfirmed {
			return batch.at
		}
	}
	return time.Time{}
}

func (b *backlog) isSettled() bool {
	return len(b.queue) == 0 && b.frames == 0
}
