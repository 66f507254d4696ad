// Command gateway plays a call to sidetape, as a gateway would hand it over.
//
//	go run ./cmd/gateway unix-stream:/run/sidetape/tap-stream.sock call-1 packets.txt \
//	    [-faster N] [-queue-bytes N] [-stay]
//
// A line of the file is a packet: "caller" or "ai", milliseconds since the call began, the packet in hexadecimal digits.
// AUDIO_TAP_KEY is the daemon's key. -stay: to wait for the end of the input before leaving.
package main

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"sidetape/senders/sidetape"
)

func main() {
	if len(os.Args) < 4 {
		log.Fatal("usage: gateway ENDPOINT CALL FILE [flags]")
	}
	endpoint, call, path := os.Args[1], os.Args[2], os.Args[3]
	flags := flag.NewFlagSet("gateway", flag.ExitOnError)
	faster := flags.Int("faster", 1, "play so many times as fast")
	queueBytes := flags.Int("queue-bytes", 0, "bound of the queue")
	stay := flags.Bool("stay", false, "wait for the end of the input before leaving")
	flags.Parse(os.Args[4:])

	sender, err := sidetape.New(sidetape.Options{
		Endpoint: endpoint, Key: []byte(os.Getenv("AUDIO_TAP_KEY")), QueueBytes: *queueBytes,
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := sender.Meta(call, sidetape.Whole, map[string]any{"conversation_id": call + " talks"}); err != nil {
		log.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	begun, longest := time.Now(), time.Duration(0)
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var name, digits string
		var ms int
		if _, err := fmt.Sscan(lines.Text(), &name, &ms, &digits); err != nil {
			log.Fatal(err)
		}
		packet, err := hex.DecodeString(digits)
		if err != nil {
			log.Fatal(err)
		}
		offset := time.Duration(ms) * time.Millisecond
		channel := map[string]sidetape.Channel{"caller": sidetape.Caller, "ai": sidetape.AI}[name]
		time.Sleep(time.Until(begun.Add(offset / time.Duration(*faster))))
		handingOver := time.Now()
		sender.RTP(call, channel, packet, begun.Add(offset))
		if took := time.Since(handingOver); took > longest {
			longest = took
		}
	}
	sender.End(call)
	fmt.Println("handed over")

	if *stay {
		sender.Settle(time.Minute)
		if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
			log.Fatal(err)
		}
	}
	isSettled := sender.Close(time.Minute)
	told := struct {
		LongestUs int64 `json:"longest_us"`
		sidetape.Counters
	}{longest.Microseconds(), sender.Counters()}
	if err := json.NewEncoder(os.Stdout).Encode(told); err != nil {
		log.Fatal(err)
	}
	if !isSettled {
		log.Fatal("the daemon has not confirmed all of it")
	}
}
