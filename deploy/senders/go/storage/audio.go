// Package storage is what a gateway had for recording calls in its own process, with another inside: the same names,
// and what they are given goes to sidetape.
//
// Put it in the place of the old package, with package sidetape beside it. Where recordings go, how loud they are and what
// they are called is now the daemon's business (AUDIO_STORAGE_TYPE and the like), and FFmpeg nobody's.
//
// The daemon is found by its own variables: AUDIO_UNIX_STREAM, else AUDIO_UDP_LISTEN; AUDIO_TAP_KEY; AUDIO_HTTP_LISTEN
// and AUDIO_HTTP_TOKEN for GetAudioDataRange.
package storage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"sidetape/senders/sidetape"
)

// AudioType says whose voice a packet carries.
type AudioType string

const (
	AudioTypeWhatsAppInput AudioType = "whatsapp_input" // the caller: left
	AudioTypeAIOutput      AudioType = "ai_output"      // right
)

// AudioFormat says what a packet holds. Only Opus was ever recorded right.
type AudioFormat string

const (
	AudioFormatOpus  AudioFormat = "opus"
	AudioFormatPCM16 AudioFormat = "pcm16"
)

// StorageType is kept for the callers that name one.
type StorageType string

const (
	StorageTypeLocal StorageType = "local"
	StorageTypeGCS   StorageType = "gcs"
)

const (
	streams  = 2                // references that a connection begins with
	staleFor = 30 * time.Minute // the daemon, too, closes a connection of which nothing came for so long
	crowd    = 1024             // connections from which on stale ones are looked for

	preRollMs, postRollMs = 2500, 1000 // what GetAudioDataRange always added
	rangeTimeout          = 10 * time.Second
)

// Packet is what *rtp.Packet of github.com/pion/rtp is.
type Packet interface {
	MarshalSize() int
	MarshalTo(buffer []byte) (int, error)
}

// AudioCacheService hands the packets of calls to sidetape.
type AudioCacheService struct {
	sender *sidetape.Sender // nil: nothing is recorded
	http   *http.Client
	base   string
	token  string

	mu          sync.Mutex
	connections map[string]*connection
}

type connection struct {
	references     int
	conversationID string
	hasAudio       bool
	touched        time.Time
}

// NewAudioCacheService begins to look for the daemon. As ever, an empty path means that nothing is recorded; otherwise type
// and path say nothing here. When ctx ends, sending does.
func NewAudioCacheService(ctx context.Context, _ StorageType, storagePath string) (*AudioCacheService, error) {
	s := &AudioCacheService{connections: map[string]*connection{}, token: os.Getenv("AUDIO_HTTP_TOKEN")}
	if storagePath == "" {
		return s, nil
	}
	endpoint := "udp:127.0.0.1:5055"
	if path := os.Getenv("AUDIO_UNIX_STREAM"); path != "" {
		endpoint = "unix-stream:" + path
	} else if address := os.Getenv("AUDIO_UDP_LISTEN"); address != "" {
		endpoint = "udp:" + address
	}
	sender, err := sidetape.New(sidetape.Options{Endpoint: endpoint, Key: []byte(os.Getenv("AUDIO_TAP_KEY"))})
	if err != nil {
		return nil, err
	}
	s.sender = sender
	s.base, s.http = "http://"+os.Getenv("AUDIO_HTTP_LISTEN"), &http.Client{Timeout: rangeTimeout}
	if address := os.Getenv("AUDIO_HTTP_LISTEN"); strings.HasPrefix(address, "unix:") {
		path := strings.TrimPrefix(address, "unix:")
		dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}
		s.base, s.http.Transport = "http://sidetape", &http.Transport{DialContext: dial}
	}
	if done := ctx.Done(); done != nil {
		go func() {
			<-done
			sender.Close(0)
		}()
	}
	return s, nil
}

// SetConversationID names the recording. It is told to the daemon with the first audio, because calls that are not
// recorded have one, too.
func (s *AudioCacheService) SetConversationID(connectionID, conversationID string) {
	if s.sender == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.connection(connectionID)
	c.conversationID = conversationID
	if c.hasAudio {
		s.tellConversation(connectionID, c)
	}
}

// CacheAudioRTP hands over a packet that was received or sent now. It copies the packet and returns.
func (s *AudioCacheService) CacheAudioRTP(connectionID string, audioType AudioType, format AudioFormat, rtpPacket Packet) {
	now := time.Now()
	if s.sender == nil || format != AudioFormatOpus || isNil(rtpPacket) {
		return
	}
	packet := make([]byte, rtpPacket.MarshalSize())
	length, err := rtpPacket.MarshalTo(packet)
	if err != nil {
		return // no packet that a gateway has received or sent is such
	}
	s.mu.Lock()
	c := s.connection(connectionID)
	if !c.hasAudio && c.conversationID != "" {
		s.tellConversation(connectionID, c)
	}
	c.hasAudio = true
	s.mu.Unlock()
	s.sender.RTP(connectionID, channelOf(audioType), packet[:length], now)
}

