// Makes one call of the JavaScript SDK with the settings in `SETTINGS`. Prints a line for each
// response that it retries, and then the outcome.

import { connect, key, observed } from "./sdk.mjs";

const settings = JSON.parse(process.env.SETTINGS ?? "{}");
const logHandler = (level) => console.log(JSON.stringify({ level }));
const stack = connect({ ...settings, logHandler }).stack({ api_key: key });
const outcome = await observed(() => stack.contentType().query().find());
console.log(JSON.stringify(outcome));
