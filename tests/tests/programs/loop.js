// Node: timers, a watched directory, a server and a client on a Unix socket, a worker thread, files read in the pool.
'use strict';
const crypto = require('crypto');
const fs = require('fs');
const net = require('net');
const path = require('path');
const { Worker } = require('worker_threads');

const dir = process.argv[2];
const nonce = crypto.randomBytes(16).toString('hex');
const state = { ticks: 0, echoed: 0, worked: 0, read: 0, changes: [] };

function fnv1a(text) {
  let value = 0xcbf29ce484222325n;
  for (const byte of Buffer.from(text)) {
    value = ((value ^ BigInt(byte)) * 0x100000001b3n) & 0xffffffffffffffffn;
  }
  return value.toString(16).padStart(16, '0');
}

function say(name, text) {
  const draft = path.join(dir, '.' + name);
  fs.writeFileSync(draft, text);
  fs.renameSync(draft, path.join(dir, name));
}

fs.mkdirSync(path.join(dir, 'watched'));
fs.watch(path.join(dir, 'watched'), (_, name) => state.changes.push(name));
setInterval(() => state.ticks++, 10);

const worker = new Worker(
  "const { parentPort } = require('worker_threads'); parentPort.on('message', n => parentPort.postMessage(n + 1));",
  { eval: true },
);
worker.on('message', (n) => { state.worked = n; setTimeout(() => worker.postMessage(n), 5); });
worker.postMessage(0);

const server = net.createServer((socket) => socket.pipe(socket));
server.listen(path.join(dir, 'socket'), () => {
  const client = net.connect(path.join(dir, 'socket'));
  client.on('data', () => { state.echoed++; setTimeout(() => client.write('again'), 5); });
  client.write('first');
});

(function read() {
  fs.readFile(__filename, (error, text) => {
    if (error || text.length < 1000) throw error || new Error('short');
    state.read++;
    setTimeout(read, 7);
  });
})();

function finish(error) {
  say('result', `${error ? error.message || error : 'ok'}\n${nonce}\n`);
  process.exit(0);
}
process.on('uncaughtException', finish);

function check() {
  const before = { ...state };
  fs.writeFileSync(path.join(dir, 'watched', 'new'), 'x');
  setTimeout(() => {
    for (const what of ['ticks', 'echoed', 'worked', 'read']) {
      if (!(state[what] > before[what])) return finish(`${what} stands still at ${state[what]}`);
    }
    if (!state.changes.includes('new')) return finish(`changes: ${state.changes}`);
    finish();
  }, 500);
}

(function start() {
  if (state.echoed < 5 || state.worked < 5 || state.read < 5) return setTimeout(start, 10);
  say('ready', `${process.pid} ${fnv1a(nonce)}\n`);
  (function wait() {
    if (fs.existsSync(path.join(dir, 'go'))) return check();
    setTimeout(wait, 10);
  })();
})();
