// Uses the JavaScript SDK as a script does, with a management token from standard input. Records
// the requests and the outcomes of its calls.

import { subscribe } from "node:diagnostics_channel";
import { readFileSync } from "node:fs";
import "./resolve.mjs";
import contentstack from "@contentstack/management";

export const key = process.env.STACK;
const host = process.env.API;
export const authorization = readFileSync(0, "utf8").trim();

// By default, the SDK logs to standard output, which is for the outcomes.
const logHandler = () => {};

/** Returns a client of the API at `API`, with more settings. */
export const connect = (more = {}) =>
  contentstack.client({ host, endpoint: `http://${host}/v3`, authorization, logHandler, ...more });

const requests = [];

// Records each request that this process sends, no matter how the SDK handles the response.
subscribe("http.client.response.finish", ({ request, response }) => {
  const { method, path } = request;
  const { statusCode: status, headers } = response;
  const reason = headers["x-stacktoken-reason"] ?? "";
  requests.push({ method, path, status, reason, retryAfter: headers["retry-after"] ?? "" });
});

/** Makes a call. Returns its requests, whether it returned something, and the error it threw. */
export const observed = async (call) => {
  requests.length = 0;
  let [returned, error] = [false, null];
  try {
    returned = (await call()) !== undefined;
  } catch (thrown) {
    error = describe(thrown);
  }
  return { call: String(call), requests: [...requests], returned, error };
};

// Most calls throw an error of the SDK, and some an error of its HTTP client. After the last retry,
// the SDK throws an error that contains the first one.
const describe = (thrown) => {
  const { status, errorCode, errorMessage, message, originalError } = thrown;
  const response = thrown.response ?? originalError?.response;
  return {
    status: status ?? response?.status,
    code: errorCode ?? response?.data?.error_code,
    text: errorMessage ?? response?.data?.error_message,
    message,
  };
};
