"""Tests of what only the inside shows; tests/senders.rs plays whole calls. Run: python3 -m unittest"""

import asyncio
import socket
import unittest

from sidetape_sender import Sender


class Closing(unittest.IsolatedAsyncioTestCase):
    async def test_it_ends_at_whatever_moment_the_daemon_is_found(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
            daemon.bind(("127.0.0.1", 0))
            # Steps of the loop between the daemon's answer and the closing.
            for steps in range(6):
                with self.subTest(steps=steps):
                    sender = Sender("udp:127.0.0.1:%d" % daemon.getsockname()[1])
                    await asyncio.sleep(0.02)
                    sender._answered(0)
                    for _ in range(steps):
                        await asyncio.sleep(0)
                    await asyncio.wait_for(sender.close(), 1)


if __name__ == "__main__":
    unittest.main()