// IncrementReference keeps the recording open until one CleanupConnection more.
func (s *AudioCacheService) IncrementReference(connectionID string) {
	s.refer(connectionID, 1)
}

// CleanupConnection gives a reference back. Each connection begins with two, one for each stream; with the last, the
// recording is finished.
func (s *AudioCacheService) CleanupConnection(connectionID string) {
	s.refer(connectionID, -1)
}

// GetAudioDataRange returns a stretch of a live call as an Ogg Opus file: from 2.5 s before start to 1 s after end.
func (s *AudioCacheService) GetAudioDataRange(connectionID string, audioType AudioType, startTime, endTime time.Time) ([]byte, error) {
	if s.sender == nil {
		return nil, errors.New("audio is not recorded")
	}
	s.sender.Settle(time.Second) // what was handed over just now may be wanted
	channel := "caller"
	if channelOf(audioType) == sidetape.AI {
		channel = "ai"
	}
	query := url.Values{
		"channel": {channel},
		"from":    {strconv.FormatInt(startTime.UnixMicro(), 10)}, "to": {strconv.FormatInt(endTime.UnixMicro(), 10)},
		"pre_roll_ms": {strconv.Itoa(preRollMs)}, "post_roll_ms": {strconv.Itoa(postRollMs)},
	}
	address := fmt.Sprintf("%s/v1/connections/%s/audio?%s", s.base, url.PathEscape(connectionID), query.Encode())
	request, err := http.NewRequest(http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	if s.token != "" {
		request.Header.Set("Authorization", "Bearer "+s.token)
	}
	response, err := s.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		var problem struct{ Detail, Title string }
		_ = json.Unmarshal(body, &problem) // the status says enough where it is no JSON
		return nil, fmt.Errorf("audio of connection %s: %s %s %s", connectionID, response.Status, problem.Title, problem.Detail)
	}
	return body, nil
}

// Counters tells what has become of the packets.
func (s *AudioCacheService) Counters() sidetape.Counters {
	if s.sender == nil {
		return sidetape.Counters{}
	}
	return s.sender.Counters()
}

// Close finishes all recordings, and waits until the daemon has read all of them.
func (s *AudioCacheService) Close() error {
	if s.sender == nil {
		return nil
	}
	s.mu.Lock()
	for connectionID, c := range s.connections {
		s.end(connectionID, c)
	}
	s.mu.Unlock()
	if !s.sender.Close(5 * time.Second) {
		return errors.New("sidetape has not confirmed all of the audio")
	}
	return nil
}

func (s *AudioCacheService) refer(connectionID string, by int) {
	if s.sender == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.connection(connectionID)
	if c.references += by; c.references <= 0 {
		s.end(connectionID, c)
	}
}

// connection finds a connection, or begins one. s.mu is held.
func (s *AudioCacheService) connection(connectionID string) *connection {
	now := time.Now()
	c := s.connections[connectionID]
	if c == nil {
		if len(s.connections) >= crowd {
			for id, old := range s.connections {
				if now.Sub(old.touched) > staleFor {
					s.end(id, old)
				}
			}
		}
		c = &connection{references: streams}
		s.connections[connectionID] = c
	}
	c.touched = now
	return c
}

func (s *AudioCacheService) end(connectionID string, c *connection) {
	delete(s.connections, connectionID)
	if c.hasAudio {
		s.sender.End(connectionID)
	}
}

func (s *AudioCacheService) tellConversation(connectionID string, c *connection) {
	// A map of strings is always JSON.
	_ = s.sender.Meta(connectionID, sidetape.Whole, map[string]any{"conversation_id": c.conversationID})
}

func channelOf(audioType AudioType) sidetape.Channel {
	if audioType == AudioTypeAIOutput {
		return sidetape.AI
	}
	return sidetape.Caller
}

// isNil says whether there is no packet: a nil *rtp.Packet is not a nil Packet.
func isNil(packet Packet) bool {
	if packet == nil {
		return true
	}
	value := reflect.ValueOf(packet)
	return value.Kind() == reflect.Pointer && value.IsNil()
}

var (
	audioCache     *AudioCacheService
	audioCacheOnce sync.Once
)

// GetAudioCache returns the service of the process; nil before InitAudioCache.
func GetAudioCache() *AudioCacheService {
	return audioCache
}

// SetAudioCache makes a service that of the process, once.
func SetAudioCache(cache *AudioCacheService) {
	audioCacheOnce.Do(func() { audioCache = cache })
}

// InitAudioCache makes the service of the process, if it is enabled.
func InitAudioCache(ctx context.Context, enabled bool, storageType StorageType, storagePath string) error {
	if !enabled {
		return nil
	}
	cache, err := NewAudioCacheService(ctx, storageType, storagePath)
	if err == nil {
		SetAudioCache(cache)
	}
	return err
}
