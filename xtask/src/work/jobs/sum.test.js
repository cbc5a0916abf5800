const test = require('node:test');
const assert = require('node:assert');
const http = require('node:http');
const { Worker } = require('node:worker_threads');
const { sum } = require('adder');

test('sum over a server on loopback', async () => {
  const server = http.createServer((request, answer) => answer.end(String(sum(20, 22))));
  await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
  const answer = await fetch(`http://127.0.0.1:${server.address().port}/`);
  assert.equal(await answer.text(), '42');
  server.close();
});

test('sum in a worker', async () => {
  const worker = new Worker("require('node:worker_threads').parentPort.postMessage(require('adder').sum(20, 22))", { eval: true });
  assert.equal(await new Promise((come) => worker.once('message', come)), 42);
});
