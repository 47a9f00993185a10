// Peer of push: npm apns2 as its documentation shows it, one client, many sends under way. Arguments: port, key
// file, key id, team, bytes of JSON, pushes under way. Each line of stdin, "FIRST COUNT", sends so many to the
// tokens with these numbers; the answer is a line "GOOD". The first line is answered before anything is measured.
import fs from 'node:fs';
import readline from 'node:readline';
import { ApnsClient, Notification } from 'apns2';
import { Pool } from 'undici';

const [port, keyFile, keyId, team, bytes, underWay] = process.argv.slice(2);
const client = new ApnsClient({
  team, keyId, signingKey: fs.readFileSync(keyFile), defaultTopic: 'com.example.app', host: 'localhost' });
// The library writes port 443 into its address: the pool is made again, with its options and the port.
await client.client.close();
client.client = new Pool(`https://localhost:${port}`, {
  connections: 32, pipelining: 1, allowH2: true, maxConcurrentStreams: 100 });

const alert = 'x'.repeat(bytes - '{"aps":{"alert":""}}'.length);

function tokenOf(number) {
  const head = BigInt.asUintN(64, BigInt(number) * 0x9e3779b97f4a7c15n).toString(16).padStart(16, '0');
  return head + number.toString(16).padStart(48, '0');
}

async function run(first, count) {
  const tokens = Array.from({ length: count }, (_, i) => tokenOf(first + i));
  let next = 0, good = 0;
  console.log('ready');
  await go();
  const worker = async () => {
    while (next < count) {
      try {
        await client.send(new Notification(tokens[next++], { alert, expiration: 1900000000 }));
        good++;
      } catch (error) {
        if (good === 0) console.error(String(error));
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(count, underWay) }, worker));
  console.log(good);
}

const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
async function go() {
  const { value, done } = await lines.next();
  if (done) process.exit(0);
  return value;
}
for (;;) {
  const [first, count] = (await go()).split(' ').map(Number);
  await run(first, count);
}
