// Package sidetape hands RTP packets of calls to the recorder, and never makes the media wait.
//
//	sender, err := sidetape.New(sidetape.Options{Endpoint: "unix-stream:/run/sidetape/tap-stream.sock"})
//	sender.Meta("call-1", sidetape.Whole, map[string]any{"conversation_id": "c-42"})
//	sender.RTP("call-1", sidetape.Caller, packet, time.Now()) // one whole RTP packet, on the media goroutine
//	sender.End("call-1")                                      // each call needs it
//	sender.Close(5 * time.Second)                             // when the gateway itself stops
//
// Every method but Settle and Close copies and returns; a goroutine of its own sends. README.md says what is promised.
package sidetape

import (
	"bufio"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// Channel is a voice of a call, or the call as a whole.
type Channel byte

const (
	Caller Channel = 0
	AI     Channel = 1
	Whole  Channel = 255
)

const (
	kindRTP, kindEnd, kindMeta, kindPause, kindResume, kindMark = 1, 2, 3, 6, 7, 8
	kindClear, kindRTCP, kindPing, kindPong                     = 9, 10, 11, 12

	headerBytes  = 16
	trailerBytes = 28
	frameMax     = 65507 - trailerBytes // what a UDP datagram holds
	pingID       = "tap-client"

	gather  = 10 * time.Millisecond  // frames of so long go out in one piece
	waitMin = 50 * time.Millisecond  // before a link is opened again
	waitMax = time.Second            // a restarted daemon waits 15 s
	silence = 2 * time.Second        // a PING over UDP may be unanswered for so long
	beat    = 100 * time.Millisecond // between PINGs in a pause, over UDP
	keep    = 500 * time.Millisecond // frames are kept so long after they were read: the spool should have them within 100 ms
)

// Options say how to reach a daemon, and what may be kept for it.
type Options struct {
	Endpoint   string // "unix-stream:/path" or "udp:127.0.0.1:5055"
	Key        []byte // the daemon's AUDIO_TAP_KEY, with which frames over UDP are signed
	QueueBytes int    // the most that frames may take which it has not surely got; 0 means 64 MiB
}

// Counters tell what has become of the frames.
type Counters struct {
	Accepted  uint64 `json:"accepted"`  // taken into the queue
	Confirmed uint64 `json:"confirmed"` // the daemon has said to have read them
	Dropped   uint64 `json:"dropped"`   // given up because the queue was full
	Refused   uint64 `json:"refused"`   // the protocol cannot carry them
	Repeated  uint64 `json:"repeated"`  // sent once more after the link broke
	Connects  uint64 `json:"connects"`  // how often a daemon was found
	Connected bool   `json:"connected"` // whether it answers now
	HeldBytes int    `json:"held_bytes"`
}

// Sender queues frames, sends them to the daemon, and again what a daemon that was killed may not have.
type Sender struct {
	network, address string
	key              []byte
	signer           [4]byte
	signed           uint64

	wake, closed chan struct{}
	closing      sync.Once
	done         sync.WaitGroup

	mu         sync.Mutex // held for moving frames only, never over I/O
	backlog    backlog
	handedOver map[string]*[2]uint64 // RTP packets of the caller and of the AI of each call
	isUp       bool
}

// New begins to look for the daemon, and to take frames for it.
func New(options Options) (*Sender, error) {
	kind, address, _ := strings.Cut(options.Endpoint, ":")
	network := map[string]string{"unix-stream": "unix", "udp": "udp"}[kind]
	if network == "" || address == "" {
		return nil, fmt.Errorf("neither unix-stream:/path nor udp:host:port: %q", options.Endpoint)
	}
	s := &Sender{
		network: network, address: address, key: options.Key,
		wake: make(chan struct{}, 1), closed: make(chan struct{}),
		handedOver: map[string]*[2]uint64{},
	}
	if _, err := rand.Read(s.signer[:]); err != nil {
		return nil, err
	}
	s.backlog.limit = options.QueueBytes
	if s.backlog.limit == 0 {
		s.backlog.limit = 64 << 20
	}
	s.backlog.pace = stream
	if s.isUDP() {
		s.backlog.pace = datagrams
	}
	s.done.Add(1)
	go s.run()
	return s, nil
}

// RTP hands over a packet that was received (Caller) or sent (AI) at a time.
func (s *Sender) RTP(call string, channel Channel, packet []byte, at time.Time) {
	frame := encode(kindRTP, call, channel, packet, at)
	s.mu.Lock()
	counts := s.handedOver[call]
	if counts == nil {
		counts = new([2]uint64)
		s.handedOver[call] = counts
	}
	counts[channel&1]++
	s.backlog.push(frame)
	s.mu.Unlock()
	s.notify()
}

// RTCP hands over a compound packet.
func (s *Sender) RTCP(call string, channel Channel, packet []byte) {
	s.push(kindRTCP, call, channel, packet)
}

// Meta says what a call is: conversation_id, payload_types and the like.
func (s *Sender) Meta(call string, channel Channel, meta map[string]any) error {
	return s.pushJSON(kindMeta, call, channel, meta)
}

// Mark marks a moment by a name, and any further fields.
func (s *Sender) Mark(call string, channel Channel, name string, fields map[string]any) error {
	mark := map[string]any{}
	for key, value := range fields {
		mark[key] = value
	}
	mark["name"] = name
	return s.pushJSON(kindMark, call, channel, mark)
}

// Pause keeps what comes after out of the recording, until Resume: as silence, or cut out of the timeline.
func (s *Sender) Pause(call string, channel Channel, cut bool) {
	mode := `{"mode":"silence"}`
	if cut {
		mode = `{"mode":"cut"}`
	}
	s.push(kindPause, call, channel, []byte(mode))
}

// Resume ends a pause.
func (s *Sender) Resume(call string, channel Channel) {
	s.push(kindResume, call, channel, nil)
}

// Clear says that the AI was interrupted: what is queued of it will not be heard.
func (s *Sender) Clear(call string) {
	s.push(kindClear, call, AI, nil)
}

// End ends both channels of a call, and says how many packets were handed over on each, so that the manifest tells what
// was lost.
func (s *Sender) End(call string) {
	now := time.Now()
	s.mu.Lock()
	counts := s.handedOver[call]
	if counts == nil {
		counts = new([2]uint64)
	}
	delete(s.handedOver, call)
	for channel, count := range counts {
		s.backlog.push(encode(kindEnd, call, Channel(channel), binary.BigEndian.AppendUint64(nil, count), now))
	}
	s.mu.Unlock()
	s.notify()
}

// Counters tells what has become of the frames so far.
func (s *Sender) Counters() Counters {
	s.mu.Lock()
	defer s.mu.Unlock()
	counters := s.backlog.counters
	counters.Connected, counters.HeldBytes = s.isUp, s.backlog.held
	return counters
}

// Settle waits until the daemon has read all that was handed over, and says whether it has in time.
func (s *Sender) Settle(timeout time.Duration) bool {
	for deadline := time.Now().Add(timeout); ; time.Sleep(gather) {
		s.mu.Lock()
		isSettled := s.backlog.isSettled()
		s.mu.Unlock()
		if isSettled || time.Now().After(deadline) {
			return isSettled
		}
	}
}

// Close settles, and stops sending. It returns what Settle says.
func (s *Sender) Close(timeout time.Duration) bool {
	isSettled := s.Settle(timeout)
	s.closing.Do(func() { close(s.closed) })
	s.done.Wait()
	return isSettled
}

func (s *Sender) pushJSON(kind byte, call string, channel Channel, object map[string]any) error {
	body, err := json.Marshal(object)
	if err != nil {
		return err
	}
	s.push(kind, call, channel, body)
	return nil
}

func (s *Sender) push(kind byte, call string, channel Channel, body []byte) {
	frame := encode(kind, call, channel, body, time.Now())
	s.mu.Lock()
	s.backlog.push(frame)
	s.mu.Unlock()
	s.notify()
}

func (s *Sender) notify() {
	select {
	case s.wake <- struct{}{}:
	default: // it is awake
	}
}

func (s *Sender) isUDP() bool {
	return s.network == "udp"
}

// run opens a link, uses it until it breaks, and begins anew.
func (s *Sender) run() {
	defer s.done.Done()
	wait := waitMin
	for {
		if conn, err := net.Dial(s.network, s.address); err == nil {
			s.converse(conn, &wait)
		}
		select {
		case <-s.closed:
			return
		default:
		}
		s.mu.Lock()
		s.isUp = false
		s.backlog.giveBack(^uint64(0))
		s.mu.Unlock()
		select {
		case <-time.After(wait):
		case <-s.closed:
			return
		}
		wait = longer(wait)
	}
}

// converse sends what there is and reads the answers, until the link breaks. The wait begins anew once there was one.
func (s *Sender) converse(conn net.Conn, wait *time.Duration) {
	answers, over := make(chan uint64), make(chan struct{})
	defer close(over)
	go func() { // so that nothing waits for a write when the sender is closed
		select {
		case <-s.closed:
		case <-over:
		}
		conn.Close()
	}()
	go readAnswers(conn, s.isUDP(), answers, over)

	isUp, heard := false, time.Now()
	// When to ask whether somebody is there. Over a stream once is enough: the answer comes, or the link breaks.
	ask := time.NewTimer(0)
	defer ask.Stop()
	pulse := time.NewTicker(beat) // has the next round look whether a PING is due
	defer pulse.Stop()
	for {
		if isUp {
			since, err := s.send(conn)
			if err != nil {
				return
			}
			ask.Stop()
			if s.isUDP() && !since.IsZero() {
				if heard.After(since) {
					since = heard
				}
				ask = time.NewTimer(time.Until(since.Add(silence)))
			}
		}
		wake := s.wake
		if !isUp {
			wake = nil // what is in the queue waits
		}
		select {
		case <-s.closed:
			return
		case number, ok := <-answers:
			if !ok {
				return
			}
			heard, *wait = time.Now(), waitMin
			s.mu.Lock()
			s.backlog.confirm(number, heard, s.isUDP())
			if !isUp {
				isUp, s.isUp = true, true
				s.backlog.counters.Connects++
			}
			s.mu.Unlock()
		case <-pulse.C:
		case <-wake:
			time.Sleep(gather)
		case <-ask.C:
			isUp = false
			s.mu.Lock()
			s.isUp = false
			number := s.backlog.nextNumber()
			s.mu.Unlock()
			if s.write(conn, [][]byte{ping(number)}) != nil {
				return
			}
			if s.isUDP() {
				ask = time.NewTimer(*wait)
				*wait = longer(*wait)
			}
		}
	}
}

// send sends what may go out now, and returns since when the daemon owes an answer, if it does.
func (s *Sender) send(conn net.Conn) (time.Time, error) {
	for {
		s.mu.Lock()
		number, frames := s.backlog.nextBatch(time.Now())
		since := s.backlog.unansweredSince()
		s.mu.Unlock()
		if number == 0 {
			return since, nil
		}
		if err := s.write(conn, append(frames, ping(number))); err != nil {
			return since, err
		}
	}
}

func (s *Sender) write(conn net.Conn, frames [][]byte) error {
	if s.isUDP() {
		for _, frame := range frames {
			if _, err := conn.Write(s.sign(frame)); err != nil {
				return err
			}
		}
		return nil
	}
	var out []byte
	for _, frame := range frames {
		out = append(binary.BigEndian.AppendUint16(out, uint16(len(frame))), frame...)
	}
	_, err := conn.Write(out)
	return err
}

func (s *Sender) sign(frame []byte) []byte {
	if len(s.key) == 0 {
		return frame
	}
	s.signed++
	if now := uint64(time.Now().UnixMicro()); now > s.signed {
		s.signed = now
	}
	signed := append(make([]byte, 0, len(frame)+trailerBytes), frame...)
	signed[7] |= 1
	signed = append(signed, s.signer[:]...)
	signed = binary.BigEndian.AppendUint64(signed, s.signed)
	tag := hmac.New(sha256.New, s.key)
	tag.Write(signed)
	return append(signed, tag.Sum(nil)[:16]...)
}

// readAnswers tells the numbers of answered PINGs, and closes the channel when the link breaks.
func readAnswers(conn net.Conn, isUDP bool, answers chan<- uint64, over <-chan struct{}) {
	defer close(answers)
	reader := bufio.NewReader(conn)
	buffer := make([]byte, 65535)
	for {
		answer := buffer
		if isUDP {
			length, err := conn.Read(buffer)
			if err != nil {
				return
			}
			answer = buffer[:length]
		} else {
			var length [2]byte
			if _, err := io.ReadFull(reader, length[:]); err != nil {
				return
			}
			answer = buffer[:binary.BigEndian.Uint16(length[:])]
			if _, err := io.ReadFull(reader, answer); err != nil {
				return
			}
		}
		const start = headerBytes + len(pingID)
		if len(answer) == start+8 && answer[3] == kindPong {
			select {
			case answers <- binary.BigEndian.Uint64(answer[start:]):
			case <-over:
				return
			}
		}
	}
}

// encode writes a frame; nothing where the protocol cannot carry it.
func encode(kind byte, call string, channel Channel, body []byte, at time.Time) []byte {
	length := headerBytes + len(call) + len(body)
	if len(call) < 1 || len(call) > 128 || length > frameMax {
		return nil
	}
	frame := make([]byte, headerBytes, length)
	copy(frame, []byte{'S', 'T', 1, kind, byte(channel), byte(len(call)), 0, 0})
	if !at.IsZero() {
		binary.BigEndian.PutUint64(frame[8:], uint64(at.UnixMicro()))
	}
	return append(append(frame, call...), body...)
}

func ping(number uint64) []byte {
	return encode(kindPing, pingID, Whole, binary.BigEndian.AppendUint64(nil, number), time.Time{})
}

func callOf(frame []byte) []byte {
	return frame[headerBytes : headerBytes+int(frame[5])]
}

func longer(wait time.Duration) time.Duration {
	if wait *= 2; wait < waitMax {
		return wait
	}
	return waitMax
}
