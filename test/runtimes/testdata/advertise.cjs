// Advertises a service as smart-home programs do, and answers one question
// about it over multicast.
const dgram = require("node:dgram");
const os = require("node:os");
const { getResponder } = require("@homebridge/ciao");

const responder = getResponder();
const service = responder.createService({ name: "sandboxed", type: "hap", port: 4711, txt: { a: "b" } });
service.on("name-change", (name) => console.log("renamed", name));

const question = Buffer.concat([
  Buffer.from([0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]),
  ...["_hap", "_tcp", "local"].map((l) => Buffer.concat([Buffer.from([l.length]), Buffer.from(l)])),
  Buffer.from([0, 0, 12, 0, 1]),
]);

(async () => {
  await service.advertise();
  console.log("advertised", Object.keys(os.networkInterfaces()).length);
  const client = dgram.createSocket({ type: "udp4", reuseAddr: true });
  const answer = new Promise((resolve) => {
    client.on("message", (m) => m.includes("sandboxed") && resolve(m.length));
    setTimeout(() => resolve(0), 5000).unref();
  });
  client.on("error", (e) => console.log("client", e.code));
  client.bind(0, () => {
    try {
      client.setMulticastInterface(process.argv[2]);
      client.send(question, 5353, "224.0.0.251", (e) => e && console.log("send", e.code));
    } catch (e) {
      console.log("multicast", e.code);
    }
  });
  console.log("answered", (await answer) > 0);
  client.close();
  await service.end();
  await responder.shutdown();
  console.log("ended");
})().catch((e) => {
  console.error(e);
  process.exit(1);
});
