// Makes each call of the JavaScript SDK once, one after the other. Prints the outcome of each as a
// line of JSON, with the requests that were sent and what the SDK returned or threw.
//
//   API=cms.test:8080 STACK=blt… node calls.mjs < TOKEN

import { fileURLToPath } from "node:url";
import { content } from "./content.mjs";
import { people } from "./people.mjs";
import { connect, key, observed } from "./sdk.mjs";
import { stack as rest } from "./stack.mjs";

const file = fileURLToPath(new URL("package.json", import.meta.url));
const client = connect();
const stack = client.stack({ api_key: key });
// Outside of a stack, the SDK sends a stack key only if the key is set for all requests.
const withKey = connect({ headers: { api_key: key } });

for (const call of [
  ...content(stack, file),
  ...rest(stack, file),
  ...people(withKey),
  () => client.getUser(),
]) {
  process.stdout.write(`${JSON.stringify(await observed(call))}\n`);
}
