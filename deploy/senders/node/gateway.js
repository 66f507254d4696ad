// Plays a call to sidetape, as a gateway would hand it over.
//
//     node gateway.js unix-stream:/run/sidetape/tap-stream.sock call-1 packets.txt \
//         [--faster N] [--queue-bytes N] [--stay]
//
// A line of the file is a packet: `caller` or `ai`, milliseconds since the call began, the packet in hexadecimal digits.
// AUDIO_TAP_KEY is the daemon's key. --stay: to wait for the end of the input before leaving.
'use strict';

const { readFileSync } = require('node:fs');
const { text } = require('node:stream/consumers');
const { setTimeout: sleep } = require('node:timers/promises');
const { parseArgs } = require('node:util');

const { Sender, CALLER, AI } = require('./sidetape-sender.js');

async function main() {
  const { positionals, values } = parseArgs({
    allowPositionals: true,
    options: {
      stay: { type: 'boolean', default: false },
      faster: { type: 'string', default: '1' },
      'queue-bytes': { type: 'string', default: String(64 * 1024 * 1024) },
    },
  });
  const [endpoint, call, file] = positionals;
  const sender = new Sender(endpoint, { key: process.env.AUDIO_TAP_KEY, queueBytes: Number(values['queue-bytes']) });
  sender.meta(call, { conversation_id: `${call} talks` });
  const begun = performance.now();
  const begunUs = Date.now() * 1000;
  let longest = 0;
  for (const line of readFileSync(file, 'latin1').trimEnd().split('\n')) {
    const [channel, ms, digits] = line.split(' ');
    const wait = begun + Number(ms) / Number(values.faster) - performance.now();
    if (wait > 0) await sleep(wait);
    const packet = Buffer.from(digits, 'hex');
    const handingOver = performance.now();
    sender.rtp(call, channel === 'caller' ? CALLER : AI, packet, begunUs + Number(ms) * 1000);
    longest = Math.max(longest, performance.now() - handingOver);
  }
  sender.end(call);
  console.log('handed over');

  if (values.stay) {
    await sender.settle(60000);
    await text(process.stdin);
  }
  const isSettled = await sender.close(60000);
  console.log(JSON.stringify({ longest_us: Math.round(longest * 1000), ...sender.counters() }));
  if (!isSettled) {
    console.error('the daemon has not confirmed all of it');
    process.exitCode = 1;
  }
}

main();
