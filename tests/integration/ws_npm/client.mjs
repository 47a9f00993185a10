// A client nobody here wrote (npm `ws`): connect, receive, acknowledge, lose the network, resume.
// Usage: node client.mjs WS_URL TOKEN; talks to the test by one JSON line at a time on stdin and stdout.
import { createRequire } from 'node:module';
import readline from 'node:readline';

const WebSocket = createRequire(process.env.BELFRY_NODE_MODULES + '/')('ws');
const [url, token] = process.argv.slice(2);
let socket = null;

function say(object) {
    process.stdout.write(JSON.stringify(object) + '\n');
}

function open(resume) {
    socket = new WebSocket(url, ['belfry.v1.json'], { headers: { authorization: `Bearer ${token}` } });
    const mine = socket;
    mine.on('open', () => mine.send(JSON.stringify({ t: 'connect', device: 'npm', ...(resume ? { resume } : {}) })));
    mine.on('message', (data, isBinary) => say({ protocol: mine.protocol, isBinary, frame: JSON.parse(data.toString()) }));
    mine.on('close', (code) => say({ closed: code }));
    mine.on('error', (error) => say({ error: String(error) }));
}

readline.createInterface({ input: process.stdin }).on('line', (line) => {
    const command = JSON.parse(line);
    if (command.do === 'open') open(command.resume);
    if (command.do === 'send') socket.send(JSON.stringify(command.frame));
    if (command.do === 'drop') socket.terminate();
    if (command.do === 'close') socket.close();
}).on('close', () => process.exit(0));
