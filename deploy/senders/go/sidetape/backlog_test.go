package sidetape

import (
	"reflect"
	"testing"
	"time"
)

func frame(kind byte, call string, channel Channel, number byte) []byte {
	return encode(kind, call, channel, []byte{number}, time.Time{})
}

// take takes what may go out now, and returns the last byte of each frame.
func take(b *backlog, now time.Time) []byte {
	var numbers []byte
	for {
		number, frames := b.nextBatch(now)
		if number == 0 {
			return numbers
		}
		for _, frame := range frames {
			numbers = append(numbers, frame[len(frame)-1])
		}
	}
}

func expect(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: %v, not %v", what, got, want)
	}
}

func TestABrokenLinkGivesBackWhatMayNotBeOnTheDisk(t *testing.T) {
	start := time.Now()
	b := backlog{limit: 1 << 20, pace: stream}
	for number := byte(0); number < 3; number++ {
		at := start.Add(time.Duration(number) * keep)
		b.push(frame(kindRTP, "call", Caller, number))
		take(&b, at)
		b.confirm(b.number, at, false)
	}
	b.push(frame(kindRTP, "call", Caller, 3))
	take(&b, start.Add(2*keep))
	b.push(frame(kindRTP, "call", Caller, 4))
	b.giveBack(^uint64(0))
	expect(t, "sent again", take(&b, start.Add(2*keep)), []byte{2, 3, 4})
	// The answer may have been under way while the daemon was killed.
	b.confirm(b.number, start.Add(9*keep), false)
	expect(t, "confirmed", b.counters.Confirmed, uint64(5))
	b.giveBack(^uint64(0))
	expect(t, "sent again after a late look at the answer", take(&b, start.Add(9*keep)), []byte{2, 3, 4})
}

func TestDatagramsBeforeAnUnansweredPingAreSentAgain(t *testing.T) {
	b := backlog{limit: 1 << 20, pace: pace{2, unbounded, 4, unbounded, 0}}
	now := time.Now()
	for number := byte(0); number < 4; number++ {
		b.push(frame(kindRTP, "call", Caller, number))
	}
	take(&b, now)
	probe := b.nextNumber()
	b.confirm(2, now, true)
	expect(t, "sent again", take(&b, now), []byte{0, 1})
	b.confirm(probe+1, now, true)
	expect(t, "settled", b.isSettled(), true)
	expect(t, "confirmed", b.counters.Confirmed, uint64(4))
}

func TestARestartInAPauseIsNoticed(t *testing.T) {
	start := time.Now()
	b := backlog{limit: 1 << 20, pace: datagrams}
	b.push(frame(kindRTP, "call", Caller, 7))
	take(&b, start)
	b.confirm(1, start, true)
	lost, _ := b.nextBatch(start.Add(beat))
	next, frames := b.nextBatch(start.Add(2 * beat))
	expect(t, "PINGs in the pause", []any{lost, next, len(frames)}, []any{uint64(2), uint64(3), 0})
	b.confirm(next, start.Add(2*beat), true)
	expect(t, "sent again", take(&b, start.Add(2*beat)), []byte{7})
	for now, beats := start, 0; b.held > 0; now = now.Add(beat) {
		if number, _ := b.nextBatch(now); number != 0 {
			beats++
			b.confirm(number, now, true)
		}
		if beats > 10 {
			t.Fatal("it ends when nothing is kept")
		}
	}
}

func TestAFinishedCallIsNotOpenedAgain(t *testing.T) {
	b := backlog{limit: 1 << 20, pace: stream}
	b.push(frame(kindRTP, "over", Caller, 1))
	b.push(frame(kindEnd, "over", Caller, 2))
	b.push(frame(kindEnd, "over", AI, 3))
	b.push(frame(kindRTP, "going on", Caller, 4))
	b.push(frame(kindMark, "going on", Caller, 5))
	b.push(frame(kindEnd, "going on", AI, 6))
	take(&b, time.Now())
	b.confirm(b.number, time.Now(), false)
	b.giveBack(^uint64(0))
	expect(t, "sent again", take(&b, time.Now()), []byte{2, 3, 4, 6})
}

func TestAFullQueueDropsAudioAndHasRoomForAPause(t *testing.T) {
	one := frame(kindRTP, "call", Caller, 0)
	b := backlog{limit: 10 * len(one), pace: stream}
	for range make([]struct{}, 15) {
		b.push(one)
	}
	b.push(frame(kindPause, "call", Whole, 0))
	expect(t, "accepted", b.counters.Accepted, uint64(11))
	expect(t, "dropped", b.counters.Dropped, uint64(5))
	take(&b, time.Now())
	b.confirm(b.number, time.Now(), false)
	b.push(one)
	expect(t, "dropped, now that there is room", b.counters.Dropped, uint64(5))
	b.push(nil)
	expect(t, "refused", b.counters.Refused, uint64(1))
}
