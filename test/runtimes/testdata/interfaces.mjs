import os from "node:os";

for (const [name, list] of Object.entries(os.networkInterfaces())) {
  console.log(name);
  for (const a of list) console.log(name, a.address);
}
