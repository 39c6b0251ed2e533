// Resolves `cms.test` to this machine, because the SDK does not retry requests to loopback
// addresses or to `localhost`.

import dns from "node:dns";

const { lookup } = dns;

dns.lookup = (name, ...rest) => lookup(name === "cms.test" ? "127.0.0.1" : name, ...rest);
