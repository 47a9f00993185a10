// Peer of ws-broadcast: npm `ws` as its documentation shows a broadcast (the message as a Buffer, sent to
// every open client). Prints its port; then each line of stdin is a number of bytes, followed by the message.
'use strict';
const { WebSocketServer, WebSocket } = require('ws');

const server = new WebSocketServer({ host: '127.0.0.1', port: 0, perMessageDeflate: false, backlog: 4096 });
server.on('listening', () => console.log(server.address().port));

function broadcast(message) {
  for (const client of server.clients) {
    if (client.readyState === WebSocket.OPEN) client.send(message, { binary: false });
  }
}

let pending = Buffer.alloc(0);
process.stdin.on('data', (bytes) => {
  pending = Buffer.concat([pending, bytes]);
  for (;;) {
    const end = pending.indexOf(10);
    if (end < 0) return;
    const length = parseInt(pending.toString('latin1', 0, end), 10);
    if (pending.length < end + 1 + length) return;
    const message = Buffer.from(pending.subarray(end + 1, end + 1 + length));
    pending = pending.subarray(end + 1 + length);
    broadcast(message);
  }
});
process.stdin.on('end', () => process.exit(0));
