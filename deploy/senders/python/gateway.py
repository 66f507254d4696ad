"""Plays a call to sidetape, as a gateway would hand it over.

    python3 gateway.py unix-stream:/run/sidetape/tap-stream.sock call-1 packets.txt \\
        [--faster N] [--queue-bytes N] [--stay]

A line of the file is a packet: `caller` or `ai`, milliseconds since the call began, the packet in hexadecimal digits.
AUDIO_TAP_KEY is the daemon's key. --stay: to wait for the end of the input before leaving.
"""

import argparse
import asyncio
import json
import os
import sys
import time

from sidetape_sender import AI, CALLER, Sender


async def main():
    parser = argparse.ArgumentParser()
    for argument in ("endpoint", "call", "file"):
        parser.add_argument(argument)
    parser.add_argument("--faster", type=int, default=1)
    parser.add_argument("--queue-bytes", type=int, default=64 << 20)
    parser.add_argument("--stay", action="store_true")
    given = parser.parse_args()

    sender = Sender(given.endpoint, key=os.environ.get("AUDIO_TAP_KEY"), queue_bytes=given.queue_bytes)
    sender.meta(given.call, {"conversation_id": f"{given.call} talks"})
    begun, begun_us, longest = time.monotonic(), time.time_ns() // 1000, 0
    with open(given.file, encoding="ascii") as lines:
        packets = [line.split() for line in lines]
    for channel, ms, digits in packets:
        wait = begun + int(ms) / 1000 / given.faster - time.monotonic()
        await asyncio.sleep(max(wait, 0))
        packet, at_us = bytes.fromhex(digits), begun_us + int(ms) * 1000
        handing_over = time.perf_counter_ns()
        sender.rtp(given.call, {"caller": CALLER, "ai": AI}[channel], packet, at_us)
        longest = max(longest, time.perf_counter_ns() - handing_over)
    sender.end(given.call)
    print("handed over", flush=True)

    if given.stay:
        await sender.settle(60)
        await asyncio.to_thread(sys.stdin.read)
    is_settled = await sender.close(60)
    print(json.dumps({"longest_us": longest // 1000, **sender.counters()}))
    return 0 if is_settled else "the daemon has not confirmed all of it"


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
