// Counts its requests, beside a thread that works.
const { Worker } = require("node:worker_threads");
const http = require("node:http");

new Worker("let sum = 0; setInterval(() => { for (let i = 0; i < 1e5; i++) sum += i; }, 20);", { eval: true });
let count = 0;
http
  .createServer((request, response) => response.end(`asked ${++count} times\n`))
  .listen(Number(process.argv[2]), "127.0.0.1");
