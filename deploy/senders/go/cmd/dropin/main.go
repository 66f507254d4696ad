// Command dropin is a gateway that was written for the old package: two goroutines, one for each stream, and a third party
// that wants to hear the call again when both are over.
//
//	go run ./cmd/dropin call-1 packets.txt range.opus
//
// A line of the file is a packet: "caller" or "ai", milliseconds since the call began, the packet in hexadecimal digits.
package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"sync"
	"time"

	"sidetape/senders/storage"
)

// rtpPacket stands for pion's, which needs a module.
type rtpPacket struct{ bytes []byte }

func (p *rtpPacket) MarshalSize() int { return len(p.bytes) }

func (p *rtpPacket) MarshalTo(buffer []byte) (int, error) { return copy(buffer, p.bytes), nil }

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: dropin CALL FILE RANGE")
	}
	call, path, rangePath := os.Args[1], os.Args[2], os.Args[3]
	if err := storage.InitAudioCache(context.Background(), true, storage.StorageTypeLocal, "recordings"); err != nil {
		log.Fatal(err)
	}
	cache := storage.GetAudioCache()
	cache.SetConversationID(call, call+" talks")

	begun := time.Now()
	var both sync.WaitGroup
	for channel, audioType := range map[string]storage.AudioType{
		"caller": storage.AudioTypeWhatsAppInput, "ai": storage.AudioTypeAIOutput,
	} {
		both.Add(1)
		go func(channel string, audioType storage.AudioType) {
			defer both.Done()
			defer cache.CleanupConnection(call)
			play(path, channel, begun, func(packet *rtpPacket) {
				cache.CacheAudioRTP(call, audioType, storage.AudioFormatOpus, packet)
			})
			cache.CacheAudioRTP(call, audioType, storage.AudioFormatOpus, (*rtpPacket)(nil)) // must not panic
		}(channel, audioType)
	}
	cache.IncrementReference(call)
	both.Wait()
	audio, err := cache.GetAudioDataRange(call, storage.AudioTypeWhatsAppInput, begun, begun.Add(time.Second))
	cache.CleanupConnection(call)
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(rangePath, audio, 0o600); err != nil {
		log.Fatal(err)
	}
	if _, err := cache.GetAudioDataRange("nobody", storage.AudioTypeAIOutput, begun, time.Now()); err == nil {
		log.Fatal("there is no such call")
	} else {
		fmt.Println(err)
	}
	if err := cache.Close(); err != nil {
		log.Fatal(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(cache.Counters()); err != nil {
		log.Fatal(err)
	}
}

// play hands over the packets of a channel in real time.
func play(path, wanted string, begun time.Time, handOver func(*rtpPacket)) {
	file, err := os.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var channel, digits string
		var ms int
		if _, err := fmt.Sscan(lines.Text(), &channel, &ms, &digits); err != nil {
			log.Fatal(err)
		}
		if channel != wanted {
			continue
		}
		packet, err := hex.DecodeString(digits)
		if err != nil {
			log.Fatal(err)
		}
		time.Sleep(time.Until(begun.Add(time.Duration(ms) * time.Millisecond)))
		handOver(&rtpPacket{packet})
	}
}
