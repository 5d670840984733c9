// What Node programs ask of a system. Prints what worked.
import { execFileSync, fork, spawn } from "node:child_process";
import crypto from "node:crypto";
import dns from "node:dns/promises";
import fs from "node:fs";
import http from "node:http";
import net from "node:net";
import os from "node:os";
import { Worker } from "node:worker_threads";

const once = (what, event) => new Promise((resolve) => what.once(event, (...all) => resolve(all)));

const worker = new Worker("require('worker_threads').parentPort.postMessage(6 * 7)", { eval: true });
console.log((await once(worker, "message"))[0]);

console.log(execFileSync("echo", ["child"]).toString().trim());
console.log(await once(spawn("sh", ["-c", "kill -TERM $$"]), "exit"));
const group = spawn("sleep", ["30"], { detached: true });
process.kill(-group.pid, "SIGKILL");
console.log(await once(group, "exit"));
fs.writeFileSync("forked.cjs", "process.on('message', (m) => { process.send(m + 1); process.disconnect(); })");
const forked = fork("./forked.cjs");
forked.send(1);
console.log((await once(forked, "message"))[0]);

const watcher = fs.watch(".");
const seen = new Promise((resolve) => watcher.on("change", (event, file) => file === "watched" && resolve(file)));
fs.writeFileSync("watched", "");
console.log(await seen);
watcher.close();

const web = http.createServer((request, response) => response.end("served")).listen(0, "localhost");
await once(web, "listening");
console.log(await (await fetch(`http://localhost:${web.address().port}`)).text());
web.close();
web.closeAllConnections();
const local = net.createServer((socket) => socket.end("unix")).listen("node.sock");
await once(local, "listening");
console.log((await once(net.connect("node.sock"), "data"))[0].toString());
local.close();
console.log((await dns.lookup("localhost", { family: 4 })).address);

console.log(os.cpus().length > 0, os.totalmem() > 0, os.hostname().length > 0, crypto.randomBytes(4).length);
console.log((await import("data:text/javascript,export default 5")).default);
console.log((await WebAssembly.instantiate(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0]))).module.constructor.name);
os.setPriority(5);
console.log(os.getPriority());
setTimeout(() => console.log("timer"), 5);
